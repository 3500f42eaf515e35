import io
from pathlib import Path

import numpy as np
import pytest
import torch
from media_maker import picture, write_media
from PIL import Image

from mirasol_hf.processing.media_limits_mirasol import MediaWarning


def same(left, right):
    assert set(left) == set(right)
    for name in left:
        assert torch.equal(torch.as_tensor(left[name]), torch.as_tensor(right[name])), name


def row(batch, i, chunks):
    """Row `i` of a batch without its padding, media only."""
    return {name: batch[name][i : i + 1, :chunks] for name in batch if name not in ("input_ids", "attention_mask")}


def test_names_shapes_and_types(processor, media):
    out = processor(text="what is shown?", videos=media / "clip.mp4", return_tensors="pt", return_timestamps=True)
    shapes = {name: tuple(value.shape) for name, value in out.items()}
    length = len("what is shown?\n")
    assert shapes == {
        "input_ids": (1, length),
        "attention_mask": (1, length),
        "pixel_values_videos": (1, 4, 8, 3, 64, 64),
        "video_mask": (1, 4),
        "input_features": (1, 4, 32, 64),
        "audio_mask": (1, 4),
        "video_timestamps": (1, 4, 8),
        "chunk_seconds": (1, 4, 2),
    }
    assert out["pixel_values_videos"].dtype == out["input_features"].dtype == torch.float32
    assert out["video_mask"].dtype == out["audio_mask"].dtype == torch.int64
    assert out["video_timestamps"].dtype == out["chunk_seconds"].dtype == torch.float64
    assert out["pixel_values_videos"].abs().max() <= 1.0
    assert set(processor.model_input_names) == set(shapes) - {"video_timestamps", "chunk_seconds"}


def test_flash_and_tone_land_in_the_same_chunk(processor, media):
    for name in ("clip.mp4", "clip.mkv", "late.mp4"):
        out = processor(videos=media / name, num_chunks=8, return_timestamps=True)
        middle = out["pixel_values_videos"][0, :, :, :, 24:40, 24:40].mean((2, 3, 4))
        flashing = (middle > 0.6).any(1)
        sounding = (out["input_features"][0, :, :, 19:23] > 0.3).any(2).any(1)
        # The first event lasts from 0.80 s to 1.05 s, so it is in two windows of half a second.
        assert flashing.tolist() == sounding.tolist() == [k in (1, 2, 5) for k in range(8)]
        seconds, times = out["chunk_seconds"][0], out["video_timestamps"][0]
        assert ((times >= seconds[:, :1] - 0.0401) & (times < seconds[:, 1:])).all()


def test_kinds_of_source_agree(processor, media):
    path = media / "clip.mp4"
    content = path.read_bytes()
    expected = processor(videos=str(path))
    for source in (path, Path(path), content, bytearray(content), memoryview(content), io.BytesIO(content)):
        same(processor(videos=source), expected)
    same(processor(videos=path, audio=path), expected)
    assert "input_features" not in processor(videos=path, load_audio_from_video=False)


def test_frames_in_memory(processor):
    frames = np.stack([picture(i % 2 == 0, 64, 64) for i in range(16)])
    expected = processor(videos=frames, fps=4.0, num_chunks=2, return_timestamps=True)
    assert torch.equal(expected["chunk_seconds"][0], torch.tensor([[0.0, 2.0], [2.0, 4.0]], dtype=torch.float64))
    assert torch.equal(expected["video_timestamps"].flatten(), torch.arange(16, dtype=torch.float64) / 4)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2).float().view(1, 2, 8, 3, 64, 64) / 127.5 - 1
    assert torch.allclose(expected["pixel_values_videos"], pixels, atol=1e-6)
    times = np.arange(16) / 4
    channels_first = torch.from_numpy(frames).permute(0, 3, 1, 2)
    for video, more in (
        (torch.from_numpy(frames), {"fps": 4}),
        (channels_first, {"fps": 4}),
        (channels_first.float() / 255, {"fps": 4}),
        (list(frames), {"fps": 4}),
        ([Image.fromarray(frame) for frame in frames], {"fps": 4}),
        (frames, {"timestamps": times}),
        (frames, {"timestamps": times.tolist()}),
        (frames[None], {"fps": 4}),
        ([frames], {"timestamps": [times]}),
    ):
        other = processor(videos=video, num_chunks=2, return_timestamps=True, **more)
        assert torch.allclose(other["pixel_values_videos"], expected["pixel_values_videos"], atol=1e-5)
        assert torch.equal(other["video_timestamps"], expected["video_timestamps"])


