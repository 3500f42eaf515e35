"""Every accepted kind of video and audio argument as a clip with a duration.

Legend: n frames, K chunks, F frames per chunk, H, W image.
"""

import os
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from .audio_reader_mirasol import Samples, resample_array
from .chunk_plan_mirasol import ChunkPlan, FloatArray, pick_frames, sample_ranges
from .feature_extraction_mirasol import check_waveform
from .media_index_mirasol import Progress
from .media_limits_mirasol import MediaLimits
from .media_mirasol import MediaFile

# What a chunk's pictures come as: frames [K, F, H, W, 3] of uint8 or float32 in [0, 255], their seconds [K, F], and a
# bool mask [K].
ChunkPictures: TypeAlias = tuple[torch.Tensor, FloatArray, npt.NDArray[np.bool_]]

# Pictures given as a plain list have no clock; each stays on screen for this long.
PICTURE_SECONDS = 1.0


class FramesClip:
    """Pictures that are already in memory.

    Args:
        frames: array or tensor `[n, H, W, C]` or `[n, C, H, W]`, or a list of pictures (PIL images or arrays).
        times: float64 `[n]` seconds, ascending.
        end: when the last picture leaves the screen.
        channels_first: where the channels are; None finds out.
    """

    has_video = True
    has_audio = False
    # The processor hands clips to its parts, which ask this instead of the class: from a folder with code of its own
    # the library loads the files of each anew, and the classes of one are not those of the other.
    in_memory = True

    def __init__(self, frames: Any, times: FloatArray, end: float, channels_first: bool | None = None) -> None:
        self.frames = frames
        self.times = times
        self.end = end
        self.channels_first = channels_first
        self.begin = float(times[0])

    @property
    def duration(self) -> float:
        """When the last picture leaves the screen, in seconds of the caller's clock."""
        return self.end

    def read_pictures(self, plan: ChunkPlan, height: int, width: int, resize: bool = True) -> ChunkPictures | None:
        """Pictures of every chunk, resized; None if none is on screen during the plan."""
        mask = (plan.windows[:, 0] < self.end) & (plan.windows[:, 1] > self.times[0])
        if not bool(mask.any()):
            return None
        picked = pick_frames(self.times, plan.frame_times[mask].reshape(-1))
        distinct, where = np.unique(picked, return_inverse=True)
        rows = [self._picture(int(i), height, width, resize) for i in distinct]
        shape = {tuple(row.shape) for row in rows}
        if len(shape) > 1:
            raise ValueError(f"videos holds pictures of different sizes {sorted(shape)} and do_resize is False")
        chosen = torch.stack(rows)[torch.from_numpy(where)]
        frames = torch.zeros(*plan.frame_times.shape, *chosen.shape[1:], dtype=chosen.dtype)
        frames[torch.from_numpy(mask)] = chosen.view(-1, *frames.shape[1:])
        times = plan.frame_times.copy()
        times[mask] = self.times[picked].reshape(-1, times.shape[1])
        return frames, times, mask

    def _picture(self, index: int, height: int, width: int, resize: bool) -> torch.Tensor:
        picture = _rgb_tensor(self.frames[index], self.channels_first)
        if not resize or picture.shape[:2] == (height, width):
            return picture
        planes = picture.movedim(-1, 0).unsqueeze(0).float()
        size = (height, width)
        smooth = torch.nn.functional.interpolate(planes, size, mode="bilinear", antialias=True, align_corners=False)
        smooth = smooth.clamp(0.0, 255.0)
        if picture.dtype == torch.uint8:
            smooth = smooth.round().to(torch.uint8)
        return smooth[0].movedim(0, -1)


class SoundClip:
    """Sound that is already in memory.

    Args:
        waveform: float32 `[n]`, mono.
        rate: its samples per second.
    """

    has_video = False
    has_audio = True
    begin = 0.0

    def __init__(self, waveform: Samples, rate: int) -> None:
        self.waveform = waveform
        self.rate = rate

    @property
    def duration(self) -> float:
        """Seconds of sound."""
        return len(self.waveform) / self.rate

    def read_sound(self, plan: ChunkPlan, sampling_rate: int) -> Iterator[Iterator[tuple[int, Samples]]]:
        """The piece of each chunk, as `MediaFile.read_sound`."""
        wave = resample_array(self.waveform, self.rate, sampling_rate)
        for begin, end in sample_ranges(plan.windows, sampling_rate).tolist():
            first = max(begin, 0)
            yield iter([(first, wave[first : max(first, end)])])


