"""The example of the documentation: a LoRA adapter teaches the embedded model German in a few minutes."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "finetune_lora.py"


def _example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("finetune_lora", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_answer_has_its_german(random_parts: tuple[Any, Any]) -> None:
    from mirasol_hf.data.avscenes import sample_scene

    example, (_, processor) = _example(), random_parts
    answers = set()
    for index in range(60):
        text = example.german_text(sample_scene("train", index, min_seconds=4, max_seconds=32), processor)
        assert len(text["prompt"]) == len(text["answer"]) <= 12
        answers.update(text["answer"])
    assert len(answers) > 20 and not answers & set(example.GERMAN)
    assert len(set(example.GERMAN.values())) == len(example.GERMAN)


@pytest.mark.slow
def test_finetuning_raises_the_accuracy(tmp_path: Path) -> None:
    result = _example().main(["--output", str(tmp_path)])
    assert result["questions"] > 500
    assert result["accuracy_before"] < 0.05
    assert result["accuracy_after"] > 0.75
    assert (tmp_path / "adapter_model.safetensors").is_file()
