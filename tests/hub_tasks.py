"""Tiny tasks of keras_hub, built from configurations and vocabularies in memory."""

import functools
import io

import keras
import keras_hub as hub
import numpy as np

from keras_distill._backend.keras_layers import flatten_layers

WORDS = ["good", "bad", "film", "a", "the", "very", "plot", "is"]
TEXTS = ["a very good film", "the bad film", "good", "the plot is very very bad"] * 2
LABELS = np.arange(8) % 2
IMAGES = np.random.default_rng(0).integers(0, 255, (8, 24, 24, 3)).astype("float32")
PAIRS = {"encoder_text": TEXTS, "decoder_text": TEXTS[::-1]}
ASKED = {"prompts": TEXTS, "responses": TEXTS[::-1]}
SIZE = {"num_heads": 2, "hidden_dim": 8, "intermediate_dim": 16, "dropout": 0.0}


def word_pieces():
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]


def byte_pairs(specials):
    """Return a vocabulary and merges that hold each word, alone and after a space."""
    letters = sorted(set("".join(WORDS)) | {"Ġ"})
    merges, parts = [], set(letters)
    for word in [*WORDS, *(f"Ġ{word}" for word in WORDS)]:
        whole = word[0]
        for letter in word[1:]:
            merges.append(f"{whole} {letter}")
            whole += letter
            parts.add(whole)
    tokens = [*specials, *sorted(parts)]
    return {
        "vocabulary": {token: number for number, token in enumerate(tokens)},
        "merges": list(dict.fromkeys(merges)),
    }


@functools.cache
def sentence_pieces():
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 4),
        model_writer=model,
        vocab_size=40,
        hard_vocab_limit=False,
        model_type="WORD",
        pad_id=0,
        bos_id=2,
        eos_id=1,
        unk_id=3,
        pad_piece="<pad>",
        bos_piece="<bos>",
        eos_piece="</s>",
        unk_piece="<unk>",
        user_defined_symbols=["<eos>"],
    )
    return model.getvalue()


def image_task(kind, backbone, size, scale):
    converter = getattr(hub.layers, f"{kind}ImageConverter")
    preprocessor = getattr(hub.models, f"{kind}ImageClassifierPreprocessor")
    return getattr(hub.models, f"{kind}ImageClassifier")(
        backbone=backbone,
        num_classes=2,
        preprocessor=preprocessor(converter(image_size=(size, size), scale=scale)),
    )


def resnet(width, size=16, scale=1 / 255.0):
    backbone = hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[width],
        stackwise_num_strides=[1],
        block_type="basic_block",
        use_pre_activation=True,
        image_shape=(size, size, 3),
    )
    return image_task("ResNet", backbone, size, scale)


def vit(width, size=16, scale=1 / 255.0):
    backbone = hub.models.ViTBackbone(
        image_shape=(size, size, 3),
        patch_size=8,
        num_layers=width,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=16,
    )
    return image_task("ViT", backbone, size, scale)


def efficientnet(width, size=16, scale=1 / 255.0):
    backbone = hub.models.EfficientNetBackbone(
        stackwise_kernel_sizes=[3],
        stackwise_num_repeats=[width],
        stackwise_input_filters=[8],
        stackwise_output_filters=[8],
        stackwise_expansion_ratios=[1],
        stackwise_squeeze_and_excite_ratios=[0.25],
        stackwise_strides=[1],
        stackwise_block_types=["unfused"],
        stackwise_force_input_filters=[0],
        stackwise_nores_option=[False],
        width_coefficient=1.0,
        depth_coefficient=1.0,
        dropout=0.0,
        num_features=16,
        input_shape=(size, size, 3),
    )
    return image_task("EfficientNet", backbone, size, scale)


def mobilenet(width, size=16, scale=1 / 255.0):
    backbone = hub.models.MobileNetBackbone(
        stackwise_expansion=[[8 * width]],
        stackwise_num_blocks=[1],
        stackwise_num_filters=[[8]],
        stackwise_kernel_size=[[3]],
        stackwise_num_strides=[[1]],
        stackwise_se_ratio=[[None]],
        stackwise_activation=[["relu"]],
        stackwise_padding=[[1]],
        output_num_filters=16,
        depthwise_filters=8,
        depthwise_stride=1,
        depthwise_residual=False,
        last_layer_filter=8,
        input_activation="relu",
        output_activation="relu",
        input_num_filters=8,
        image_shape=(size, size, 3),
    )
    return image_task("MobileNet", backbone, size, scale)


def text_task(kind, tokenizer, width, length, **arguments):
    backbone = getattr(hub.models, f"{kind}Backbone")(
        vocabulary_size=tokenizer.vocabulary_size(),
        num_layers=width,
        max_sequence_length=20,
        **SIZE,
    )
    preprocessor = getattr(hub.models, f"{kind}TextClassifierPreprocessor")
    return getattr(hub.models, f"{kind}TextClassifier")(
        backbone=backbone,
        num_classes=2,
        preprocessor=preprocessor(tokenizer, sequence_length=length),
        dropout=0.0,
        **arguments,
    )