Clip: TypeAlias = MediaFile | FramesClip | SoundClip


def split_videos(videos: Any) -> list[Any]:
    """The clips of a `videos` argument: one entry per clip, None where a clip has no video."""
    if isinstance(videos, (np.ndarray, torch.Tensor)):
        return list(videos) if videos.ndim == 5 else [videos]
    if isinstance(videos, (list, tuple)):
        if not videos:
            raise ValueError("videos is an empty list")
        return [videos] if all(_is_picture(item) for item in videos) else list(videos)
    return [videos]


def split_audio(audio: Any) -> list[Any]:
    """The clips of an `audio` argument: one entry per clip, None where a clip has no sound of its own."""
    if isinstance(audio, (list, tuple)):
        if not audio:
            raise ValueError("audio is an empty list")
        return [audio] if all(isinstance(item, (int, float, np.number)) for item in audio) else list(audio)
    return [audio]


def open_video(
    video: Any,
    name: str,
    *,
    fps: float | None,
    timestamps: Any,
    channels_first: bool | None,
    limits: MediaLimits | None,
    progress: Progress | None,
) -> MediaFile | FramesClip:
    """One entry of `split_videos` as a clip.

    Args:
        video: path, bytes, file object, array or tensor `[n, ...]`, list of pictures, or one picture.
        name: how errors call it.
        fps: rate of frames that come as an array or list.
        timestamps: `[n]` seconds of such frames, instead of `fps`.
        channels_first: where the channels of arrays are; None finds out.
        limits: what a file may cost.
        progress: called with a growing fraction while a file is read.

    Raises:
        ValueError: if frames have no rate or the wrong shape; naming the argument.
        OSError: if a file cannot be opened.
    """
    if isinstance(video, (np.ndarray, torch.Tensor)) and video.ndim != 3:
        if video.ndim != 4 or video.shape[0] == 0:
            raise ValueError(
                f"{name} must have shape [frames, height, width, channels] or [frames, channels, height, width] with "
                f"at least one frame, got {tuple(video.shape)}"
            )
        if fps is None and timestamps is None:
            raise ValueError(f"{name} is an array of {video.shape[0]} frames without a rate: give fps= or timestamps=")
        return _frames_clip(video, name, fps, timestamps, channels_first)
    if _is_picture(video):
        video = [video]
    if isinstance(video, (list, tuple)):
        if not video or not all(_is_picture(item) for item in video):
            raise ValueError(f"{name} is a list, so every item must be a picture (PIL image or array)")
        rate = fps if fps is not None or timestamps is not None else 1.0 / PICTURE_SECONDS
        return _frames_clip(list(video), name, rate, timestamps, channels_first)
    _check_is_source(video, name, "an array, a list of pictures")
    return MediaFile(video, limits, progress)


def open_audio(
    audio: Any, name: str, *, rate: int, limits: MediaLimits | None, progress: Progress | None
) -> MediaFile | SoundClip:
    """One entry of `split_audio` as a clip.

    Args:
        audio: path, bytes, file object, or mono waveform `[n]`.
        name: how errors call it.
        rate: samples per second of a waveform.
        limits: what a file may cost.
        progress: called with a growing fraction while a file is read.

    Raises:
        ValueError: if the waveform has the wrong rank, is empty or not finite, or a file has no sound.
        OSError: if a file cannot be opened.
    """
    if isinstance(audio, (np.ndarray, torch.Tensor, list, tuple)):
        if rate <= 0:
            raise ValueError(f"sampling_rate must be positive, got {rate}")
        return SoundClip(check_waveform(audio, name), rate)
    _check_is_source(audio, name, "a waveform")
    media = MediaFile(audio, limits, progress)
    if not media.has_audio:
        media.close()
        raise ValueError(f"{name}: {media.label} has no sound")
    return media


def _check_is_source(source: Any, name: str, others: str) -> None:
    if not isinstance(source, (str, os.PathLike, bytes, bytearray, memoryview)) and not hasattr(source, "read"):
        raise ValueError(f"{name} must be a path, bytes, a binary file object, {others}; got {type(source).__name__}")