def test_pictures_without_a_clock_last_one_second_each(processor):
    pictures = [Image.fromarray(picture(False)) for _ in range(6)]
    out = processor(videos=pictures, num_chunks=1, return_timestamps=True)
    assert out["chunk_seconds"].tolist() == [[[0.0, 6.0]]]
    assert out["video_timestamps"].tolist() == [[[0.0, 1.0, 1.0, 2.0, 3.0, 4.0, 4.0, 5.0]]]
    assert processor(videos=pictures[0], num_chunks=1)["pixel_values_videos"].shape == (1, 1, 8, 3, 64, 64)


def test_resizing_in_memory_is_close_to_resizing_a_file(processor, media):
    """The same scene through H.264 and swscale, and as an array."""
    from_file = processor(videos=media / "silent.mp4", num_chunks=1)["pixel_values_videos"]
    frames = np.stack([picture(0.8 <= i / 25 < 1.05) for i in range(50)])
    from_array = processor(videos=frames, fps=25, num_chunks=1)["pixel_values_videos"]
    assert (from_file - from_array).abs().mean() < 0.04


def test_alpha_grey_and_sixteen_channels_first(processor):
    grey = np.full((4, 64, 64), 255, dtype=np.uint8)
    out = processor(videos=[Image.fromarray(g) for g in grey], num_chunks=1)
    assert torch.equal(out["pixel_values_videos"], torch.ones_like(out["pixel_values_videos"]))
    alpha = np.full((4, 32, 32, 4), 255, dtype=np.uint8)
    assert processor(videos=alpha, fps=1, num_chunks=1)["pixel_values_videos"].shape == (1, 1, 8, 3, 64, 64)
    ambiguous = np.zeros((4, 3, 32, 3), dtype=np.uint8)
    ambiguous[:, 0] = 255
    first = processor(videos=ambiguous, fps=1, num_chunks=1, input_data_format="channels_first")
    assert (first["pixel_values_videos"][..., 0, :, :] == 1).all()
    assert (first["pixel_values_videos"][..., 1:, :, :] == -1).all()


def test_waveform_beside_a_video_replaces_its_sound(processor, media):
    wave = np.sin(2 * np.pi * 3000 * np.arange(4 * 44100) / 44100).astype(np.float32)
    own = processor(videos=media / "clip.mp4")
    other = processor(videos=media / "clip.mp4", audio=wave, sampling_rate=44100)
    assert torch.equal(own["pixel_values_videos"], other["pixel_values_videos"])
    loudest = other["input_features"][0].mean((0, 1)).argmax()
    assert 35 < int(loudest) < 55
    whole_numbers = (wave * 32767).astype(np.int16)
    as_array = processor(audio=whole_numbers, sampling_rate=44100)
    same(as_array, processor(audio=torch.from_numpy(whole_numbers), sampling_rate=44100))
    assert (
        as_array["input_features"] - processor(audio=wave, sampling_rate=44100)["input_features"]
    ).abs().max() < 0.6


def test_waveform_without_rate_is_taken_at_the_models_rate_with_a_warning(processor):
    with pytest.warns(UserWarning, match="sampling_rate"):
        out = processor(audio=np.zeros(16000, np.float32), return_timestamps=True)
    assert out["chunk_seconds"][0, -1, 1] == 1.0


def test_batch_equals_single(processor, media):
    names = ["clip.mp4", "clip.mkv", "late.mp4"]
    batch = processor(videos=[media / name for name in names], num_chunks=3)
    for i, name in enumerate(names):
        same(row(batch, i, 3), dict(processor(videos=media / name, num_chunks=3)))


