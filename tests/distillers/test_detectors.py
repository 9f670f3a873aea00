"""Detectors, whose targets are made in their own `compute_loss`, train as they do alone."""

import keras
import numpy as np
import pytest

import keras_distill as kd

hub = pytest.importorskip("keras_hub")

SIZE = 64
BOXES = np.array([[8.0, 8.0, 30.0, 30.0], [20.0, 20.0, 24.0, 40.0]], "float32")
IMAGES = np.random.default_rng(0).random((4, SIZE, SIZE, 3)).astype("float32")


def retina_net():
    encoder = hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64, 64],
        stackwise_num_blocks=[1, 1, 1],
        stackwise_num_strides=[1, 2, 2],
        block_type="basic_block",
        image_shape=(SIZE, SIZE, 3),
    )
    backbone = hub.models.RetinaNetBackbone(
        image_encoder=encoder, min_level=3, max_level=4, use_p5=False
    )
    return hub.models.RetinaNetObjectDetector(
        backbone, 3, bounding_box_format="xywh", pre_logits_num_conv_layers=1
    )


def d_fine():
    encoder = hub.models.HGNetV2Backbone(
        stem_channels=[3, 4, 4],
        stackwise_stage_filters=[[4, 4, 8, 1, 3, 3], [8, 4, 16, 1, 3, 3]],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, False],
        depths=[1, 1],
        hidden_sizes=[8, 16],
        embedding_size=4,
        use_learnable_affine_block=True,
        hidden_act="relu",
        image_shape=(SIZE, SIZE, 3),
        out_features=["stage1", "stage2"],
    )
    backbone = hub.models.DFineBackbone(
        backbone=encoder,
        decoder_in_channels=[16, 16],
        encoder_hidden_dim=16,
        num_denoising=0,
        num_labels=3,
        hidden_dim=16,
        learn_initial_query=False,
        num_queries=6,
        anchor_image_size=(SIZE, SIZE),
        feat_strides=[4, 8],
        num_feature_levels=2,
        encoder_in_channels=[8, 16],
        encode_proj_layers=[1],
        num_attention_heads=2,
        encoder_ffn_dim=16,
        num_encoder_layers=1,
        hidden_expansion=0.5,
        depth_multiplier=0.5,
        eval_idx=-1,
        num_decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=16,
        decoder_n_points=[2, 2],
        lqe_hidden_dim=8,
        num_lqe_layers=2,
        out_features=["stage1", "stage2"],
        image_shape=(SIZE, SIZE, 3),
    )
    return hub.models.DFineObjectDetector(backbone, 3, bounding_box_format="yxyx")


DETECTORS = {
    "RetinaNet": (retina_net, BOXES, "fpn"),
    "D-FINE": (d_fine, BOXES / SIZE, "hybrid_encoder"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector_trains_on_the_targets_that_it_makes(name):
    make, boxes, layer = DETECTORS[name]
    labels = {"boxes": np.stack([boxes] * 4), "labels": np.array([[0, 2]] * 4)}
    data = {"x": IMAGES, "y": labels, "batch_size": 2, "verbose": 0}
    results = []
    for wrap in (lambda net: net, lambda net: beside(net, make(), layer)):
        keras.utils.set_random_seed(0)
        net = make()
        model = wrap(net)
        model.compile(keras.optimizers.SGD(1e-3), jit_compile=False)
        judged = model.evaluate(**data)
        keras.utils.set_random_seed(1)
        history = model.fit(**data, shuffle=False).history
        results.append((net, history, judged))
    (alone, expected, judged), (student, found, again) = results
    assert again == pytest.approx(judged, rel=1e-5)
    assert found["label_loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert found["hint"][0] > 0
    for a, b in zip(alone.get_weights(), student.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def beside(student, teacher, layer):
    """Return a distiller with a hint, which weighs nothing, on features."""
    path, other = (f"{net.backbone.name}/{layer}" for net in (student, teacher))
    hint = kd.Term(kd.losses.Hint(), path, other, weight=0.0)
    return kd.Distiller(student, teacher, terms=[hint])