def bert(width, length=12, words=None):
    tokenizer = hub.models.BertTokenizer(vocabulary=words or word_pieces())
    return text_task("Bert", tokenizer, width, length)


def distil_bert(width, length=12):
    tokenizer = hub.models.DistilBertTokenizer(vocabulary=word_pieces())
    return text_task("DistilBert", tokenizer, width, length, hidden_dim=8)


def roberta(width, length=12):
    parts = byte_pairs(["<s>", "<pad>", "</s>", "<mask>"])
    tokenizer = hub.models.RobertaTokenizer(**parts)
    return text_task("Roberta", tokenizer, width, length, hidden_dim=8)


def causal_task(kind, backbone, tokenizer, **arguments):
    preprocessor = getattr(hub.models, f"{kind}CausalLMPreprocessor")
    preprocessor = preprocessor(tokenizer, sequence_length=10, **arguments)
    return getattr(hub.models, f"{kind}CausalLM")(
        backbone=backbone, preprocessor=preprocessor
    )


def gpt2(width):
    tokenizer = hub.models.GPT2Tokenizer(**byte_pairs(["!", "<|endoftext|>"]))
    backbone = hub.models.GPT2Backbone(
        vocabulary_size=tokenizer.vocabulary_size(),
        num_layers=width,
        max_sequence_length=20,
        **SIZE,
    )
    return causal_task("GPT2", backbone, tokenizer)


def llama3(width):
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
    specials += ["<|start_header_id|>", "<|end_header_id|>"]
    tokenizer = hub.models.Llama3Tokenizer(**byte_pairs(specials))
    backbone = hub.models.Llama3Backbone(
        vocabulary_size=tokenizer.vocabulary_size(),
        num_layers=width,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=8,
        intermediate_dim=16,
    )
    return causal_task("Llama3", backbone, tokenizer)


def gemma3(width):
    tokenizer = hub.models.Gemma3Tokenizer(sentence_pieces(), has_vision_tokens=False)
    backbone = hub.models.Gemma3Backbone(
        vocabulary_size=tokenizer.vocabulary_size(),
        image_size=16,
        num_layers=width,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=8,
        intermediate_dim=16,
        head_dim=4,
    )
    return causal_task("Gemma3", backbone, tokenizer)


def seq2seq_task(kind, backbone, tokenizer):
    preprocessor = getattr(hub.models, f"{kind}Seq2SeqLMPreprocessor")
    preprocessor = preprocessor(
        tokenizer, encoder_sequence_length=12, decoder_sequence_length=8
    )
    return getattr(hub.models, f"{kind}Seq2SeqLM")(
        backbone=backbone, preprocessor=preprocessor
    )


def bart(width):
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = hub.models.BartTokenizer(**byte_pairs(specials))
    backbone = hub.models.BartBackbone(
        vocabulary_size=tokenizer.vocabulary_size(),
        num_layers=width,
        max_sequence_length=20,
        **SIZE,
    )
    return seq2seq_task("Bart", backbone, tokenizer)


def t5(width):
    tokenizer = hub.models.T5Tokenizer(sentence_pieces())
    backbone = hub.models.T5Backbone(
        vocabulary_size=tokenizer.vocabulary_size(), num_layers=width, **SIZE
    )
    return seq2seq_task("T5", backbone, tokenizer)


IMAGE = {
    "resnet": resnet,
    "vit": vit,
    "efficientnet": efficientnet,
    "mobilenet": mobilenet,
}
TEXT = {"bert": bert, "roberta": roberta, "distil_bert": distil_bert}
CAUSAL = {"gpt2": gpt2, "llama3": llama3, "gemma3": gemma3}
SEQ2SEQ = {"bart": bart, "t5": t5}
TASKS = {**IMAGE, **TEXT, **CAUSAL, **SEQ2SEQ}


def data_of(name):
    """Return raw inputs and labels of a task; None for labels that it makes itself."""
    if name in IMAGE:
        return IMAGES, LABELS
    if name in TEXT:
        return TEXTS, LABELS
    return (PAIRS if name in SEQ2SEQ else ASKED if name == "gemma3" else TEXTS), None


def pair(name):
    """Return a student and a teacher of a kind, the teacher twice as deep."""
    models = []
    # Once: a new seed of TensorFlow drops the resources of sentence-piece tokenizers.
    keras.utils.set_random_seed(0)
    for width in (1, 2):
        models.append(TASKS[name](width))
        for layer in flatten_layers(models[-1]):
            # So that training and inference form are the same.
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
        randomize(models[-1], width)
    return models


def randomize(model, seed):
    """Draw kernels so large that an untrained model says something else of each sample."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        if len(variable.shape) > 1:
            variable.assign(rng.normal(0.0, 0.4, variable.shape))