def test_text_without_a_clip_has_mask_zero(processor, media):
    clip = media / "clip.mp4"
    alone = processor(text="a", videos=clip, return_tensors="pt", return_timestamps=True)
    both = processor(text=["a", "b"], videos=[None, clip], return_tensors="pt", return_timestamps=True)
    assert not both["video_mask"][0].any() and not both["audio_mask"][0].any()
    assert not both["pixel_values_videos"][0].any() and not both["input_features"][0].any()
    same(row(both, 1, 4), row(alone, 0, 4))
    same(processor(text=["a", "b"], videos=[None, None]), processor(text=["a", "b"]))
    with pytest.raises(ValueError, match="clip 0 has neither video nor audio"):
        processor(videos=[None, clip])


def test_ragged_batch_is_padded_at_the_end(processor, media):
    names = ["silent.mp4", "clip.mp4", "sound.wav"]
    batch = processor(
        text=["a?", "b?", "c?"],
        videos=[media / names[0], media / names[1], None],
        audio=[None, None, media / names[2]],
        fps=4,
        return_tensors="pt",
        return_timestamps=True,
    )
    assert batch["video_mask"].tolist() == [[1, 0], [1, 1], [0, 0]]
    assert batch["audio_mask"].tolist() == [[0, 0], [1, 1], [1, 1]]
    assert not batch["pixel_values_videos"][0, 1].any() and not batch["pixel_values_videos"][2].any()
    assert not batch["input_features"][0].any()
    assert not batch["chunk_seconds"][0, 1].any()
    clip = processor(videos=media / names[1], fps=4, return_timestamps=True)
    same(row(batch, 1, 2), dict(clip))
    silent = processor(videos=media / names[0], fps=4)
    assert "input_features" not in silent and "audio_mask" not in silent
    assert torch.equal(batch["pixel_values_videos"][0, :1], silent["pixel_values_videos"][0])


def test_sound_alone_and_text_alone(processor, media):
    heard = processor(text="q?", audio=media / "sound.mp3", return_tensors="pt")
    assert set(heard) == {"input_ids", "attention_mask", "input_features", "audio_mask"}
    as_video = processor(text="q?", videos=media / "sound.mp3", return_tensors="pt")
    same(heard, as_video)
    assert set(processor(text="q?")) == {"input_ids", "attention_mask"}


def test_chunks_without_pictures_or_sound_are_masked(processor, tmp_path):
    path = write_media(tmp_path / "late.mp4", seconds=4.0, audio_delay=2.5, events=(3.0,))
    out = processor(videos=path, num_chunks=8)
    # AAC begins with the packet before the first sound: a few hundredths of a second of silence at 2.48 s.
    assert out["audio_mask"].tolist() == [[0, 0, 0, 0, 1, 1, 1, 1]] and out["video_mask"].all()
    frames = np.stack([picture(False)] * 4)
    out = processor(videos=frames, fps=4, audio=np.ones(32000, np.float32), sampling_rate=16000, num_chunks=4)
    assert out["video_mask"].tolist() == [[1, 1, 0, 0]] and out["audio_mask"].tolist() == [[1, 1, 1, 1]]
    assert not out["pixel_values_videos"][0, 2:].any()


def test_span(processor, media):
    out = processor(videos=media / "clip.mp4", start=1.0, end=3.0, num_chunks=2, return_timestamps=True)
    assert out["chunk_seconds"].tolist() == [[[1.0, 2.0], [2.0, 3.0]]]
    whole = processor(videos=media / "clip.mp4", num_chunks=4, return_timestamps=True)
    assert torch.equal(out["video_timestamps"][0], whole["video_timestamps"][0, 1:3])
    assert torch.equal(out["pixel_values_videos"][0], whole["pixel_values_videos"][0, 1:3])
    assert (out["input_features"][0] - whole["input_features"][0, 1:3]).abs().mean() < 0.05
    until_end = processor(videos=media / "clip.mp4", start=3.0, end=99.0, num_chunks=1, return_timestamps=True)
    assert until_end["chunk_seconds"][0, 0, 0] == 3.0 and abs(until_end["chunk_seconds"][0, 0, 1] - 4.0) < 0.05
    both = processor(videos=[media / "clip.mp4"] * 2, start=[0.0, 2.0], end=[1.0, 4.0], return_timestamps=True)
    assert both["chunk_seconds"][:, -1, 1].tolist() == [1.0, 4.0]


