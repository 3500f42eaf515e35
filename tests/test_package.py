"""The package as a whole: names, registration, what importing costs, the README's example, the repository's files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMultimodalLM, AutoProcessor

import mirasol_hf
from mirasol_hf.registration import PIPELINE_TASK, register

ROOT = Path(__file__).resolve().parents[1]


def run_python(code, **options):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **options)


def test_every_public_name_can_be_loaded():
    for name in mirasol_hf.__all__:
        assert getattr(mirasol_hf, name) is not None
        assert name in dir(mirasol_hf)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Mirasol4'"):
        _ = mirasol_hf.Mirasol4


def test_registering_twice_changes_nothing():
    register()
    assert AutoConfig.for_model("mirasol").model_type == "mirasol"


@pytest.mark.parametrize("section", ["video", "audio", "combiner", "time", "text"])
def test_sections_are_registered(section):
    assert AutoConfig.for_model(f"mirasol_{section}").model_type == f"mirasol_{section}"


def test_auto_classes_load_the_package_classes(random_folder):
    generative = mirasol_hf.MirasolForConditionalGeneration
    assert type(AutoModel.from_pretrained(random_folder)) is mirasol_hf.MirasolModel
    assert type(AutoModelForMultimodalLM.from_pretrained(random_folder)) is generative
    assert type(AutoModelForCausalLM.from_pretrained(random_folder)) is generative
    processor = AutoProcessor.from_pretrained(random_folder)
    assert type(processor) is mirasol_hf.MirasolProcessor
    assert type(processor.video_processor) is mirasol_hf.MirasolVideoProcessor


def test_auto_tokenizer_and_parts(random_folder):
    from transformers import AutoFeatureExtractor, AutoTokenizer
    from transformers.models.auto.video_processing_auto import AutoVideoProcessor

    processor = AutoProcessor.from_pretrained(random_folder)
    tokenizer = AutoTokenizer.from_pretrained(random_folder)
    assert tokenizer("what is heard?")["input_ids"] == processor.tokenizer("what is heard?")["input_ids"]
    assert type(AutoFeatureExtractor.from_pretrained(random_folder)) is mirasol_hf.MirasolFeatureExtractor
    assert type(AutoVideoProcessor.from_pretrained(random_folder)) is mirasol_hf.MirasolVideoProcessor


def test_embedded_checkpoint_loads_everywhere():
    from transformers import AutoTokenizer

    folder = mirasol_hf.EMBEDDED_MODEL
    model, info = AutoModelForMultimodalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert AutoModel.from_pretrained(folder).num_parameters() < model.num_parameters() + 1
    assert AutoTokenizer.from_pretrained(folder).eos_token_id == model.config.text_config.eos_token_id
    assert AutoProcessor.from_pretrained(folder).tokenizer.padding_side == "left"


def test_embedded_checkpoint_is_small_and_safe():
    files = [path for path in mirasol_hf.EMBEDDED_MODEL.rglob("*") if path.is_file()]
    assert {"config.json", "model.safetensors", "tokenizer.json", "processor_config.json"} <= {p.name for p in files}
    assert sum(path.stat().st_size for path in files) <= 12_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".jinja", ".md", ".yaml"}


def test_label_smoothing_knows_the_class():
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    assert MODEL_FOR_CAUSAL_LM_MAPPING_NAMES["mirasol"] == "MirasolForConditionalGeneration"


def test_import_leaves_heavy_libraries_alone():
    heavy = ("datasets", "peft", "typer", "gradio", "matplotlib", "evaluate")
    done = run_python(f"import sys, mirasol_hf; print([name for name in {heavy} if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_pipeline_task_is_known_after_import():
    done = run_python(
        "import mirasol_hf\nfrom transformers.pipelines import get_supported_tasks\n"
        f"print({PIPELINE_TASK!r} in get_supported_tasks())"
    )
    assert done.stdout.strip() == "True", done.stderr


def readme_example():
    """The first Python example of the README and the output shown below it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    return found.group(1), found.group(2)


def test_readme_example_prints_what_the_readme_shows(tmp_path):
    code, shown = readme_example()
    assert len(code.strip().splitlines()) == 5
    done = run_python(code, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == shown.strip()


@pytest.mark.parametrize("name", ["README.md", "model_card.md"])
def test_results_are_filled_in_with_their_command(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    table = re.search(r"<!-- results:begin -->\n(.*?)<!-- results:end -->", text, re.DOTALL).group(1)
    for family in ("seen", "heard", "order", "bound", "count", "context", "compositional"):
        assert family in table
    assert "mirasol eval avscenes --split test --limit 1000 --json" in text


def test_version_stands_in_the_citation_too():
    assert f"version: {mirasol_hf.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_constraints_pin_what_setup_requires():
    """Every dependency of setup.cfg and its extras, but those of the optional web page, has one exact pin."""
    import configparser

    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = parser["options.extras_require"]
    wanted = "\n".join([parser["options"]["install_requires"], extras["plots"], extras["dev"]])
    names = {re.split(r"[<>=\[ ]", line.strip())[0].lower() for line in wanted.splitlines() if line.strip()}
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").lower().splitlines()
    pinned = {line.split("==")[0] for line in pins if "==" in line}
    assert names <= pinned
    assert "torch==2.13.0" in pins


def test_sample_questions_are_json_with_all_families():
    from mirasol_hf.data.avscenes import question_families

    stored = json.loads((ROOT / "mirasol_hf/assets/sample.json").read_text(encoding="utf-8"))
    assert {entry["family"] for entry in stored["questions"]} == set(question_families)


def test_a_clone_does_not_hide_the_package_from_scripts_beside_it(tmp_path):
    """To a script in the folder above it, a clone named mirasol_hf is a namespace, which a plain path entry beats."""
    (tmp_path / "mirasol_hf").symlink_to(ROOT, target_is_directory=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = "import importlib.util; print(importlib.util.find_spec('mirasol_hf').origin)"
    done = run_python(code, cwd=tmp_path, env=environment)
    assert done.stdout.strip().endswith("/mirasol_hf/__init__.py"), done.stdout + done.stderr
