"""Adapters: what each preset reaches, that everything it reaches learns, and that adapters travel."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel, get_peft_model
from transformers import AutoModelForMultimodalLM, pipeline

from mirasol_hf.training.adapters import (
    METHODS,
    PRESETS,
    adapted_modules,
    adapter_config,
    load_adapter,
    target_modules,
)
from mirasol_hf.training.collator import MirasolDataCollator
from tests.training.small_model import SMALL_CONFIG, small_model, small_rows, small_tokenizer

MACHINES = (
    {},
    {"type": "ttm"},
    {"type": "ttm", "memory_mode": "tl_mha", "processing_unit": "mixer"},
    {"type": "ttm", "memory_mode": "tl_add_erase", "processing_unit": "mlp"},
)


def _model(**combiner: Any) -> Any:
    return small_model(combiner_config={**SMALL_CONFIG["combiner_config"], **combiner})


def _batch() -> dict[str, torch.Tensor]:
    return MirasolDataCollator(small_tokenizer())(small_rows(["red", "two", "low"]))


def _linear(model: torch.nn.Module, *prefixes: str) -> set[str]:
    """Names of the linear layers below `prefixes`, found by class and not by pattern."""
    layers = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
    return {name for name in layers if name.startswith(prefixes)}


@pytest.mark.parametrize("combiner", MACHINES, ids=str)
def test_presets_name_exactly_the_linear_layers_of_their_parts(combiner: dict[str, Any]) -> None:
    model = _model(**combiner)
    parts = {
        "text": _linear(model, "model.language_model."),
        "cross_attention": {name for name in _linear(model, "model.language_model.") if ".cross_attn." in name},
        "time": _linear(model, "model.time_model."),
        "combiner": _linear(model, "model.combiner.", "model.video_projection", "model.audio_projection"),
        "all-linear": _linear(model, "model."),
    }
    assert set(parts) == set(PRESETS)
    for preset, expected in parts.items():
        assert set(adapted_modules(model, preset)) == expected and expected, preset
    both = set(adapted_modules(model, ["time", "combiner"]))
    assert both == parts["time"] | parts["combiner"]
    assert {f"model.{name}" for name in adapted_modules(model.model, "all-linear")} == parts["all-linear"]


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("combiner", MACHINES[:2], ids=str)
def test_every_lora_b_moves_under_checkpointing(preset: str, reentrant: bool, combiner: dict[str, Any]) -> None:
    model = _model(**combiner)
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    adapted = get_peft_model(model, adapter_config(preset, r=2)).train()
    adapted(**_batch()).loss.backward()
    matrices = {name: p for name, p in adapted.named_parameters() if "lora_B" in name}
    assert len(matrices) == len(adapted_modules(_model(**combiner), preset))
    still = [name for name, p in matrices.items() if p.grad is None or not p.grad.abs().max() > 0]
    assert not still


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", METHODS)
def test_methods_start_as_the_model_and_learn(preset: str, method: str) -> None:
    batch, plain = _batch(), small_model().eval()
    adapted = get_peft_model(small_model(), adapter_config(preset, method)).eval()
    with torch.no_grad():
        expected = plain(**batch).logits
        torch.testing.assert_close(adapted(**batch).logits, expected, atol=1e-5, rtol=0)
    trainable = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    kinds = {"lora": ("lora_A", "lora_B"), "dora": ("lora_magnitude",), "ia3": ("ia3_l",)}[method]
    assert all(any(kind in name for name in trainable) for kind in kinds)
    optimizer = torch.optim.Adam(trainable.values(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = adapted(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for name, value in plain.named_parameters():
        after = adapted.get_base_model().get_parameter(_inside(adapted, name))
        assert torch.equal(after, value), name


def _inside(adapted: PeftModel, name: str) -> str:
    """The name of a weight of the model in its adapted form."""
    layer, _, kind = name.rpartition(".")
    inner = f"{layer}.base_layer.{kind}"
    return inner if inner in dict(adapted.get_base_model().named_parameters()) else name


def _trained(folder: Path, preset: str = "all-linear", **options: Any) -> PeftModel:
    """An adapter that changes the logits, saved in `folder`, on a model saved in `folder/base`."""
    model = small_model()
    model.save_pretrained(folder / "base")
    adapted = get_peft_model(
        AutoModelForMultimodalLM.from_pretrained(folder / "base"), adapter_config(preset, **options)
    )
    generator = torch.Generator().manual_seed(3)
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            value.data.normal_(std=0.3, generator=generator)
    adapted.eval().save_pretrained(folder / "adapter")
    return adapted


@torch.no_grad()
@pytest.mark.parametrize("method", ["lora", "dora"])
def test_save_load_and_merge_keep_the_logits(tmp_path: Path, method: str) -> None:
    adapted, batch = _trained(tmp_path, method=method), _batch()
    expected = adapted(**batch).logits
    assert not torch.allclose(expected, small_model().eval()(**batch).logits, atol=1e-2)
    loaded = {
        "AutoPeftModelForCausalLM": AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter"),
        "AutoModelForMultimodalLM": AutoModelForMultimodalLM.from_pretrained(tmp_path / "adapter"),
        "load_adapter": load_adapter(small_model(), tmp_path / "adapter"),
    }
    for name, model in loaded.items():
        torch.testing.assert_close(model.eval()(**batch).logits, expected, atol=1e-6, rtol=0, msg=name)
    merged = loaded["AutoPeftModelForCausalLM"].merge_and_unload()
    torch.testing.assert_close(merged(**batch).logits, expected, atol=1e-4, rtol=0)
    merged.save_pretrained(tmp_path / "merged")
    again = AutoModelForMultimodalLM.from_pretrained(tmp_path / "merged")
    assert again.lm_head.weight is again.get_input_embeddings().weight
    torch.testing.assert_close(again(**batch).logits, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_several_adapters_on_one_model(tmp_path: Path) -> None:
    batch = _batch()
    first, second = _trained(tmp_path / "a", "text"), _trained(tmp_path / "b", "time", r=4)
    both = load_adapter(small_model(), tmp_path / "a" / "adapter", adapter_name="a").eval()
    load_adapter(both, tmp_path / "b" / "adapter", adapter_name="b")
    for name, alone in (("a", first), ("b", second), ("a", first)):
        both.set_adapter(name)
        torch.testing.assert_close(both(**batch).logits, alone(**batch).logits, atol=1e-6, rtol=0)
    with both.disable_adapter():
        torch.testing.assert_close(both(**batch).logits, small_model().eval()(**batch).logits, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="an adapter named 'a' already"):
        load_adapter(both, tmp_path / "a" / "adapter", adapter_name="a")


@torch.no_grad()
def test_modules_to_save_are_trained_in_full_and_stay_tied(tmp_path: Path) -> None:
    model, batch = small_model(), _batch()
    adapted = get_peft_model(model, adapter_config("cross_attention", modules_to_save=["lm_head", "loss_heads"]))
    whole = [name for name, value in adapted.named_parameters() if value.requires_grad and "lora" not in name]
    assert any("lm_head" in name or "embed_tokens" in name for name in whole)
    assert sum("loss_heads" in name for name in whole) == 6
    for value in adapted.parameters():
        if value.requires_grad:
            value.add_(0.05)
    expected = adapted.eval()(**batch).logits
    adapted.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(small_model(), tmp_path).eval()
    torch.testing.assert_close(loaded(**batch).logits, expected, atol=1e-6, rtol=0)
    merged = loaded.merge_and_unload()
    assert merged.lm_head.weight is merged.get_input_embeddings().weight
    torch.testing.assert_close(merged(**batch).logits, expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_pipeline_opens_an_adapter_folder(random_folder: Path, scene_clip: Path, tmp_path: Path) -> None:
    base = AutoModelForMultimodalLM.from_pretrained(random_folder)
    adapted = get_peft_model(base, adapter_config("all-linear"))
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            value.data.normal_(std=0.1, generator=torch.Generator().manual_seed(5))
    adapted.save_pretrained(tmp_path)
    from mirasol_hf import MirasolProcessor

    processor = MirasolProcessor.from_pretrained(random_folder)
    processor.save_pretrained(tmp_path)
    task, asked = "video-question-answering", (str(scene_clip), "What is heard?")
    found = pipeline(task, model=str(tmp_path), device="cpu")(*asked, max_new_tokens=4)
    direct = pipeline(task, model=adapted.eval(), processor=processor, device="cpu")(*asked, max_new_tokens=4)
    merged = pipeline(task, model=adapted.merge_and_unload(), processor=processor, device="cpu")
    plain = pipeline(task, model=str(random_folder), device="cpu")(*asked, max_new_tokens=4)
    for other in (direct, merged(*asked, max_new_tokens=4)):
        assert other[0]["answer"] == found[0]["answer"]
        assert other[0]["score"] == pytest.approx(found[0]["score"], rel=1e-3)
    assert plain[0]["score"] != pytest.approx(found[0]["score"], rel=1e-3)


def test_default_targets_are_those_of_the_decoder() -> None:
    from peft import LoraConfig

    adapted = get_peft_model(small_model(), LoraConfig(r=2, task_type="CAUSAL_LM"))
    names = {name.split(".lora_B")[0] for name, _ in adapted.named_parameters() if "lora_B" in name}
    assert names == {f"base_model.model.{name}" for name in adapted_modules(small_model(), "text")}


@pytest.mark.parametrize("loader", ["load_adapter", "from_pretrained", "model.load_adapter"])
def test_adapter_of_another_size_is_refused(tmp_path: Path, loader: str) -> None:
    _trained(tmp_path, "text")
    wide = small_model(text_config={**SMALL_CONFIG["text_config"], "hidden_size": 32})
    load = {
        "load_adapter": lambda: load_adapter(wide, tmp_path / "adapter"),
        "model.load_adapter": lambda: wide.load_adapter(str(tmp_path / "adapter")),
        "from_pretrained": lambda: _from_other_base(wide, tmp_path),
    }[loader]
    with pytest.raises(ValueError, match=r"made for another model: .* of this .* has (in|out)_features \d+, not \d+"):
        load()


def _from_other_base(model: Any, folder: Path) -> Any:
    """The base that the adapter names has been replaced by a model of another size."""
    model.save_pretrained(folder / "base")
    return AutoModelForMultimodalLM.from_pretrained(folder / "adapter")


def test_adapter_for_a_part_that_is_missing_is_refused(tmp_path: Path) -> None:
    _trained(tmp_path, "all-linear")
    with pytest.raises(ValueError, match=r"adapts model\.audio_projection|adapts model\.audio_tower"):
        load_adapter(small_model(audio_config=None), tmp_path / "adapter")


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown adapter preset .*vision.*expected one of text, cross_attention"):
        target_modules("vision")
    with pytest.raises(ValueError, match="unknown adapter preset"):
        adapter_config([])
    with pytest.raises(ValueError, match="unknown adapter method 'lara'; expected one of lora, dora, ia3"):
        adapter_config("text", "lara")
    with pytest.raises(ValueError, match="target_modules is given beside the preset"):
        adapter_config("text", target_modules=["q_proj"])
    with pytest.raises(FileNotFoundError, match=r"holds no adapter_model\.safetensors"):
        load_adapter(small_model(), tmp_path)
    _trained(tmp_path, "text")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors is not a whole safetensors file"):
        load_adapter(small_model(), tmp_path / "adapter")