def _is_picture(item: Any) -> bool:
    return isinstance(item, Image.Image) or (isinstance(item, (np.ndarray, torch.Tensor)) and item.ndim in (2, 3))


def _frames_clip(
    frames: Any, name: str, fps: float | None, timestamps: Any, channels_first: bool | None
) -> FramesClip:
    count = len(frames)
    if timestamps is None:
        if fps is None or not fps > 0 or fps == float("inf"):
            raise ValueError(f"fps must be a positive number of frames per second, got {fps}")
        return FramesClip(frames, np.arange(count) / fps, count / fps, channels_first)
    times = np.asarray(timestamps, dtype=np.float64)
    if times.shape != (count,):
        raise ValueError(f"timestamps must have one second per frame, {count} for {name}; got shape {times.shape}")
    if not bool(np.isfinite(times).all()) or bool((np.diff(times) < 0).any()):
        raise ValueError(f"timestamps of {name} must be finite and ascending")
    step = 1.0 / fps if fps else float(np.median(np.diff(times))) if count > 1 else PICTURE_SECONDS
    return FramesClip(frames, times, float(times[-1]) + (step or PICTURE_SECONDS), channels_first)


def _rgb_tensor(picture: Any, channels_first: bool | None) -> torch.Tensor:
    """One picture as `[H, W, 3]`, uint8 or float32 in [0, 255]."""
    if isinstance(picture, Image.Image):
        return torch.from_numpy(np.array(picture.convert("RGB")))
    tensor = torch.as_tensor(picture).detach().cpu()
    if tensor.ndim == 2:
        tensor = tensor.unsqueeze(-1)
    elif channels_first or (channels_first is None and tensor.shape[-1] not in (1, 3, 4)):
        tensor = tensor.movedim(0, -1)
    if tensor.ndim != 3 or tensor.shape[-1] not in (1, 3, 4) or 0 in tensor.shape:
        shape = tuple(torch.as_tensor(picture).shape)
        raise ValueError(f"a picture in videos must have 1, 3 or 4 channels, got shape {shape}")
    tensor = tensor.expand(-1, -1, 3) if tensor.shape[-1] == 1 else tensor[..., :3]
    if tensor.dtype == torch.uint8:
        return tensor
    low, high = float(tensor.min()), float(tensor.max())
    top = 1.0 if tensor.is_floating_point() else 255.0
    if not (low >= 0.0 and high <= top):
        raise ValueError(
            f"pictures in videos must be whole numbers in [0, 255] or floats in [0, 1], got {tensor.dtype} in "
            f"[{low:g}, {high:g}]"
        )
    return tensor.float() * 255.0 if tensor.is_floating_point() else tensor.to(torch.uint8)


def pair_clips(videos: Any, audio: Any, with_text: bool) -> list[tuple[Any, Any]]:
    """Video and sound of each clip; None where it lacks one. Beside a text it may lack both; none if all do."""
    seen = split_videos(_one_each(videos, "video")) if videos is not None else []
    heard = split_audio(_one_each(audio, "sound")) if audio is not None else []
    if seen and heard and len(seen) != len(heard):
        raise ValueError(f"videos has {len(seen)} clips and audio has {len(heard)}; give one sound per clip")
    seen, heard = seen or [None] * len(heard), heard or [None] * len(seen)
    pairs = list(zip(seen, heard, strict=True))
    for i, (video, sound) in enumerate(pairs):
        if video is None and sound is None and not with_text:
            raise ValueError(f"clip {i} has neither video nor audio")
    return pairs if any(video is not None or sound is not None for video, sound in pairs) else []


def _one_each(media: Any, kind: str) -> Any:
    """Flattens the library's lists of media per conversation, `[[a], []]`, to one or None for each text."""
    is_nested = isinstance(media, (list, tuple)) and all(isinstance(row, (list, tuple)) for row in media)
    if not is_nested or any(len(row) > 1 and _is_clip(row) for row in media):
        return media
    if any(len(row) > 1 for row in media):
        raise ValueError(f"a text is about one {kind}; got {[len(row) for row in media]} for the texts")
    return [row[0] if row else None for row in media]


def _is_clip(row: list[Any] | tuple[Any, ...]) -> bool:
    """Whether a list is itself a clip: pictures, or the samples of a sound."""
    return not isinstance(row[0], (str, bytes, list, tuple)) and getattr(row[0], "ndim", 0) != 4
