"""Checkpoints that do not fit are refused in one error, and saving leaves nothing half-written."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForMultimodalLM

from mirasol_hf.modeling.configuration_mirasol import MirasolConfig, MirasolTextConfig, MirasolVideoConfig
from mirasol_hf.modeling.modeling_mirasol import MirasolForConditionalGeneration, MirasolModel
from tests.modeling.small_models import build, small_config

WEIGHTS = "model.safetensors"


def _changed(folder: Path, change: Any) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def test_missing_weights_are_an_error(tmp_path: Path) -> None:
    build().save_pretrained(tmp_path)
    _changed(tmp_path, lambda tensors: tensors.pop("model.video_projection.weight"))
    with pytest.raises(ValueError, match=rf"{tmp_path}.*Conditional.*lacks model\.video_projection\.weight"):
        AutoModelForMultimodalLM.from_pretrained(tmp_path)
    _, report = AutoModelForMultimodalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert set(report["missing_keys"]) == {"model.video_projection.weight"}


def test_unexpected_weights_are_an_error(tmp_path: Path) -> None:
    build().save_pretrained(tmp_path)
    _changed(tmp_path, lambda tensors: tensors.update({f"model.vido_{i}": torch.zeros(1) for i in range(7)}))
    with pytest.raises(ValueError, match=r"unknown to the model, model\.vido_0, .* and 5 more"):
        AutoModelForMultimodalLM.from_pretrained(tmp_path)


def test_weights_of_another_size_are_an_error(tmp_path: Path) -> None:
    build().save_pretrained(tmp_path)
    small_config(text_config={"intermediate_size": 32}).save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=r"model\.safetensors: .*mlp.* has shape \(.*48.*\), but .* it has \(.*32.*\)"
    ):
        AutoModelForMultimodalLM.from_pretrained(tmp_path)


def test_a_part_that_the_configuration_leaves_out_is_told(tmp_path: Path) -> None:
    build().save_pretrained(tmp_path)
    small_config(audio_config=None).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds, unknown to the model, model\.audio_projection\.bias"):
        AutoModelForMultimodalLM.from_pretrained(tmp_path)


def test_loss_heads_may_come_and_go(tmp_path: Path) -> None:
    build(latent_loss_weight=0.0).save_pretrained(tmp_path)
    model = MirasolForConditionalGeneration.from_pretrained(tmp_path, latent_loss_weight=1.0)
    assert model.loss_heads.latent_head is not None
    assert model.loss_heads.latent_head.weight.std() > 0
    build().save_pretrained(tmp_path)
    MirasolForConditionalGeneration.from_pretrained(tmp_path, latent_loss_weight=0.0)


def test_masking_may_begin_and_end(tmp_path: Path) -> None:
    build().save_pretrained(tmp_path)
    model = MirasolForConditionalGeneration.from_pretrained(tmp_path, time_config={"mask_ratio": 0.3})
    assert model.model.time_model.embeddings.mask_token.std() > 0
    model.save_pretrained(tmp_path)
    for loads in (MirasolForConditionalGeneration, MirasolModel):
        loads.from_pretrained(tmp_path, time_config={"mask_ratio": 0.0})
    MirasolModel.from_pretrained(tmp_path)


def test_base_and_head_load_each_other_untied(tmp_path: Path) -> None:
    build(tie_word_embeddings=False, text_config={"tie_word_embeddings": False}).save_pretrained(tmp_path)
    assert isinstance(MirasolModel.from_pretrained(tmp_path), MirasolModel)


@pytest.mark.parametrize("keep", [0, 4, 200, -64])
def test_damaged_file_is_named(tmp_path: Path, keep: int) -> None:
    build().save_pretrained(tmp_path, max_shard_size="40KB")
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"{shard.name} is not a whole safetensors file"):
        AutoModelForMultimodalLM.from_pretrained(tmp_path)


def test_broken_off_save_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    first = build()
    first.save_pretrained(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    changed = build(text_config={"rms_norm_eps": 1e-3})
    torch.nn.init.zeros_(changed.model.video_projection.weight)

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("transformers.modeling_utils.safe_save_file", full)
        with pytest.raises(OSError, match="no space left"):
            changed.save_pretrained(folder)
        with pytest.raises(OSError, match="no space left"):
            changed.save_pretrained(tmp_path / "new")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@torch.no_grad()
def test_sharded_and_whole_saves_replace_each_other(tmp_path: Path, prompts: torch.Tensor) -> None:
    model = build()
    expected = model(input_ids=prompts).logits
    (tmp_path / "notes.txt").write_text("mine")
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 2
    assert torch.equal(AutoModelForMultimodalLM.from_pretrained(tmp_path)(input_ids=prompts).logits, expected)
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json", "generation_config.json", WEIGHTS, "notes.txt",
    ]  # fmt: skip
    assert torch.equal(AutoModelForMultimodalLM.from_pretrained(tmp_path)(input_ids=prompts).logits, expected)
    model.save_pretrained(tmp_path, max_shard_size="40KB")
    assert not (tmp_path / WEIGHTS).exists()


def test_saving_into_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(ValueError, match="taken' is a file, expected a folder"):
        build().save_pretrained(tmp_path / "taken")


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_loading_in_another_dtype(tmp_path: Path, prompts: torch.Tensor, media: Any, dtype: torch.dtype) -> None:
    model = build()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForMultimodalLM.from_pretrained(tmp_path, dtype=dtype)
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    given = {name: v.to(dtype) if v.is_floating_point() else v for name, v in media().items()}
    logits = loaded(input_ids=prompts, **given).logits.float()
    expected = model(input_ids=prompts, **media()).logits
    assert (logits - expected).norm() / expected.norm() < 0.05


def test_the_embedded_size_and_3b_are_built_on_meta() -> None:
    for preset in ("tiny", "3b"):
        with torch.device("meta"):
            model = MirasolForConditionalGeneration(MirasolConfig.from_preset(preset))
        assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}


@torch.no_grad()
@pytest.mark.parametrize("device_map", ["cpu", "auto", "offload"])
def test_device_map_and_offload_keep_the_logits(
    tmp_path: Path, prompts: torch.Tensor, media: Any, device_map: str
) -> None:
    model = build()
    model.save_pretrained(tmp_path)
    chosen: Any = device_map
    if device_map == "offload":
        parts = [f"model.{name}" for name, _ in model.model.named_children()] + ["lm_head", "loss_heads"]
        chosen = {name: "disk" if "tower" in name or "time" in name else "cpu" for name in parts}
    loaded = AutoModelForMultimodalLM.from_pretrained(tmp_path, device_map=chosen, offload_folder=tmp_path / "off")
    expected = model(input_ids=prompts, **media()).logits
    torch.testing.assert_close(loaded(input_ids=prompts, **media()).logits, expected, atol=1e-6, rtol=0)
    if device_map == "offload":
        assert {p.device.type for p in loaded.model.time_model.parameters()} == {"meta"}


@pytest.mark.parametrize("section", sorted(MirasolConfig.sub_configs_defaults))
def test_each_section_loads_from_the_whole_folder(tmp_path: Path, section: str) -> None:
    config = small_config()
    config.save_pretrained(tmp_path / "whole")
    part = getattr(config, section)
    again = type(part).from_pretrained(tmp_path / "whole")
    part.save_pretrained(tmp_path / "part")
    alone = AutoConfig.from_pretrained(tmp_path / "part")
    assert type(again) is type(alone) is type(part)
    skipped = ("transformers_version", "dtype", "architectures", "_name_or_path")
    plain = [json.loads(json.dumps(one.to_dict(), default=str)) for one in (part, again, alone)]  # tuples are lists
    for one in plain:
        for key in skipped:
            one.pop(key, None)
    assert plain[0] == plain[1] == plain[2]


def test_misspelt_fields_are_told() -> None:
    with pytest.raises(ValueError, match="MirasolConfig has no field 'vidio_config'"):
        MirasolConfig(vidio_config={})
    with pytest.raises(ValueError, match="MirasolTextConfig has no field 'num_layer'"):
        MirasolConfig(text_config={"num_layer": 3})
    with pytest.raises(ValueError, match="MirasolTextConfig has no field 'hiden_size'"):
        MirasolTextConfig(hiden_size=3)
    with pytest.raises(ValueError, match="has no field 'laten_loss'"):
        MirasolConfig.from_preset("tiny", laten_loss="mse")


@pytest.mark.parametrize("loader", [MirasolConfig, AutoConfig])
def test_misspelt_fields_are_told_in_loading(tmp_path: Path, loader: type) -> None:
    MirasolConfig.from_preset("tiny").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"MirasolConfig has no field 'laten_loss' \(did you mean 'latent_loss'\?\)"):
        loader.from_pretrained(tmp_path, laten_loss="mse")
    given = loader.from_pretrained(tmp_path, latent_loss="mse", cache_dir=tmp_path, trust_remote_code=False)
    assert given.latent_loss == "mse"
    _, unused = loader.from_pretrained(tmp_path, laten_loss="mse", return_unused_kwargs=True)
    assert unused["laten_loss"] == "mse"


def test_fields_of_dicts_are_told_and_foreign_ones_left_to_auto_classes(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"MirasolVideoConfig has no field 'image_siz' \(did you mean 'image_size'\?\)"
    ):
        MirasolVideoConfig.from_dict({}, image_siz=32)
    MirasolConfig.from_preset("tiny").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="MirasolConfig has no field 'latitude'"):
        MirasolConfig.from_pretrained(tmp_path, latitude=3)
    # the library's Auto classes of tokenizers and processors open configurations with their own options
    AutoConfig.from_pretrained(tmp_path, padding_side="right", num_frames=3)


def test_misspelt_loading_options_are_told(tmp_path: Path) -> None:
    build().save_pretrained(tmp_path)
    with pytest.raises((TypeError, ValueError), match="laten_loss"):
        AutoModelForMultimodalLM.from_pretrained(tmp_path, laten_loss="mse")
