"""What goes to the Hub: an exported folder, its card, and pushing to and loading from an endpoint."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoModelForMultimodalLM, pipeline

from mirasol_hf.cli import main
from mirasol_hf.hub.card import REQUIREMENTS, model_card, read_json
from mirasol_hf.hub.export import export
from mirasol_hf.training.provenance import weights_hash
from tests.hub.fake_hub import serve_hub

TASK = "video-question-answering"
QUESTION = "What colour is the square?"
RUN = {
    "recipe": {
        "name": "avscenes-tiny",
        "preset": "tiny",
        "seed": 7,
        "stages": [
            {"name": "clips", "steps": 10, "batch_size": 8, "questions": 16, "min_seconds": 4, "max_seconds": 64}
        ],
    },
    "hardware": "a computer",
    "seconds": 12.5,
    "steps": 10,
    "last_losses": {"loss": 1.25, "text_loss": 0.5, "step": 10},
}
SCORES = {
    "benchmark": "avscenes",
    "split": "test",
    "ablate": None,
    "exact_match": 0.87654,
    "majority_rate": 0.25,
    "n": 600,
    "families": {"seen": {"exact_match": 0.9, "majority_rate": 0.2, "n": 100}},
}

ELSEWHERE = """
import json, sys
sys.modules["mirasol_hf"] = None
from PIL import Image
from transformers import AutoModelForMultimodalLM, AutoProcessor, pipeline
name, clip, question = sys.argv[1:]
pipe = pipeline(model=name, trust_remote_code=True, device="cpu")
assert pipe([Image.new("RGB", (48, 48))] * 3, question, max_new_tokens=1)
assert len(list(pipe.processor.iter_chunks(clip, chunk_seconds=2.0, end=4.0))) == 2
names = [type(auto.from_pretrained(name, trust_remote_code=True)).__name__
         for auto in (AutoModelForMultimodalLM, AutoProcessor)]
print(json.dumps({"names": names, "found": pipe(clip, question, max_new_tokens=4)}))
"""

PUSH = """
import sys, mirasol_hf
from huggingface_hub import HfApi
from transformers import pipeline
folder, exported = sys.argv[1:]
pipe = pipeline("video-question-answering", model=folder, device="cpu")
pipe.model.push_to_hub("tester/parts", commit_message="the model")
pipe.processor.push_to_hub("tester/parts")
HfApi().create_repo("tester/whole", exist_ok=True)
HfApi().upload_folder(repo_id="tester/whole", folder_path=exported)
"""


def _write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def _python(code: str, *arguments: Any, **environment: str) -> str:
    kept = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**kept, **environment},
        cwd=environment.get("HF_HOME"),
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def exported(random_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `mirasol hub export` writes, with the files of a run."""
    place = tmp_path_factory.mktemp("export")
    own = {"weights": weights_hash(AutoModelForMultimodalLM.from_pretrained(random_folder))}
    run, scores = _write(place / "run.json", {**RUN, **own}), _write(place / "scores.json", {**SCORES, **own})
    with pytest.raises(SystemExit) as ended:
        main([
            "hub", "export", str(place / "my-mirasol"), "--model", str(random_folder),
            "--training-result", str(run), "--evaluation", str(scores), "--max-shard-size", "4MB",
        ])  # fmt: skip
    assert not ended.value.code
    return place / "my-mirasol"


def test_exported_folder_holds_everything(exported: Path) -> None:
    names = {path.name for path in exported.iterdir()}
    assert {
        "README.md", "config.json", "generation_config.json", "processor_config.json", "tokenizer.json",
        "modeling_mirasol.py", "loading_mirasol.py", "video_question_answering_mirasol.py",
        "model.safetensors.index.json",
    } <= names  # fmt: skip
    shards = [name for name in names if name.endswith(".safetensors")]
    assert len(shards) >= 3
    assert all((exported / name).stat().st_size < 5_000_000 for name in shards)
    assert not [path for path in exported.rglob("*") if ".tmp-" in path.name]


def test_exported_folder_opens_as_a_plugin(exported: Path, random_folder: Path, scene_clip: Path) -> None:
    pipe = pipeline(TASK, model=str(exported), device="cpu")
    assert type(pipe).__module__.startswith("mirasol_hf.") and type(pipe.model).__module__.startswith("mirasol_hf.")
    plain = pipeline(TASK, model=str(random_folder), device="cpu")
    found, expected = (one(str(scene_clip), QUESTION, max_new_tokens=4) for one in (pipe, plain))
    assert found[0]["answer"] == expected[0]["answer"]
    assert found[0]["score"] == pytest.approx(expected[0]["score"], rel=1e-4)


def test_saving_it_again_without_code_names_no_code(exported: Path, tmp_path: Path) -> None:
    AutoModelForMultimodalLM.from_pretrained(exported).save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    assert "auto_map" not in text and "custom_pipelines" not in text
    assert AutoConfig.from_pretrained(tmp_path).model_type == "mirasol"


