"""Reference networks with stable layer names, without pretrained weights.

Each ends in a layer `logits` (no softmax). In networks with stages, the last layer of
each stage is named `stack1`, `stack2`, ..., in transformers that of each block `block1`,
`block2`, ...
"""

from keras_distill.models.conv_net import conv_net
from keras_distill.models.mlp import mlp
from keras_distill.models.resnet import resnet
from keras_distill.models.vit import deit, vit
from keras_distill.models.wide_resnet import wide_resnet

__all__ = ["conv_net", "deit", "mlp", "resnet", "vit", "wide_resnet"]