def test_number_of_frames(processor, media):
    assert processor(videos=media / "clip.mp4", num_frames=16)["pixel_values_videos"].shape[1:3] == (2, 8)
    assert processor(videos=media / "clip.mp4", fps=6)["pixel_values_videos"].shape[1:3] == (3, 8)
    assert processor(videos=media / "clip.mp4", num_chunks=7)["pixel_values_videos"].shape[1:3] == (7, 8)
    wide = processor(videos=media / "clip.mp4", num_frames=32, num_chunks=2)
    assert wide["pixel_values_videos"].shape[1:3] == (2, 16)


def test_prompt(processor):
    assert processor.build_prompt("What is shown? ") == "What is shown?\n"
    assert processor.build_prompt("who?", "the triangle is called {ada}") == "the triangle is called {ada} who?\n"
    question = processor(text="who?", context="a {b}")["input_ids"]
    assert processor.decode(question[0]) == "a {b} who?\n"
    assert processor(text=processor.build_prompt("who?", "a {b}"))["input_ids"] == question
    assert processor(text="who?\nred")["input_ids"] == processor.tokenizer(["who?\nred"])["input_ids"]
    assert processor.batch_decode(processor(text=["a?", "b?"])["input_ids"], skip_special_tokens=True) == [
        "a?\n",
        "b?\n",
    ]


def test_text_is_padded_on_the_left(processor):
    out = processor(text=["a?", "a longer one?"], context=[None, "told"], return_tensors="pt")
    assert out["attention_mask"][0, 0] == 0 and out["attention_mask"][:, -1].tolist() == [1, 1]
    assert processor(text=["a?", "bb?"], padding="max_length", max_length=40)["input_ids"].__len__() == 2


def test_keywords_of_the_parts(processor, media):
    frames = np.full((8, 64, 64, 3), 51, dtype=np.uint8)
    plain = {"videos": frames, "fps": 8, "num_chunks": 1}
    assert torch.allclose(processor(**plain)["pixel_values_videos"], torch.tensor(-0.6))
    assert torch.allclose(processor(**plain, do_normalize=False)["pixel_values_videos"], torch.tensor(0.2))
    assert torch.allclose(
        processor(**plain, do_rescale=False, do_normalize=False)["pixel_values_videos"], torch.tensor(51.0)
    )
    out = processor(videos=frames, videos_kwargs={"fps": 8, "num_chunks": 1, "size": {"height": 32, "width": 48}})
    assert out["pixel_values_videos"].shape[-2:] == (32, 48)
    numbers = processor(videos=media / "clip.mp4", return_tensors="np")
    assert isinstance(numbers["pixel_values_videos"], np.ndarray)


def test_video_processor_alone(processor, media):
    alone = processor.video_processor(media / "clip.mp4", num_chunks=3)
    both = processor(videos=media / "clip.mp4", num_chunks=3)
    assert torch.equal(alone["pixel_values_videos"], both["pixel_values_videos"])
    frames = torch.randint(0, 256, (2, 3, 64, 64, 3), dtype=torch.uint8)
    pixels = processor.video_processor.normalize_frames(frames)
    assert pixels.shape == (2, 3, 3, 64, 64) and pixels.is_contiguous()
    assert torch.allclose(pixels, frames.movedim(-1, -3) / 127.5 - 1, atol=1e-6)
    with pytest.raises(ValueError, match="uint8"):
        processor.video_processor.normalize_frames(frames.float())
    with pytest.raises(TypeError, match="colour"):
        processor.video_processor(media / "clip.mp4", colour=1)


def test_same_file_gives_identical_tensors_with_any_number_of_threads(processor, media):
    expected = processor(videos=media / "clip.mp4")
    torch.set_num_threads(2)
    try:
        same(processor(videos=media / "clip.mp4"), expected)
    finally:
        torch.set_num_threads(1)


def test_progress(processor, media):
    seen = []
    processor(videos=[media / "clip.mp4", media / "clip.mkv"], progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == 1.0 and 0 < seen[0] < 0.5


def test_truncated_file_warns_and_gives_what_is_there(processor, media):
    with pytest.warns(MediaWarning, match=r"cut\.mp4"):
        out = processor(videos=media / "cut.mp4")
    assert out["video_mask"].any()