def test_card_tells_the_run(exported: Path) -> None:
    text = (exported / "README.md").read_text(encoding="utf-8")
    _, header, body = text.split("---\n", 2)
    fields = yaml.safe_load(header)
    assert fields["library_name"] == "transformers" and fields["pipeline_tag"] == "video-text-to-text"
    assert fields["license"] == "apache-2.0" and fields["datasets"] == ["avscenes"]
    assert fields["metrics"] == ["exact_match"]
    (entry,) = fields["model-index"]
    assert entry["name"] == "my-mirasol"
    (result,) = entry["results"]
    assert result["dataset"]["split"] == "test" and result["metrics"][0]["value"] == 0.8765
    for words in (
        "seed 7", "10 steps in 12.5 s on a computer", "Stage `clips`: 10 steps of 8 clips", "text_loss 0.5",
        "| avscenes | test | nothing | seen | 100 | 0.9000 | 0.2000 |", "## Limits", "2311.05698",
        "trust_remote_code=True", "8 frames of 64 × 64 pixels",
    ):  # fmt: skip
        assert words in body, words


def test_results_of_other_weights_are_refused(random_folder: Path, tmp_path: Path, capsys: Any) -> None:
    pipe = pipeline(TASK, model=str(random_folder), device="cpu")
    own = weights_hash(pipe.model)
    with torch.no_grad():
        pipe.model.lm_head.weight[5, 5] += 1  # one number is learnt
    assert weights_hash(pipe.model) != own
    for kind in ("training_result", "evaluations"):
        for said, words in ((own, f"is about other weights \\({own[:8]}"), (None, "does not say of which weights")):
            path = _write(tmp_path / "file.json", {**RUN, **SCORES, "weights": said})
            with pytest.raises(ValueError, match=f"file.json {words}.*measure them anew"):
                export(pipe, tmp_path / "new", **{kind: path if kind == "training_result" else [path]})
    assert not (tmp_path / "new").exists()
    # what a run left in the folder of a model that was trained on is not for the card either
    pipe.save_pretrained(tmp_path / "tuned")
    _write(tmp_path / "tuned" / "training_result.json", {**RUN, "weights": own})
    with pytest.raises(SystemExit):
        main(["hub", "export", str(tmp_path / "new"), "--model", str(tmp_path / "tuned"), "--no-code"])
    assert "is about other weights; not on the card" in capsys.readouterr().err
    assert "## Training" not in (tmp_path / "new" / "README.md").read_text(encoding="utf-8")


def test_hash_is_of_the_weights_that_answer(random_folder: Path, exported: Path, random_parts: Any) -> None:
    hashes = {weights_hash(AutoModelForMultimodalLM.from_pretrained(place)) for place in (random_folder, exported)}
    assert hashes == {weights_hash(random_parts[0])}


def test_card_names_what_the_code_imports(exported: Path) -> None:
    """All but what the named packages need themselves: pip installs that with them."""
    import ast
    from importlib.metadata import packages_distributions, requires

    from packaging.requirements import Requirement

    named = [Requirement(text) for text in REQUIREMENTS]
    brought = [Requirement(text) for one in named for text in requires(one.name) or ()]
    installed = {one.name.lower().replace("_", "-") for one in named + brought if "extra ==" not in str(one.marker)}
    text = (exported / "README.md").read_text(encoding="utf-8")
    assert all(f"'{requirement}'" in text for requirement in REQUIREMENTS)
    imported = set()
    for path in exported.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            imported |= {name.partition(".")[0] for name in names} - sys.stdlib_module_names
    assert {"torch", "transformers", "av", "PIL"} <= imported
    distributions = packages_distributions()
    for name in imported:
        assert installed & {one.lower().replace("_", "-") for one in distributions[name]}, name


def test_card_asks_for_the_versions_of_the_package() -> None:
    import configparser

    parser = configparser.ConfigParser()
    parser.read(Path(__file__).resolve().parents[2] / "setup.cfg", encoding="utf-8")
    assert set(REQUIREMENTS) <= set(parser["options"]["install_requires"].split())


def test_a_folder_that_holds_something_is_not_overwritten_unasked(random_parts: Any, tmp_path: Path) -> None:
    pipe = pipeline(TASK, model=random_parts[0], processor=random_parts[1], device="cpu")
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine too")
    with pytest.raises(ValueError, match="is not empty; export into another folder, or overwrite it"):
        export(pipe, tmp_path, with_code=False)
    assert (tmp_path / "README.md").read_text() == "mine"
    export(pipe, tmp_path, with_code=False, overwrite=True)
    assert (tmp_path / "README.md").read_text() != "mine" and (tmp_path / "notes.txt").read_text() == "mine too"


