"""Saved and loaded again: the same logits, through the Auto classes, here and in a fresh process."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMultimodalLM

from mirasol_hf.modeling.modeling_mirasol import MirasolForConditionalGeneration, MirasolModel
from tests.modeling.small_models import build

Media = Callable[..., dict[str, torch.Tensor]]


@torch.no_grad()
@pytest.mark.parametrize("auto", [AutoModelForMultimodalLM, AutoModelForCausalLM])
def test_auto_classes_give_identical_logits(
    tmp_path: Path, model: Any, media: Media, prompts: torch.Tensor, auto: Any
) -> None:
    expected = model(input_ids=prompts, **media()).logits
    model.save_pretrained(tmp_path)
    loaded, report = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(loaded, MirasolForConditionalGeneration)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(loaded(input_ids=prompts, **media()).logits, expected)


@torch.no_grad()
def test_the_base_model_loads_from_the_same_folder(
    tmp_path: Path, model: Any, media: Media, prompts: torch.Tensor
) -> None:
    model.save_pretrained(tmp_path)
    base = AutoModel.from_pretrained(tmp_path)
    assert isinstance(base, MirasolModel)
    expected = model.encode_media(**media()).media_hidden_states
    assert torch.equal(base.encode_media(**media()).media_hidden_states, expected)
    base.save_pretrained(tmp_path / "base")
    back = MirasolForConditionalGeneration.from_pretrained(tmp_path / "base")
    assert torch.equal(back.encode_media(**media()).media_hidden_states, expected)


@torch.no_grad()
def test_a_fresh_process_gives_identical_logits(
    tmp_path: Path, model: Any, media: Media, prompts: torch.Tensor
) -> None:
    torch.save({"media": media(), "prompts": prompts}, tmp_path / "inputs.pt")
    expected = model(input_ids=prompts, **media()).logits
    model.save_pretrained(tmp_path)
    code = (
        "import sys, torch, mirasol_hf; from transformers import AutoModelForMultimodalLM\n"
        "inputs = torch.load(sys.argv[1] + '/inputs.pt')\n"
        "model = AutoModelForMultimodalLM.from_pretrained(sys.argv[1])\n"
        "with torch.no_grad(): logits = model(input_ids=inputs['prompts'], **inputs['media']).logits\n"
        "torch.save(logits, sys.argv[1] + '/logits.pt')\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=120)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), expected, atol=1e-6, rtol=0)


def test_embeddings_are_tied_unless_asked_otherwise(tmp_path: Path, model: Any) -> None:
    assert model.lm_head.weight is model.get_input_embeddings().weight
    untied = build(tie_word_embeddings=False, text_config={"tie_word_embeddings": False})
    untied.save_pretrained(tmp_path)
    loaded = MirasolForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is not loaded.get_input_embeddings().weight
    assert torch.equal(loaded.lm_head.weight, untied.lm_head.weight)
