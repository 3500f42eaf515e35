import io

import numpy as np
import pytest
import torch

FRAMES = np.zeros((4, 16, 16, 3), dtype=np.uint8)
WAVE = np.zeros(1600, dtype=np.float32)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("missing.mp4", FileNotFoundError),
        (".", IsADirectoryError),
        ("text.mp4", ValueError),
        ("empty.mp4", ValueError),
    ],
)
@pytest.mark.parametrize("argument", ["videos", "audio"])
def test_files(processor, media, name, kind, argument):
    path = media if name == "." else media / name
    with pytest.raises(kind) as error:
        processor(text="q?", **{argument: str(path)})
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"text": ""}, "text"),
        ({"text": " \n"}, "text"),
        ({"text": []}, "text"),
        ({"text": 3}, "text"),
        ({"text": ["a?", ""]}, "text"),
        ({"text": "q?\n", "context": "told"}, "context"),
        ({"text": ["a?", "b?"], "context": ["x"]}, "context"),
        ({"text": "long " * 100}, "at most 200"),
        ({"text": ["a?", "b?"], "videos": FRAMES, "fps": 1}, "text"),
        ({}, "text, videos and audio"),
        ({"videos": FRAMES}, "fps="),
        ({"videos": FRAMES, "fps": 0.0}, "fps"),
        ({"videos": FRAMES, "timestamps": [0, 1, 2]}, "timestamps"),
        ({"videos": FRAMES, "timestamps": [0, 2, 1, 3]}, "timestamps"),
        ({"videos": FRAMES, "timestamps": [0, 1, 2, float("nan")]}, "timestamps"),
        ({"videos": FRAMES[:0], "fps": 1}, "videos"),
        ({"videos": FRAMES[..., :2], "fps": 1}, "videos"),
        ({"videos": torch.zeros(2, 2, 2, 2, 2, 2), "fps": 1}, "videos"),
        ({"videos": torch.full((2, 8, 8, 3), float("nan")), "fps": 1}, "videos"),
        ({"videos": torch.full((2, 8, 8, 3), 300.0), "fps": 1}, "videos"),
        ({"videos": torch.full((2, 8, 8, 3), -5), "fps": 1}, "videos"),
        ({"videos": np.zeros(5), "fps": 1}, "videos"),
        ({"videos": []}, "videos"),
        ({"videos": 7}, "videos"),
        ({"videos": ""}, "path"),
        ({"videos": "a\0b.mp4"}, "NUL"),
        ({"videos": "http://127.0.0.1:9/clip.mp4"}, "http://127.0.0.1:9/clip.mp4"),
        ({"videos": b""}, "empty"),
        ({"videos": io.StringIO("text")}, "text"),
        ({"videos": [FRAMES, None], "fps": 1}, "clip 1"),
        ({"videos": [FRAMES, FRAMES], "audio": [WAVE], "fps": 1, "sampling_rate": 16000}, "audio"),
        ({"audio": np.zeros((2, 100)), "sampling_rate": 16000}, "audio"),
        ({"audio": np.zeros(0), "sampling_rate": 16000}, "audio"),
        ({"audio": np.array([0.0, np.nan]), "sampling_rate": 16000}, "audio"),
        ({"audio": np.array([0.0, np.inf]), "sampling_rate": 16000}, "audio"),
        ({"audio": np.array(["a", "b"]), "sampling_rate": 16000}, "audio"),
        ({"audio": WAVE, "sampling_rate": 0}, "sampling_rate"),
        ({"audio": 5}, "audio"),
        ({"videos": FRAMES, "fps": 1, "num_frames": 12}, "num_frames"),
        ({"videos": FRAMES, "fps": 1, "num_chunks": 0}, "num_chunks"),
        ({"videos": FRAMES, "fps": 1, "num_chunks": "3"}, "num_chunks"),
        ({"videos": FRAMES, "fps": 1, "start": 4.0}, "start"),
        ({"videos": FRAMES, "fps": 1, "start": -1.0}, "start"),
        ({"videos": FRAMES, "fps": 1, "start": float("nan")}, "start"),
        ({"videos": FRAMES, "fps": 1, "start": 2.0, "end": 2.0}, "end"),
        ({"videos": FRAMES, "fps": 1, "end": [1.0, 2.0]}, "end"),
        ({"videos": FRAMES, "fps": 1, "do_resize": False, "num_chunks": 1, "size": {"shortest_edge": 3}}, "size"),
    ],
)
def test_arguments(processor, arguments, named):
    with pytest.raises(ValueError) as error:
        processor(**arguments)
    assert named in str(error.value)


def test_unknown_keyword(processor):
    with pytest.raises(TypeError, match="numframes"):
        processor(text="q?", numframes=8)


def test_fps_and_num_frames_of_a_file(processor, media):
    with pytest.raises(ValueError, match="not both"):
        processor(videos=media / "clip.mp4", num_frames=16, fps=2)


def test_audio_from_a_file_without_sound(processor, media):
    with pytest.raises(ValueError, match=r"silent\.mp4 has no sound"):
        processor(audio=media / "silent.mp4")


def test_a_bad_file_in_a_batch_is_named_and_nothing_stays_open(processor, media):
    with pytest.raises(ValueError, match=r"text\.mp4"):
        processor(videos=[media / "clip.mp4", media / "text.mp4"])