def test_card_without_a_run_claims_nothing(random_parts: Any) -> None:
    text = str(model_card(random_parts[0], "plain", with_code=False))
    fields = yaml.safe_load(text.split("---\n")[1])
    assert not {"model-index", "metrics", "datasets"} & set(fields)
    assert "## Scores" not in text and "## Training" not in text and "trust_remote_code" not in text
    ablated = model_card(random_parts[0], "plain", evaluations=[{**SCORES, "ablate": "sound"}])
    assert "model-index" not in yaml.safe_load(str(ablated).split("---\n")[1])
    assert "| avscenes | test | sound | all | 600 | 0.8765 |" in str(ablated)


def test_bad_input_is_told_and_leaves_nothing(random_parts: Any, tmp_path: Path, monkeypatch: Any) -> None:
    model, processor = random_parts
    pipe = pipeline(TASK, model=model, processor=processor, device="cpu")
    (tmp_path / "taken").write_text("")
    with pytest.raises(ValueError, match=r"taken': it is a file, expected a folder"):
        export(pipe, tmp_path / "taken")
    with pytest.raises(ValueError, match=r"taken is not JSON"):
        export(pipe, tmp_path / "new", training_result=tmp_path / "taken")
    with pytest.raises(ValueError, match=r"other.json has no entry 'exact_match'"):
        read_json(_write(tmp_path / "other.json", {"a": 1}), "exact_match")

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(type(processor), "save_pretrained", full)
    with pytest.raises(OSError, match="no space left"):
        export(pipe, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.json", "taken"]
    assert not hasattr(model.config, "auto_map")


@pytest.mark.slow
def test_push_and_load_through_an_endpoint(
    random_folder: Path, exported: Path, scene_clip: Path, tmp_path: Path
) -> None:
    plain = pipeline(TASK, model=str(random_folder), device="cpu")
    expected = plain(str(scene_clip), QUESTION, max_new_tokens=4)[0]
    with serve_hub() as hub:
        network = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_XET": "1"}
        network |= {"HF_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
        _python(PUSH, random_folder, exported, **network)
        parts, whole = hub.repositories["tester/parts"], hub.repositories["tester/whole"]
        assert parts["model.safetensors"] == (random_folder / "model.safetensors").read_bytes()
        assert {"config.json", "processor_config.json", "tokenizer.json"} <= set(parts)
        assert ("tester/parts", "the model") in hub.commits
        assert set(whole) == {path.name for path in exported.iterdir()}
        found = json.loads(_python(ELSEWHERE, "tester/whole", scene_clip, QUESTION, **network).splitlines()[-1])
    assert found["names"] == ["MirasolForConditionalGeneration", "MirasolProcessor"]
    assert found["found"][0]["answer"] == expected["answer"]
    assert found["found"][0]["score"] == pytest.approx(expected["score"], rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["export", "register_for_auto_class"])
def test_folder_runs_where_the_package_is_absent(
    random_folder: Path, exported: Path, scene_clip: Path, tmp_path: Path, way: str
) -> None:
    expected = pipeline(TASK, model=str(random_folder), device="cpu")(str(scene_clip), QUESTION, max_new_tokens=4)[0]
    folder, code = exported, ELSEWHERE
    if way == "register_for_auto_class":
        folder, code = tmp_path / "registered", ELSEWHERE_PARTS
        _python(REGISTER, random_folder, folder, PYTHONPATH=os.pathsep.join(sys.path))
    modules = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    found = json.loads(_python(code, folder, scene_clip, QUESTION, **modules).splitlines()[-1])
    assert found["names"] == ["MirasolForConditionalGeneration", "MirasolProcessor"]
    assert found["found"][0]["answer"] == expected["answer"]


# Transformers' own way to save code, without any help of this package but the class names.
REGISTER = """
import sys, mirasol_hf
from mirasol_hf import MirasolConfig, MirasolForConditionalGeneration, MirasolProcessor
from mirasol_hf import MirasolFeatureExtractor, MirasolVideoProcessor
MirasolConfig.register_for_auto_class()
MirasolForConditionalGeneration.register_for_auto_class("AutoModelForMultimodalLM")
MirasolProcessor.register_for_auto_class()
MirasolVideoProcessor.register_for_auto_class()
MirasolFeatureExtractor.register_for_auto_class()
source, folder = sys.argv[1:]
MirasolForConditionalGeneration.from_pretrained(source).save_pretrained(folder)
MirasolProcessor.from_pretrained(source).save_pretrained(folder)
"""

ELSEWHERE_PARTS = """
import json, sys
sys.modules["mirasol_hf"] = None
from transformers import AutoModelForMultimodalLM, AutoProcessor
folder, clip, question = sys.argv[1:]
model = AutoModelForMultimodalLM.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
inputs = processor(text=processor.build_prompt(question), videos=clip, return_tensors="pt")
tokens = model.generate(**inputs, max_new_tokens=4)[:, inputs["input_ids"].shape[1]:]
answer = processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
names = [type(model).__name__, type(processor).__name__]
print(json.dumps({"names": names, "found": [{"answer": answer}]}))
"""
