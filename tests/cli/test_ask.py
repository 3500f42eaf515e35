"""`mirasol ask`: answers, and what each kind of bad input gives."""

import io
import json
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from tests.cli.stderr_lines import own_lines

QUESTION = "What colour is the square?"


def test_answer_as_text(mirasol, random_folder, scene_clip):
    ran = mirasol("ask", scene_clip, QUESTION, "--model", random_folder)
    assert ran.code == 0
    assert ran.out.strip().endswith(")")
    assert ran.err == ""


def test_answers_as_json(mirasol, random_folder, scene_clip):
    ran = mirasol(
        *("ask", scene_clip, QUESTION, "Who is Ada?", "--context", "The circle is called Ada."),
        *("--model", random_folder, "--json", "--top-k", "2"),
    )
    found = json.loads(ran.out)
    assert found["video"] == str(scene_clip)
    assert found["context"] == "The circle is called Ada."
    assert [row["question"] for row in found["answers"]] == [QUESTION, "Who is Ada?"]
    for row in found["answers"]:
        assert isinstance(row["answer"], str)
        assert 0 <= row["score"] <= 1
        assert row["candidates"][0]["answer"] == row["answer"]


@pytest.mark.parametrize("stream", [(), ("--stream", "--chunk-seconds", "1")])
def test_embedded_model_answers_and_says_what_it_knows(mirasol, tmp_path, scene_clip, stream):
    as_json = mirasol("ask", scene_clip, "How many shapes are shown in all?", "--json", *stream)
    told = json.loads(as_json.out)
    assert told["answers"][0]["answer"] and "AVScenes" in told["trained_on"] and told["unfamiliar"] == []
    assert as_json.err == ""
    as_text = mirasol("ask", scene_clip, "How many shapes are shown in all?", *stream)
    [note] = as_text.err.splitlines()
    assert note.startswith("mirasol: note: the model was trained on AVScenes")
    soundfile.write(tmp_path / "noise.wav", np.zeros(48_000), 16_000)
    note, warning = mirasol("ask", tmp_path / "noise.wav", "What is heard?", *stream).err.splitlines()
    assert warning.startswith("mirasol: warning: ") and "noise.wav is unlike the clips of the training" in warning


def test_clip_without_sound_is_answered(mirasol, random_folder, silent_clip):
    ran = mirasol("ask", silent_clip, QUESTION, "--model", random_folder)
    assert (ran.code, bool(ran.out)) == (0, True)


def test_sound_without_pictures_is_answered(mirasol, random_folder, tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, np.sin(np.arange(32_000) * 0.2).astype("float32"), 16_000)
    ran = mirasol("ask", path, "What is heard?", "--model", random_folder)
    assert (ran.code, bool(ran.out)) == (0, True)


@pytest.fixture(scope="module")
def silent_clip(scene_clip, tmp_path_factory):
    """The pictures of a clip, without its sound."""
    from mirasol_hf.evaluation.streams import copy_stream

    path = tmp_path_factory.mktemp("silent") / "silent.mp4"
    copy_stream(scene_clip, path, "video")
    return path


def test_missing_file(refused, random_folder):
    assert "absent.mp4" in refused("ask", "absent.mp4", QUESTION, "--model", random_folder)


def test_the_standard_input_is_read_whole_too(mirasol, refused, random_folder, silent_clip, monkeypatch):
    common = ("ask", "-", QUESTION, "--model", random_folder)
    read, write = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(write, silent_clip.read_bytes()), os.close(write)))
    writer.start()
    with open(read, "rb") as pipe:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=pipe))
        ran = mirasol(*common)
    writer.join()
    assert ran.code == 0 and ran.out == mirasol("ask", silent_clip, *common[2:]).out
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"no film")))
    assert "standard input: not a readable" in refused(*common)
    monkeypatch.setattr(sys, "stdin", None)
    assert "standard input is closed" in refused(*common)


def test_directory(refused, random_folder, tmp_path):
    assert str(tmp_path) in refused("ask", tmp_path, QUESTION, "--model", random_folder)


def test_text_named_mp4(refused, random_folder, tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("Only some words.\n" * 50)
    assert "notes.mp4" in refused("ask", path, QUESTION, "--model", random_folder)


def test_empty_file(refused, random_folder, tmp_path):
    path = tmp_path / "nothing.mp4"
    path.write_bytes(b"")
    assert "nothing.mp4" in refused("ask", path, QUESTION, "--model", random_folder)


def test_truncated_mp4(mirasol, random_folder, scene_clip, tmp_path):
    """Cut off in the middle: an error that names the file, or the answer about what is left with a warning."""
    path = tmp_path / "cut.mp4"
    data = scene_clip.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    ran = mirasol("ask", path, QUESTION, "--model", random_folder)
    lines = ran.err.strip().splitlines()
    assert all("cut.mp4" in line for line in lines)
    assert lines and lines[0].startswith("mirasol: error: " if ran.code == 2 else "mirasol: warning: ")
    assert ran.code in (0, 2)


@pytest.mark.parametrize("question", ["", "  "])
def test_empty_question(refused, random_folder, scene_clip, question):
    assert "QUESTION 2 is empty" in refused("ask", scene_clip, QUESTION, question, "--model", random_folder)


def test_question_longer_than_the_decoder(refused, random_folder, scene_clip):
    line = refused("ask", scene_clip, "why " * 500, "--model", random_folder)
    assert "256 positions" in line


@pytest.mark.parametrize("top_k", ["0", "-3", "101"])
def test_top_k_out_of_range(refused, random_folder, scene_clip, top_k):
    assert "--top-k" in refused("ask", scene_clip, QUESTION, "--top-k", top_k, "--model", random_folder)


def test_model_is_no_folder(refused, scene_clip):
    assert "no-such-model" in refused("ask", scene_clip, QUESTION, "--model", "no-such-model")


def test_model_folder_is_empty(refused, scene_clip, tmp_path):
    assert "config.json" in refused("ask", scene_clip, QUESTION, "--model", tmp_path)


def test_model_of_another_type(refused, scene_clip, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert "'bert'" in refused("ask", scene_clip, QUESTION, "--model", tmp_path)


def test_model_config_is_no_json(refused, scene_clip, tmp_path):
    (tmp_path / "config.json").write_text("{")
    assert "config.json" in refused("ask", scene_clip, QUESTION, "--model", tmp_path)


def test_model_folder_without_weights(refused, scene_clip, random_folder, tmp_path):
    (tmp_path / "config.json").write_bytes((random_folder / "config.json").read_bytes())
    assert str(tmp_path) in refused("ask", scene_clip, QUESTION, "--model", tmp_path)


def test_question_is_required(mirasol, scene_clip):
    ran = mirasol("ask", scene_clip)
    assert ran.code == 2
    assert "QUESTION" in ran.err


def test_command_as_a_process_has_no_traceback(random_folder):
    command = [sys.executable, "-c", "from mirasol_hf.cli import main; main()"]
    done = subprocess.run(
        [*command, "ask", "absent.mp4", QUESTION, "--model", str(random_folder)], capture_output=True, text=True
    )
    assert done.returncode == 2
    lines = own_lines(done.stderr)
    assert len(lines) == 1 and lines[0].startswith("mirasol: error: ")


def test_a_fault_of_the_package_keeps_its_traceback(monkeypatch, random_folder, scene_clip):
    from mirasol_hf.cli import ask, main

    def fail(model):
        raise KeyError("inner")

    monkeypatch.setattr(ask, "load_pipeline", fail)
    with pytest.raises(KeyError):
        main(["ask", str(scene_clip), QUESTION, "--model", str(random_folder)])
