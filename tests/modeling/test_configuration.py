"""MirasolConfig: round trips, presets, and bad values refused with both sides named."""

from typing import Any

import pytest
from huggingface_hub.errors import StrictDataclassClassValidationError

from mirasol_hf.modeling.configuration_mirasol import MirasolConfig, MirasolTextConfig, MirasolVideoConfig
from mirasol_hf.modeling.modeling_mirasol import MirasolForConditionalGeneration
from tests.modeling.small_models import SMALL, small_config


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


TUBES = ("tube_kernels", "tube_strides", "tube_offsets")
BAD: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"video_config": {"tube_kernels": ((5, 8, 8), (4, 4, 4))}}, ("tube_kernels (5, 8, 8)", "num_frames=4")),
    ({"video_config": {"num_frames": 3}}, ("tube_kernels (4, 4, 4)", "num_frames=3")),
    ({"video_config": {"image_size": 7}}, ("tube_kernels (1, 8, 8)", "image_size=7")),
    ({"video_config": {"tube_offsets": ((0, 9, 0), (0, 0, 0))}}, ("tube_offsets (0, 9, 0)", "image_size=16")),
    ({"video_config": {"tube_offsets": ((0, -1, 0), (0, 0, 0))}}, ("tube_offsets (0, -1, 0)",)),
    ({"video_config": {"tube_strides": ((1, 8, 8),)}}, ("tube_strides (1)", "tube_kernels (2)")),
    ({"video_config": {"tube_strides": ((0, 8, 8), (4, 8, 8))}}, ("tube_strides (0, 8, 8)", "tube_kernels")),
    ({"video_config": {"tube_kernels": ((8, 8), (4, 4, 4))}}, ("tube_kernels", "(time, height, width)")),
    ({"video_config": {"tube_kernels": (), "tube_strides": (), "tube_offsets": ()}}, ("tube_kernels (0)",)),
    ({"video_config": dict.fromkeys(TUBES, ((1, 8),) * 100)}, ("tube_kernels", "(time, height, width)")),
    ({"video_config": {"reconstruction_size": (2,) * 200}}, ("video_config.reconstruction_size",)),
    ({"combiner_config": {"context": "x" * 500}}, ("combiner_config.context='xxx", "causal")),
    ({"video_config": {"num_frames": 0}}, ("video_config.num_frames=0",)),
    ({"video_config": {"dropout": 1.5}}, ("video_config.dropout=1.5",)),
    ({"video_config": {"reconstruction_size": (2, 0, 4)}}, ("video_config.reconstruction_size",)),
    ({"audio_config": {"patch_size": (3, 8)}}, ("patch_size=(3, 8)", "num_steps=8")),
    ({"audio_config": {"patch_size": (4, 5)}}, ("patch_size=(4, 5)", "num_mel_bins=16")),
    ({"audio_config": {"reconstruction_size": (2,)}}, ("audio_config.reconstruction_size",)),
    *(
        ({section: {"hidden_size": 25}}, (f"{section}.hidden_size=25", f"{section}.num_attention_heads=2"))
        for section in SMALL
    ),
    *(
        ({section: {"num_attention_heads": heads}}, (f"{section}.hidden_size=24", f"num_attention_heads={heads}"))
        for section in SMALL
        for heads in (0, 5)
    ),
    *(({section: {"hidden_size": 0}}, (f"{section}.hidden_size=0",)) for section in SMALL),
    *(({section: {"num_hidden_layers": 0}}, (f"{section}.num_hidden_layers=0",)) for section in SMALL),
    *(({section: {"intermediate_size": 0}}, (f"{section}.intermediate_size=0",)) for section in SMALL),
    *(({section: {"hidden_act": "gulu"}}, (f"{section}.hidden_act='gulu'", "gelu")) for section in SMALL),
    *(({section: {"initializer_range": -1.0}}, (f"{section}.initializer_range=-1.0",)) for section in SMALL),
    ({"time_config": {"layer_norm_eps": -1e-6}}, ("time_config.layer_norm_eps=-1e-06",)),
    ({"text_config": {"rms_norm_eps": float("nan")}}, ("text_config.rms_norm_eps=nan",)),
    ({"text_config": {"num_key_value_heads": 3}}, ("num_attention_heads=2", "num_key_value_heads=3")),
    ({"text_config": {"pad_token_id": 64}}, ("pad_token_id=64", "vocab_size=64")),
    ({"text_config": {"head_dim": 7}}, ("width 7", "head_dim")),
    ({"text_config": {"media_window": 0}}, ("media_window=0", "num_output_tokens")),
    ({"text_config": {"cross_attention_every": 0}}, ("cross_attention_every=0",)),
    ({"time_config": {"num_attention_heads": 8}}, ("hidden_size=24", "num_attention_heads=8", "even")),
    (
        {"combiner_config": {"context": "causal", "num_attention_heads": 8}},
        ("hidden_size=24", "num_attention_heads=8", "even"),
    ),
    ({"time_config": {"attention_window": 0}}, ("attention_window=0", "num_output_tokens")),
    ({"time_config": {"attention_window": -1}}, ("attention_window=-1", "num_output_tokens")),
    *(
        ({section: {"max_position_embeddings": 0}}, (f"{section}.max_position_embeddings=0",))
        for section in ("combiner_config", "time_config", "text_config")
    ),
    ({"time_config": {"mask_ratio": 1.0}}, ("time_config.mask_ratio=1.0",)),
    (
        {"combiner_config": {"output_tokens": "last", "num_output_tokens": 17}},
        ("num_output_tokens=17", "output_tokens='last'", "16 tokens", "tube_kernels", "patch_size"),
    ),
    (
        {"combiner_config": {"output_tokens": "last", "num_output_tokens": 13}, "audio_config": None},
        ("num_output_tokens=13", "output_tokens='last'", "12 tokens", "tube_kernels"),
    ),
    ({"combiner_config": {"num_output_tokens": 0}}, ("combiner_config.num_output_tokens=0",)),
    ({"combiner_config": {"type": "mean"}}, ("combiner_config.type='mean'", "transformer", "ttm")),
    ({"combiner_config": {"context": "future"}}, ("combiner_config.context='future'", "causal")),
    ({"combiner_config": {"output_tokens": "first"}}, ("combiner_config.output_tokens='first'", "learned")),
    ({"combiner_config": {"context": "causal", "context_chunks": 0}}, ("context_chunks=0", "context='causal'")),
    ({"combiner_config": {"context_chunks": 2}}, ("context_chunks=2", "context='causal'")),
    ({"combiner_config": {"type": "ttm", "memory_size": 2}}, ("memory_size=2", "num_output_tokens=3")),
    ({"combiner_config": {"type": "ttm", "memory_mode": "pool"}}, ("memory_mode='pool'", "tl_mha")),
    ({"combiner_config": {"type": "ttm", "processing_unit": "rnn"}}, ("processing_unit='rnn'", "mixer")),
    (
        {"combiner_config": {"type": "ttm", "memory_mode": "tl_mha", "hidden_size": 12}},
        ("hidden_size=12", "memory_mode='tl_mha'"),
    ),
    (
        {"combiner_config": {"type": "ttm", "context": "causal", "context_chunks": 2}},
        ("context_chunks=2", "type='ttm'"),
    ),
    ({"combiner_config": {"type": "ttm", "context_chunks": 2}}, ("context_chunks=2", "context=")),
    ({"latent_loss": "l1"}, ("latent_loss='l1'", "cosine")),
    *(
        ({f"{name}_loss_weight": weight}, (f"{name}_loss_weight={weight}",))
        for name in ("text", "latent", "video_reconstruction", "audio_reconstruction")
        for weight in (-1.0, float("nan"))
    ),
]


