"""`mirasol bench scaling`: what is counted is what a hand count gives, and the command tells it."""

import json
import subprocess
import sys
from typing import Any

import pytest

from mirasol_hf.cli import scaling as scaling_module
from mirasol_hf.cli import scaling_models, scaling_worker
from mirasol_hf.cli.scaling import (
    Scaling,
    describe_ragged,
    measure_ragged,
    measure_ratios,
    measure_row,
    measure_rows,
    measure_savings,
)
from mirasol_hf.cli.scaling_models import build_encoder, count_flops, count_parameters, encoder_config
from tests.modeling.small_models import small_config

# the small model of tests/modeling: 2·2·1 + 2·2·1 tubes and patches of video, 2·2 patches of audio per chunk
VIDEO_TOKENS, AUDIO_TOKENS, OUTPUTS = 2 * 2 * 2 + 1 * 2 * 2, 2 * 2, 3
WIDTH, HIDDEN = 24, 48
FRAMES_PER_CHUNK = 4


def linear(tokens: int, inputs: int, outputs: int) -> int:
    return 2 * tokens * inputs * outputs


def block(tokens: int, asking: int | None = None) -> int:
    """A pre-norm block: keys and values of all tokens; the rest, for the tokens whose outputs are read."""
    asking = tokens if asking is None else asking
    projections = linear(2 * tokens, WIDTH, WIDTH) + linear(2 * asking, WIDTH, WIDTH)
    attention = 2 * (2 * asking * tokens * WIDTH)
    return projections + attention + linear(asking, WIDTH, HIDDEN) + linear(asking, HIDDEN, WIDTH)


def towers(chunks: int) -> dict[str, int]:
    tubes = linear(8, 3 * 1 * 8 * 8, WIDTH) + linear(4, 3 * 4 * 4 * 4, WIDTH)
    video = tubes + 2 * block(VIDEO_TOKENS) + linear(VIDEO_TOKENS, WIDTH, WIDTH)
    audio = linear(AUDIO_TOKENS, 4 * 8, WIDTH) + block(AUDIO_TOKENS) + linear(AUDIO_TOKENS, WIDTH, WIDTH)
    return {"video_tower": chunks * video, "audio_tower": chunks * audio}


def time_model(chunks: int) -> int:
    return linear(chunks * OUTPUTS, WIDTH, WIDTH) + 2 * block(chunks * OUTPUTS)


def counted(name: str, chunks: int, streamed: bool = False, **sections: Any) -> dict[str, int]:
    config = small_config(**sections)
    flops = count_flops(build_encoder(name, config), config, chunks, streamed)
    assert flops.pop("other") == 0
    return flops


@pytest.mark.parametrize("chunks", [1, 5])
def test_flops_agree_with_a_hand_count(chunks: int) -> None:
    media = VIDEO_TOKENS + AUDIO_TOKENS
    per_chunk = media + OUTPUTS
    assert counted("chunk", chunks) == {
        **towers(chunks),
        "combiner": chunks * (block(per_chunk) + block(per_chunk, asking=OUTPUTS)),
        "time_model": time_model(chunks),
    }
    assert counted("causal", chunks, combiner_config={"context": "causal"}) == {
        **towers(chunks),
        "combiner": 2 * block(chunks * per_chunk),
        "time_model": time_model(chunks),
    }
    assert counted("plain", chunks) == {**towers(chunks), "joint_transformer": 4 * block(chunks * media)}


def test_a_stream_counts_only_what_its_window_sees() -> None:
    def call(seen: int) -> int:
        extra_scores = 2 * (2 * OUTPUTS * (seen - 1) * OUTPUTS * WIDTH)
        return linear(OUTPUTS, WIDTH, WIDTH) + 2 * (block(OUTPUTS) + extra_scores)

    windowed = counted("chunk", 6, streamed=True, time_config={"attention_window": 2})
    assert windowed["time_model"] == call(1) + 5 * call(2)
    assert {part: windowed[part] for part in towers(6)} == towers(6)
    unbounded = counted("chunk", 6, streamed=True)
    assert unbounded["time_model"] == sum(call(seen) for seen in range(1, 7))


