"""Calls in the library's own way: frames that are not sampled, `video_metadata`, chat templates."""

import numpy as np
import pytest
import torch
from transformers.video_utils import VideoMetadata

CHAT = (
    "{% for m in messages %}{% for part in m['content'] %}{{ part.get('text', '') }}{% endfor %}{{ '\n' }}{% endfor %}"
)
FRAMES = np.random.default_rng(0).integers(0, 255, (16, 20, 30, 3), dtype=np.uint8)


def test_frames_that_are_not_sampled_need_no_rate(processor):
    out = processor(videos=FRAMES, do_sample_frames=False, return_tensors="pt")
    assert out["pixel_values_videos"].shape[:3] == (1, 2, 8)
    timed = processor(videos=FRAMES, fps=4, num_chunks=2, return_tensors="pt")
    assert torch.equal(out["pixel_values_videos"], timed["pixel_values_videos"])


def test_metadata_tell_the_rate_of_frames_and_fps_that_of_sampling(processor):
    told = [{"fps": 16.0, "total_num_frames": 16}]
    out = processor(videos=FRAMES, video_metadata=told, fps=8, return_tensors="pt", return_timestamps=True)
    assert out["pixel_values_videos"].shape[:3] == (1, 1, 8)
    assert float(out["chunk_seconds"].max()) == 1.0
    alone = processor.video_processor(FRAMES, video_metadata=told, fps=8, return_tensors="pt")
    assert torch.equal(out["pixel_values_videos"], alone["pixel_values_videos"])
    with pytest.raises(ValueError, match="2 entries for 1 clips"):
        processor(videos=FRAMES, video_metadata=told * 2, num_chunks=1)


def test_indices_of_sampled_frames(processor):
    clip = VideoMetadata(total_num_frames=8, fps=4)
    parts = processor.video_processor
    assert parts.sample_frames(clip, num_frames=4).tolist() == [1, 3, 5, 7]
    assert parts.sample_frames(clip, fps=2).tolist() == [1, 3, 5, 7]
    assert parts.sample_frames(clip).tolist() == list(range(8))
    for asked, words in (
        ({"num_frames": 9}, "9 frames are wanted of a clip of 8"),
        ({"num_frames": 4, "fps": 2}, "not both"),
    ):
        with pytest.raises(ValueError, match=words):
            parts.sample_frames(clip, **asked)
    with pytest.raises(ValueError, match="rate of the clip"):
        parts.sample_frames(VideoMetadata(total_num_frames=8), fps=2)
    with pytest.raises(ValueError, match=r"num_frames=24, but .* has 16 frames"):
        parts(FRAMES, num_frames=24)


def test_chat_messages_with_films_and_sounds(processor, media):
    def ask(*blocks):
        return [{"role": "user", "content": [*blocks, {"type": "text", "text": "what is shown?"}]}]

    film = {"type": "video", "path": str(media / "clip.mp4")}
    talks = [ask(film), ask({"type": "audio", "path": str(media / "clip.mp4")})]
    out = processor.apply_chat_template(
        talks, chat_template=CHAT, tokenize=True, return_dict=True, return_tensors="pt"
    )
    plain = processor(
        text=["what is shown?"] * 2,
        videos=[str(media / "clip.mp4"), None],
        audio=[None, str(media / "clip.mp4")],
        return_tensors="pt",
    )
    assert set(out) == set(plain)
    for name in plain:
        assert torch.equal(out[name], plain[name]), name
    with pytest.raises(ValueError, match="a text is about one video"):
        processor.apply_chat_template(
            [ask(film, film)], chat_template=CHAT, tokenize=True, return_dict=True, return_tensors="pt"
        )


def test_images_are_refused_with_the_way_to_give_them(processor):
    with pytest.raises(TypeError, match="a still picture is a clip"):
        processor(text="what is shown?", images=FRAMES[0])
