"""MirasolConfig: round trips, presets, and bad values refused with both sides named."""

from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError

from mirasol_hf.modeling.configuration_mirasol import MirasolConfig, MirasolTextConfig, MirasolVideoConfig
from tests.modeling.small_models import small_config


def test_round_trip_keeps_every_field(tmp_path: Any) -> None:
    config = MirasolConfig.from_preset("tiny", latent_loss_weight=0.5)
    config.save_pretrained(tmp_path)
    assert MirasolConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_a_section_loads_from_the_whole_folder(tmp_path: Any) -> None:
    MirasolConfig.from_preset("tiny").save_pretrained(tmp_path)
    assert MirasolVideoConfig.from_pretrained(tmp_path).image_size == 64
    patched = MirasolConfig.from_pretrained(tmp_path, time_config={"attention_window": 3})
    assert patched.time_config.attention_window == 3
    assert patched.time_config.hidden_size == 128


def test_audio_is_there_by_default_and_can_be_left_out(tmp_path: Any) -> None:
    assert MirasolConfig().audio_config is not None
    silent = MirasolConfig(audio_config=None)
    silent.save_pretrained(tmp_path)
    assert MirasolConfig.from_pretrained(tmp_path).audio_config is None


def test_presets_patch_sections() -> None:
    config = MirasolConfig.from_preset("base", text_config={"vocab_size": 1000})
    assert config.text_config.vocab_size == 1000
    assert config.text_config.hidden_size == 768
    with pytest.raises(ValueError, match=r"unknown preset 'huge'.*tiny"):
        MirasolConfig.from_preset("huge")


@pytest.mark.parametrize(
    ("sections", "names"),
    [
        ({"video_config": {"tube_kernels": ((5, 8, 8), (4, 4, 4))}}, ("tube_kernels", "num_frames")),
        ({"video_config": {"tube_offsets": ((0, 9, 0), (0, 0, 0))}}, ("tube_offsets", "image_size")),
        ({"video_config": {"tube_strides": ((1, 8, 8),)}}, ("tube_strides", "tube_kernels")),
        ({"video_config": {"hidden_size": 25}}, ("hidden_size", "num_attention_heads")),
        ({"text_config": {"num_key_value_heads": 3}}, ("num_attention_heads", "num_key_value_heads")),
        ({"audio_config": {"patch_size": (3, 8)}}, ("patch_size", "num_steps")),
        (
            {"combiner_config": {"output_tokens": "last", "num_output_tokens": 40}},
            ("num_output_tokens", "output_tokens", "tube_kernels"),
        ),
        ({"combiner_config": {"type": "ttm", "memory_size": 2}}, ("memory_size", "num_output_tokens")),
        ({"combiner_config": {"context": "causal", "context_chunks": 0}}, ("context_chunks", "context")),
        ({"combiner_config": {"context_chunks": 2}}, ("context_chunks", "context")),
        ({"combiner_config": {"type": "mean"}}, ("type", "transformer")),
        ({"time_config": {"attention_window": 0}}, ("attention_window", "num_output_tokens")),
        ({"time_config": {"mask_ratio": 1.0}}, ("mask_ratio",)),
        ({"latent_loss": "l1"}, ("latent_loss",)),
        ({"text_loss_weight": -1.0}, ("text_loss_weight",)),
    ],
)
def test_bad_values_name_both_fields(sections: dict[str, Any], names: tuple[str, ...]) -> None:
    # the library wraps what validate_architecture raises
    with pytest.raises(StrictDataclassClassValidationError) as error:
        small_config(**sections)
    assert all(name in str(error.value) for name in names), error.value


def test_misspelt_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="hiden_size"):
        MirasolTextConfig(hiden_size=3)
    with pytest.raises(ValueError, match="num_beems"):
        MirasolConfig.from_preset("tiny", num_beems=4)
