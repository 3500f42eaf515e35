"""`mirasol ask --stream`: answers while the video comes, from stdin and from a file."""

import json
import math
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.stderr_lines import own_lines

QUESTION = "What colour is the square?"
COMMAND = [sys.executable, "-c", "from mirasol_hf.cli import main; main()", "ask", "--stream", "-", QUESTION]


@pytest.fixture(scope="module")
def piped_clip(scene_clip, tmp_path_factory):
    """The clip in a container that a pipe can carry."""
    import av

    path = tmp_path_factory.mktemp("piped") / "scene.ts"
    with av.open(str(scene_clip)) as source, av.open(str(path), "w") as target:
        copies = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                target.mux(packet)
    return path


def rows(text):
    return [json.loads(line) for line in text.splitlines()]


def test_answers_come_every_so_often_and_at_the_end(mirasol, random_folder, scene_clip):
    ran = mirasol(
        *("ask", scene_clip, QUESTION, "What is heard?", "--model", random_folder, "--json", "--stream"),
        *("--every", "2", "--chunk-seconds", "0.5"),
    )
    found = rows(ran.out)
    assert ran.code == 0
    assert [row["final"] for row in found] == [False] * (len(found) - 1) + [True]
    assert [row["seconds"] for row in found[:-1]] == [2.0 * (i + 1) for i in range(len(found) - 1)]
    assert len(found) >= 3
    for row in found:
        assert row["chunks"] == math.ceil(row["seconds"] * 2)
        assert [answer["question"] for answer in row["answers"]] == [QUESTION, "What is heard?"]


def test_the_streamed_answer_is_that_of_the_whole_file(mirasol, random_folder, scene_clip):
    from mirasol_hf import probe_media

    length = probe_media(scene_clip)["duration"]
    common = (scene_clip, QUESTION, "--model", random_folder, "--json", "--context", "The square is red.")
    whole = json.loads(mirasol("ask", *common).out)
    streamed = rows(mirasol("ask", *common, "--stream", "--chunk-seconds", length / 8).out)
    assert [row["chunks"] for row in streamed] == [8]
    assert streamed[0]["answers"][0]["answer"] == whole["answers"][0]["answer"]
    assert streamed[0]["answers"][0]["score"] == pytest.approx(whole["answers"][0]["score"], abs=1e-5)


@pytest.fixture(scope="module")
def windowed_folder(random_parts, tmp_path_factory):
    """A random model whose state has one size, however long the stream."""
    import torch

    from mirasol_hf import MirasolConfig, MirasolForConditionalGeneration

    windows = {"time_config": {"attention_window": 2}, "text_config": {"media_window": 3}}
    torch.manual_seed(0)
    config = MirasolConfig.from_preset("tiny", combiner_config={"type": "ttm"}, **windows)
    folder = tmp_path_factory.mktemp("windowed")
    for part in (MirasolForConditionalGeneration(config), random_parts[1]):
        part.save_pretrained(folder)
    return folder


def test_windows_keep_the_state_of_a_stream_at_one_size(mirasol, windowed_folder, scene_clip, monkeypatch):
    from mirasol_hf import MirasolMediaCache, VideoQuestionAnsweringPipeline, probe_media

    caches, features = [], []
    make, answer = MirasolMediaCache.__init__, VideoQuestionAnsweringPipeline.answer_features

    def made(cache):
        make(cache)
        caches.append(cache)

    def answered(pipe, given, *arguments, **options):
        features.append(given["media_hidden_states"].shape[1])
        kept = caches[-1]
        assert kept.memory.memory.shape == (1, 16, 128)
        assert (kept.combiner.num_tokens, kept.time_model.num_tokens) == (0, 4)
        return answer(pipe, given, *arguments, **options)

    monkeypatch.setattr(MirasolMediaCache, "__init__", made)
    monkeypatch.setattr(VideoQuestionAnsweringPipeline, "answer_features", answered)
    length = probe_media(scene_clip)["duration"]
    common = ("ask", scene_clip, QUESTION, "--model", windowed_folder, "--json")
    options = ("--stream", "--chunk-seconds", length / 8, "--every", length / 8)
    found = rows(mirasol(*common, *options).out)
    assert [row["chunks"] for row in found] == [1, 2, 3, 4, 5, 6, 7, 8, 8]
    assert features == [4, 8, 12, 12, 12, 12, 12, 12, 12]  # of four features each, those of three chunks
    monkeypatch.undo()
    whole = json.loads(mirasol(*common).out)  # the same windows, all chunks at once
    assert found[-1]["answers"][0]["answer"] == whole["answers"][0]["answer"]
    assert found[-1]["answers"][0]["score"] == pytest.approx(whole["answers"][0]["score"], abs=1e-5)


