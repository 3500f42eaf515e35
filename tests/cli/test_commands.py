"""The other commands, and the application as a whole."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mirasol_hf
from mirasol_hf.cli import one_line
from mirasol_hf.cli.answers import print_answers
from mirasol_hf.cli.app import app
from mirasol_hf.cli.console import shown

COMMANDS = ("ask", "probe", "info", "demo", "web", "train", "eval", "bench")


def test_help_names_every_command():
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    for command in COMMANDS:
        assert command in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_version(mirasol):
    assert mirasol("--version").out == f"mirasol_hf {mirasol_hf.__version__}\n"


def test_clips_are_not_kept_in_a_file(refused, tmp_path):
    place = tmp_path / "file"
    place.write_text("")
    assert f"--work-dir {place}" in refused("eval", "avscenes", "--work-dir", place)


def test_unknown_command(mirasol):
    assert mirasol("fly").code == 2


def test_error_text_is_one_line():
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(ValueError()) == "ValueError"


def test_probe(mirasol, scene_clip):
    as_json = mirasol("probe", scene_clip, "--json")
    found = json.loads(as_json.out)
    assert as_json.err == ""
    assert found
    as_table = mirasol("probe", scene_clip)
    assert as_table.code == 0
    assert scene_clip.name in as_table.out.replace("\n", "")


def test_tables_show_values_as_people_read_them():
    values = (24.999999999999996, 29.97002997, 0.0, None, [], ["a", 2.50000000001], 16000, "aac")
    assert [shown(value) for value in values] == ["25", "29.97", "0", "none", "none", "a; 2.5", "16000", "aac"]


def test_answers_of_no_probability_are_not_printed(capsys):
    found = [{"answer": "red", "score": 0.004}, {"answer": "blue", "score": 0.0049}, {"answer": "x", "score": 1e-9}]
    print_answers(["?"], [found])
    assert capsys.readouterr().out == "red  (0.00)\n"
    print_answers(["?"], [[{"answer": "red", "score": 0.9}, {"answer": "blue", "score": 0.06}, *found[1:]]])
    assert capsys.readouterr().out == "red  (0.90)\nblue  (0.06)\n"


def test_probe_missing_file(refused):
    assert "absent.mp4" in refused("probe", "absent.mp4", "--json")


@pytest.mark.parametrize("preset", ["tiny", "3b"])
def test_info_counts_the_parameters_of_a_preset(mirasol, preset):
    facts = json.loads(mirasol("info", "--preset", preset, "--json").out)
    assert sum(facts["parameters"].values()) == facts["total_parameters"]
    assert {"video_tower", "audio_tower", "combiner", "time_model", "language_model"} <= set(facts["parameters"])
    if preset == "3b":
        assert facts["time_aligned_share"] >= 0.6


def test_info_agrees_with_the_model(mirasol, random_folder, random_parts):
    facts = json.loads(mirasol("info", "--model", random_folder, "--json").out)
    assert facts["total_parameters"] == random_parts[0].num_parameters()
    table = mirasol("info", "--model", random_folder)
    assert f"{facts['total_parameters']:,}" in table.out


def test_info_refuses_both_and_unknown(refused, random_folder):
    assert "exclude" in refused("info", "--preset", "tiny", "--model", random_folder)
    assert "'huge'" in refused("info", "--preset", "huge")


def test_eval_unknown_benchmark_and_split(refused, random_folder):
    assert "'squad'" in refused("eval", "squad", "--model", random_folder)
    assert "'dev'" in refused("eval", "avscenes", "--split", "dev", "--model", random_folder)
    assert "0" in refused("eval", "avscenes", "--limit", "0", "--model", random_folder)


def test_eval_prints_json(mirasol, random_folder):
    result = json.loads(mirasol("eval", "avscenes", "--limit", "6", "--model", random_folder, "--json").out)
    assert result["n"] == 6
    assert len(result["families"]) == 6


def test_eval_prints_a_table(mirasol, random_folder):
    ran = mirasol("eval", "avscenes", "--limit", "2", "--model", random_folder)
    assert ran.code == 0
    rows = [line.split("│")[1:3] for line in ran.out.splitlines() if line.startswith("│")]
    assert [(name.strip(), n.strip()) for name, n in rows] == [("seen", "1"), ("heard", "1"), ("all", "2")]
    assert len(ran.out.splitlines()) < 14


def test_train_unknown_recipe(refused, tmp_path):
    assert "no-such-recipe" in refused("train", "--recipe", "no-such-recipe", "--output-dir", tmp_path)


def test_train_hands_everything_to_the_recipe_runner(mirasol, monkeypatch, tmp_path):
    from mirasol_hf.training import train

    calls = []
    monkeypatch.setattr(train, "run_recipe", lambda *arguments: calls.append(arguments))
    ran = mirasol("train", "--recipe", "avscenes-tiny", "--output-dir", tmp_path, "--resume", "seed=7", "preset=base")
    assert ran.code == 0
    assert calls == [("avscenes-tiny", tmp_path, True, ["seed=7", "preset=base"], False, False)]
    assert str(tmp_path) in ran.out
    mirasol("train", "--recipe", "some/where/own.yaml")
    assert calls[1] == ("some/where/own.yaml", Path("runs/own"), False, [], False, False)


def test_bench_refuses_unknown_names(refused):
    assert "'speed'" in refused("bench", "speed")
    assert "--repeat" in refused("bench", "import", "--repeat", "0")


def test_demo_shows_every_family_and_the_truth(mirasol):
    from mirasol_hf.data.avscenes import question_families
    from mirasol_hf.demo.showcase import sample_clip

    ran = mirasol("demo")
    assert ran.code == 0
    sample = sample_clip()
    assert {question.family for question in sample.questions} == set(question_families)
    for family in question_families:
        assert ran.out.count(family) >= 1
    assert "rendered on the spot" in ran.out
    assert ran.out.strip().splitlines()[-1].endswith("answers are right.")
    for question in sample.questions:
        assert question.answer.split()[0] in ran.out


@pytest.mark.slow
def test_bench_import_ends_in_one_json_line(mirasol):
    last = mirasol("bench", "import", "--repeat", "1").out.strip().splitlines()[-1]
    figures = json.loads(last)
    assert figures["benchmark"] == "import"
    assert {"device", "torch", "transformers", "date", "mirasol_hf_adds_s"} <= set(figures)


@pytest.mark.slow
def test_bench_answer_ends_in_one_json_line(mirasol):
    figures = json.loads(mirasol("bench", "answer", "--repeat", "1").out.strip().splitlines()[-1])
    assert figures["clip_s"] == pytest.approx(10, abs=0.2)
    assert figures["first_answer_s"] > 0
