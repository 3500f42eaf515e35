"""Adapter folders as `--model`: every command takes them as the pipeline does."""

import json
import math

import pytest
from peft import get_peft_model
from transformers import AutoModelForMultimodalLM, pipeline

from mirasol_hf.training.adapters import adapter_config

QUESTION = "What is heard?"


@pytest.fixture(scope="module")
def adapter(random_folder, tmp_path_factory):
    """An adapter alone, without a processor, that changes the answers' probabilities."""
    adapted = get_peft_model(AutoModelForMultimodalLM.from_pretrained(random_folder), adapter_config("all-linear"))
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            value.data.normal_(std=0.1)
    folder = tmp_path_factory.mktemp("adapter")
    adapted.save_pretrained(folder)
    return folder


def log_score(mirasol, clip, model):
    ran = mirasol("ask", clip, QUESTION, "--model", model, "--json")
    assert ran.code == 0, ran.err
    return math.log(json.loads(ran.out)["answers"][0]["score"])


def test_ask_and_export(mirasol, adapter, random_folder, random_parts, scene_clip, tmp_path):
    model = AutoModelForMultimodalLM.from_pretrained(adapter)  # the library's way, not merged
    direct = pipeline("video-question-answering", model=model, processor=random_parts[1], device="cpu")
    expected = pytest.approx(math.log(direct(str(scene_clip), QUESTION)[0]["score"]), abs=1e-2)
    assert log_score(mirasol, scene_clip, adapter) == expected
    assert log_score(mirasol, scene_clip, random_folder) != expected
    assert mirasol("hub", "export", tmp_path / "whole", "--model", adapter, "--no-code").code == 0
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert "model.safetensors" in names and not any("adapter" in name for name in names)
    assert log_score(mirasol, scene_clip, tmp_path / "whole") == expected


def test_info_counts_the_model_and_the_adapter(mirasol, adapter, random_folder):
    facts = [json.loads(mirasol("info", "--model", folder, "--json").out) for folder in (adapter, random_folder)]
    in_adapter = facts[0].pop("adapter_parameters")
    assert facts[0] == facts[1]
    assert 0 < in_adapter < facts[0]["total_parameters"]
    assert f"{in_adapter:,}" in mirasol("info", "--model", adapter).out


def test_eval(mirasol, adapter):
    assert json.loads(mirasol("eval", "avscenes", "--limit", "1", "--model", adapter, "--json").out)["n"] == 1


@pytest.mark.parametrize(
    ("base", "words"),
    [("gone/away/model", "was made for 'gone/away/model'"), (None, "base_model_name_or_path is None")],
)
def test_adapter_whose_model_is_not_there(refused, adapter, scene_clip, tmp_path, base, words):
    config = json.loads((adapter / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": base}))
    assert words in refused("ask", scene_clip, QUESTION, "--model", tmp_path)
    assert words in refused("info", "--model", tmp_path)


def test_adapter_without_weights(refused, adapter, scene_clip, tmp_path):
    (tmp_path / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    assert "adapter_model.safetensors" in refused("ask", scene_clip, QUESTION, "--model", tmp_path)