def test_no_answer_is_printed_twice_and_none_after_the_end(mirasol, random_folder, scene_clip):
    from mirasol_hf import probe_media

    length = probe_media(scene_clip)["duration"]
    common = ("ask", scene_clip, QUESTION, "--stream", "--model", random_folder, "--chunk-seconds", 1)
    heads = [line for line in mirasol(*common, "--every", "2").out.splitlines() if line.startswith("[")]
    assert heads == [f"[{second:.2f} s]" for second in [*range(2, math.ceil(length), 2), length]]
    # the last chunk ends just where an answer is due
    common = (*common[:-1], length / 4, "--every", length / 2)
    halves = [line for line in mirasol(*common).out.splitlines() if line.startswith("[")]
    assert halves == [f"[{second:.2f} s]" for second in (length / 2, length)]
    found = rows(mirasol(*common, "--json").out)
    assert [row["final"] for row in found] == [False, False, True]
    assert found[-1]["answers"] == found[-2]["answers"] and found[-1]["seconds"] == pytest.approx(length)


@pytest.mark.parametrize(
    "options", [("--top-k", "1000000"), ("--context", "caf\udce9"), ("--context", "why " * 10_000)]
)
def test_what_cannot_be_asked_is_told_before_the_stream_is_read(refused, random_folder, options):
    line = refused("ask", "missing.mp4", QUESTION, "--stream", "--model", random_folder, *options)
    assert "missing.mp4" not in line and len(line) < 300


def test_answers_as_text(mirasol, random_folder, scene_clip):
    ran = mirasol("ask", scene_clip, QUESTION, "--stream", "--model", random_folder)
    lines = ran.out.splitlines()
    assert lines[0].endswith(" s]") and lines[1].endswith(")") and len(lines) == 2


def test_a_slow_pipe_is_answered_before_it_ends(random_folder, piped_clip):
    content = piped_clip.read_bytes()
    command = [*COMMAND, "--json", "--every", "1", "--chunk-seconds", "0.5", "--model", str(random_folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    cut = len(content) * 3 // 4
    for first in range(0, cut, 20_000):
        process.stdin.write(content[first : min(first + 20_000, cut)])
        process.stdin.flush()
        time.sleep(0.02)
    # The rest is held back until an answer has come.
    early = json.loads(process.stdout.readline())
    process.stdin.write(content[cut:])
    out, err = process.communicate(timeout=120)
    assert (process.returncode, own_lines(err)) == (0, [])
    assert early["final"] is False and early["video"] == "-"
    assert rows(out.decode())[-1]["final"] is True


def test_an_interrupt_while_the_pipe_is_silent_ends_the_command(random_folder, piped_clip):
    # a shell starts what runs in the background with interrupts ignored, which its children inherit
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    command = [COMMAND[0], "-c", heeding + COMMAND[2], *COMMAND[3:], "--json", "--every", "0.5"]
    command += ["--chunk-seconds", "0.5", "--model", str(random_folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    content = piped_clip.read_bytes()
    process.stdin.write(content[: len(content) * 3 // 4])
    process.stdin.flush()
    process.stdout.readline()
    time.sleep(2)  # all that has come is answered: the command waits inside FFmpeg for more
    process.send_signal(signal.SIGINT)
    try:
        code = process.wait(timeout=60)  # the pipe stays open: nothing but the interrupt can end the command
    finally:
        process.kill()
        out, _ = process.communicate()
    assert code == 130
    assert all(row["final"] is False for row in rows(out.decode()))


def test_a_cut_off_pipe_is_answered_with_a_warning(random_folder, scene_clip, tmp_path):
    import av

    path = tmp_path / "frag.mp4"
    with av.open(str(scene_clip)) as source:
        target = av.open(str(path), "w", options={"movflags": "frag_keyframe+empty_moov"})
        copies = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size:
                packet.stream = copies[packet.stream_index]
                target.mux(packet)
        target.close()
    content = path.read_bytes()
    done = subprocess.run(
        [*COMMAND, "--json", "--model", str(random_folder)],
        input=content[: len(content) * 3 // 4],
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert rows(done.stdout.decode())[-1]["final"] is True
    lines = own_lines(done.stderr)
    assert len(lines) == 1 and lines[0].startswith("mirasol: warning: ") and "cut off" in lines[0]


@pytest.mark.parametrize("content", [b"", b"only words " * 500])
def test_stdin_that_is_no_media(random_folder, content):
    done = subprocess.run([*COMMAND, "--model", str(random_folder)], input=content, capture_output=True, text=False)
    lines = own_lines(done.stderr)
    assert (done.returncode, done.stdout, len(lines)) == (2, b"", 1)
    assert lines[0].startswith("mirasol: error: ") and "standard input" in lines[0]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--every", "2"), "--stream"),
        (("--stream", "--every", "0"), "--every"),
        (("--stream", "--chunk-seconds", "-1"), "--chunk-seconds"),
    ],
)
def test_options_out_of_range(refused, random_folder, scene_clip, options, named):
    assert named in refused("ask", scene_clip, QUESTION, *options, "--model", random_folder)


def test_a_missing_file_and_a_long_question(refused, random_folder, scene_clip):
    assert "absent.mp4" in refused("ask", "absent.mp4", QUESTION, "--stream", "--model", random_folder)
    line = refused("ask", scene_clip, "why " * 500, "--stream", "--model", random_folder)
    assert "256 positions" in line
