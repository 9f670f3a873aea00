"""Reference nets with stable layer names and no weights.

Each ends in logits (no softmax), in a layer named `logits`; the nets with stages
name the end of each stage `stack1`, `stack2`, ...
"""

from keras_distill.models.conv_net import conv_net
from keras_distill.models.mlp import mlp
from keras_distill.models.resnet import resnet
from keras_distill.models.wide_resnet import wide_resnet

__all__ = ["conv_net", "mlp", "resnet", "wide_resnet"]