@pytest.mark.parametrize(("sections", "names"), BAD)
def test_bad_values_name_both_fields(sections: dict[str, Any], names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError) as error:
        small_config(**sections)
    assert all(name in str(error.value) for name in names), error.value
    assert len(str(error.value)) <= 300
    # what the library raises where fields of its own configurations do not fit
    assert isinstance(error.value, StrictDataclassClassValidationError)


@pytest.mark.parametrize(("sections", "names"), BAD)
def test_bad_values_set_later_are_refused_by_the_model(sections: dict[str, Any], names: tuple[str, ...]) -> None:
    config = small_config()
    for name, value in sections.items():
        target, fields = (getattr(config, name), value) if isinstance(value, dict) else (config, {name: value})
        for field, content in fields.items():
            setattr(target, field, content)
    with pytest.raises(ValueError) as error:
        MirasolForConditionalGeneration(config)
    assert all(name in str(error.value) for name in names), error.value


@pytest.mark.parametrize(("sections", "names"), BAD)
def test_bad_values_given_while_loading_are_refused(
    tmp_path: Any, sections: dict[str, Any], names: tuple[str, ...]
) -> None:
    small_config().save_pretrained(tmp_path)
    with pytest.raises(ValueError) as error:
        MirasolConfig.from_pretrained(tmp_path, **sections)
    assert all(name in str(error.value) for name in names), error.value
    for section, fields in sections.items():
        if isinstance(fields, dict) and len(sections) == 1 and fields.get("output_tokens") != "last":
            with pytest.raises(ValueError) as error:
                MirasolConfig.sub_configs[section].from_pretrained(tmp_path, **fields)
            assert all(name in str(error.value) for name in names), error.value


@pytest.mark.parametrize("size", [8.0, 4.5, True, "8", None])
@pytest.mark.parametrize("field", ["tube_kernels", "tube_strides", "tube_offsets"])
def test_tubes_are_triples_of_integers(field: str, size: Any) -> None:
    for triples in (((1, size, 8), (4, 4, 4)), (8, 4)):
        with pytest.raises(ValueError, match=rf"video_config.{field}=.*integers"):
            small_config(video_config={field: triples})


def test_misspelt_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="hiden_size"):
        MirasolTextConfig(hiden_size=3)
    with pytest.raises(ValueError, match="num_beems"):
        MirasolConfig.from_preset("tiny", num_beems=4)
