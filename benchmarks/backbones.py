"""Backbones of keras-hub at toy width, each built from its class: random weights, nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import keras_hub

models = keras_hub.models

_TEXT = {"vocabulary_size": 50, "num_layers": 2, "hidden_dim": 16, "intermediate_dim": 24}
_HEADS = {**_TEXT, "num_heads": 4}
_GROUPED = {**_TEXT, "num_query_heads": 4, "num_key_value_heads": 2}


def _make_efficientnet() -> keras.Model:
    return models.EfficientNetBackbone(
        stackwise_kernel_sizes=[3, 3],
        stackwise_num_repeats=[1, 2],
        stackwise_input_filters=[8, 8],
        stackwise_output_filters=[8, 16],
        stackwise_expansion_ratios=[1, 4],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
        stackwise_strides=[1, 2],
        stackwise_block_types=["v1", "v1"],
        stackwise_force_input_filters=[0, 0],
        stackwise_nores_option=[False, False],
        stackwise_width_coefficients=[1.0, 1.0],
        stackwise_depth_coefficients=[1.0, 1.0],
        num_features=24,
        input_shape=(32, 32, 3),
    )


def _make_mit() -> keras.Model:
    return models.MiTBackbone(
        image_shape=(32, 32, 3),
        num_layers=2,
        hidden_dims=[8, 16],
        layerwise_depths=[1, 1],
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1],
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        max_drop_path_rate=0.1,
    )


def _make_resnet(use_pre_activation: bool = False) -> keras.Model:
    return models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="bottleneck_block",
        use_pre_activation=use_pre_activation,
        image_shape=(32, 32, 3),
    )


BACKBONES: Mapping[str, Callable[[], keras.Model]] = {
    "BERT": lambda: models.BertBackbone(**_HEADS, max_sequence_length=12),
    "RoBERTa": lambda: models.RobertaBackbone(**_HEADS, max_sequence_length=12),
    "DistilBERT": lambda: models.DistilBertBackbone(**_HEADS, max_sequence_length=12),
    "ALBERT": lambda: models.AlbertBackbone(**_HEADS, embedding_dim=8, max_sequence_length=12),
    "DeBERTaV3": lambda: models.DebertaV3Backbone(**_HEADS, max_sequence_length=12, bucket_size=8),
    "GPT-2": lambda: models.GPT2Backbone(**_HEADS, max_sequence_length=12),
    "OPT": lambda: models.OPTBackbone(**_HEADS, max_sequence_length=12),
    "Bloom": lambda: models.BloomBackbone(**_HEADS),
    "GPT-NeoX": lambda: models.GPTNeoXBackbone(**_HEADS, rotary_percentage=0.5, max_sequence_length=12),
    "Falcon": lambda: models.FalconBackbone(**_TEXT, num_attention_heads=4),
    "Gemma": lambda: models.GemmaBackbone(**_GROUPED, head_dim=4),
    "Llama": lambda: models.LlamaBackbone(**_GROUPED),
    "Mistral": lambda: models.MistralBackbone(**_GROUPED),
    "Phi3": lambda: models.Phi3Backbone(**_GROUPED),
    "Qwen": lambda: models.QwenBackbone(**_GROUPED),
    "T5": lambda: models.T5Backbone(**_HEADS),
    "Whisper": lambda: models.WhisperBackbone(
        **_HEADS, num_mels=10, max_encoder_sequence_length=12, max_decoder_sequence_length=12
    ),
    "ViT": lambda: models.ViTBackbone(
        image_shape=(16, 16, 3), patch_size=4, num_layers=2, num_heads=4, hidden_dim=16, mlp_dim=24
    ),
    "ResNet": _make_resnet,
    "ResNetV2": lambda: _make_resnet(True),
    "EfficientNet": _make_efficientnet,
    "MiT": _make_mit,
    "SegFormer": lambda: models.SegFormerBackbone(image_encoder=_make_mit(), projection_filters=8),
}
"""By name, a function that builds the backbone."""