@pytest.mark.parametrize("preset", ["tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in ("base", "3b"))])
def test_combiners_are_linear_and_the_plain_baseline_is_not(preset: str) -> None:
    scaling = Scaling(preset, frames=(32, 512), streamed=(), flops_only=True, encoders=("chunk", "ttm", "plain"))
    ratios = {ratio["encoder"]: ratio for ratio in measure_ratios(list(measure_rows(scaling)))}
    for name in ("chunk", "ttm"):
        assert ratios[name]["flops"] == pytest.approx(16, rel=0.05)
    assert ratios["plain"]["flops"] > 2 * 16
    assert all(ratio["same_parameters"] for ratio in ratios.values())


@pytest.mark.slow
def test_memory_spares_at_least_18_percent_at_3b() -> None:
    # whole clips as they are computed; streamed within the window, where no attention is masked
    scaling = Scaling("3b", (128,), (128,), flops_only=True, encoders=("causal", "ttm"))
    savings = list(measure_savings(list(measure_rows(scaling))))
    assert [saving["streamed"] for saving in savings] == [False, True]
    assert all(saving["spared_against_causal"] >= 0.18 for saving in savings)


@pytest.mark.parametrize("name", scaling_models.COMBINERS)
def test_a_ragged_batch_costs_the_chunks_that_exist(monkeypatch, name: str) -> None:
    monkeypatch.setattr(scaling_worker, "_RAGGED_REPEATS", 1)
    flops = scaling_worker.measure_ragged("tiny", name, [1, 7, 16], "float32")["flops"]
    assert flops["batch"] == pytest.approx(flops["singles"], rel=0.15)
    assert flops["rectangle"] > 1.9 * flops["singles"]


def test_flops_of_real_clips_are_those_counted_without_weights() -> None:
    flops = scaling_worker.measure_ragged("tiny", "causal", [1, 2], "float32")["flops"]
    config = encoder_config("tiny", "causal")
    encoder = build_encoder("causal", config)
    one, two = (sum(count_flops(encoder, config, chunks).values()) for chunks in (1, 2))
    assert (flops["singles"], flops["rectangle"]) == (one + two, pytest.approx(2 * two, rel=1e-3))


def test_parameters_agree_with_info(mirasol) -> None:
    facts = json.loads(mirasol("info", "--preset", "base", "--json").out)["parameters"]
    parts = count_parameters(build_encoder("chunk", encoder_config("base", "chunk")))
    for tower in ("video", "audio"):
        facts[f"{tower}_tower"] += facts[f"{tower}_projection"]
    projected = {part: facts[part] for part in parts}
    assert parts == projected


def test_command_ends_with_one_json_line(mirasol, tmp_path) -> None:
    plot = tmp_path / "scaling.png"
    lengths = ("--frames", "16,8", "--streamed", "16", "--encoders", "chunk,plain")
    ran = mirasol("bench", "scaling", "--flops-only", *lengths, "--plot", plot)
    assert (ran.code, ran.err) == (0, "")
    *table, last = ran.out.splitlines()
    result = json.loads(last)
    assert not any(line.startswith("{") for line in table)
    assert [(row["encoder"], row["frames"], row["streamed"]) for row in result["rows"]] == [
        ("chunk", 8, False),
        ("chunk", 16, False),
        ("plain", 8, False),
        ("plain", 16, False),
        ("chunk", 16, True),
    ]
    assert {"preset", "ratios", "device", "torch", "transformers", "date"} <= set(result)
    assert all("seconds" not in row for row in result["rows"])
    assert result["ragged"] == []
    assert "chunk: FLOPs x" in ran.out
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_plot_is_drawn_unless_it_cannot_or_shall_not(mirasol, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    command = ("bench", "scaling", "--flops-only", "--frames", "8,16", "--streamed", "", "--encoders", "plain")
    assert "plot: " not in mirasol(*command, "--no-plot").out
    assert list(tmp_path.iterdir()) == []
    assert "\nplot: scaling-tiny.png\n" in mirasol(*command).out
    assert (tmp_path / "scaling-tiny.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "mirasol_hf[plots]" in mirasol(*command).out


def test_what_cannot_be_built_is_a_row_that_says_so(mirasol, monkeypatch) -> None:
    def refuse(config: Any) -> None:
        raise ValueError("m is larger than the tokens")

    monkeypatch.setattr(scaling_models, "MediaEncoder", refuse)
    ran = mirasol(
        "bench", "scaling", "--flops-only", "--frames", "32", "--streamed", "", "--encoders", "ttm,plain", "--no-plot"
    )
    rows = {row["encoder"]: row for row in json.loads(ran.out.splitlines()[-1])["rows"]}
    assert rows["ttm"]["unavailable"] == "m is larger than the tokens"
    assert rows["plain"]["total_flops"] > 0
    assert "not available: m is larger than the tokens" in ran.out


@pytest.mark.parametrize("streamed", [False, True])
def test_worker_measures_time_and_memory(streamed: bool) -> None:
    measured = scaling_worker.measure("tiny", "chunk", 64, streamed, 4 if streamed else None, "float32")
    assert measured["seconds"] > 0
    assert measured["peak_mib"] >= measured["loaded_mib"] > 0
    assert ("last_quarter_frames_per_second" in measured) == streamed


@pytest.mark.slow
def test_command_times_in_fresh_processes(mirasol) -> None:
    ran = mirasol("bench", "scaling", "--frames", "32", "--streamed", "64", "--ragged", "1,2", "--no-plot")
    result = json.loads(ran.out.splitlines()[-1])
    assert all(row["seconds"] > 0 and row["peak_mib"] > 0 for row in result["rows"])
    assert all(row["batch_seconds_against_singles"] > 0 for row in result["ragged"])
    assert "ttm, one batch of 1, 2 chunks: flops x" in ran.out


@pytest.mark.parametrize(
    ("code", "stderr", "row"),
    [(-9, "", {"failed": "out of memory"}), (1, "torch: out of memory", {"failed": "out of memory"})],
)
def test_a_process_that_runs_out_of_memory_is_a_row(monkeypatch, code: int, stderr: str, row: dict[str, str]) -> None:
    ended = subprocess.CompletedProcess([], code, "", stderr)
    monkeypatch.setattr(scaling_module.subprocess, "run", lambda *arguments, **options: ended)
    measured = measure_row(Scaling("tiny"), "plain", 32, streamed=False)
    assert row.items() <= measured.items()
    ragged = next(measure_ragged(Scaling("tiny")))
    assert row.items() <= ragged.items()
    assert "out of memory" in describe_ragged(ragged)


def test_a_process_that_fails_is_an_error(monkeypatch) -> None:
    ended = subprocess.CompletedProcess([], 1, "", "a fault")
    monkeypatch.setattr(scaling_module.subprocess, "run", lambda *arguments, **options: ended)
    with pytest.raises(RuntimeError, match="a fault"):
        measure_row(Scaling("tiny"), "plain", 32, streamed=False)


def test_bad_options_are_refused(refused, monkeypatch, tmp_path) -> None:
    assert "'huge'" in refused("bench", "scaling", "--preset", "huge")
    assert "multiple of the 8 frames" in refused("bench", "scaling", "--frames", "30")
    assert "--streamed 4" in refused("bench", "scaling", "--streamed", "4")
    assert "'many'" in refused("bench", "scaling", "--frames", "many")
    assert "--window 0" in refused("bench", "scaling", "--window", "0")
    assert "'int8'" in refused("bench", "scaling", "--dtype", "int8")
    assert "nothing to measure" in refused("bench", "scaling", "--frames", "", "--streamed", "", "--ragged", "")
    assert "nothing to measure" in refused("bench", "scaling", "--encoders", "")
    assert "'mamba'" in refused("bench", "scaling", "--encoders", "chunk,mamba")
    assert "--ragged 1,0" in refused("bench", "scaling", "--ragged", "1,0")
    assert "'timing' is not known; expected one of import, answer" in refused("bench", "timing")
    assert "absent" in refused("bench", "scaling", "--plot", tmp_path / "absent" / "a.png")
    assert ".png" in refused("bench", "scaling", "--plot", tmp_path / "a.txt")
    assert "--no-plot" in refused("bench", "scaling", "--plot", tmp_path / "a.png", "--no-plot")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "mirasol_hf[plots]" in refused("bench", "scaling", "--plot", tmp_path / "a.png")


def test_the_page_holds_the_stored_results() -> None:
    from benchmarks import scaling_tables

    page = scaling_tables.PAGE.read_text()
    assert page.count("<!-- measured: ") == len(list(scaling_tables.RESULTS.glob("scaling-*.json")))
    assert scaling_tables.fill(page) == page
