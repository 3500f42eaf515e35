"""Pictures of each chunk as normalised tensors.

Legend: B batch, K chunks, F frames per chunk, C, H, W image.
"""

import math
from typing import Any

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import VideosKwargs
from transformers.video_processing_utils import VideoProcessorMixin

from .chunk_plan_mirasol import ChunkPlan, FloatArray, IntArray, plan_chunks, plan_request
from .clips_mirasol import PICTURE_SECONDS, FramesClip, open_video, split_videos
from .forked_mirasol import one_thread_after_fork
from .keywords_mirasol import refuse_unknown
from .media_mirasol import MediaFile
from .processor_part_mirasol import ProcessorPartMixin
from .saved_options_mirasol import check_numbers, cut

# what the library writes into saved files beside the options
_SAVED_KEYS = {"auto_map", "data_format", "image_processor_type", "processor_class", "video_processor_type"}

# smallest and largest value of each option, far beyond any real one, and of the values that a clip becomes by default
_BOUNDS = {
    "size.height": (1, 4096),
    "size.width": (1, 4096),
    "num_frames": (1, 1024),
    "num_chunks": (1, 4096),
    "rescale_factor": (-1e6, 1e6),
    "image_mean": (-1e6, 1e6),
    "image_std": (1e-6, 1e6),
}
_MOST_VALUES = 2**30


class MirasolVideoProcessorKwargs(VideosKwargs, total=False):  # type: ignore[call-arg]
    """Keyword arguments of [`MirasolVideoProcessor`] beyond the library's own.

    Attributes:
        num_chunks: K, the number of equal windows a clip is cut into.
        chunk_seconds: seconds of each window, instead of their number.
    """

    num_chunks: int | None
    chunk_seconds: float | None


class MirasolVideoProcessor(ProcessorPartMixin, VideoProcessorMixin):
    """Sample, resize, scale and normalise the frames of chunks.

    The whole picture is resized to the square of `size`; nothing is cropped, because what happens at the edge of a
    picture may be what the question is about.

    Args:
        size: `{"height": H, "width": W}` or one number for both.
        num_frames: F, frames per chunk. (In a call, `num_frames` means the frames of the whole clip.)
        num_chunks: K when a call asks for none.
        do_sample_frames: whether frames in memory are sampled; without, all of them are used, in as many chunks as
            they fill, and their rate need not be known. Files are always sampled.
        do_resize: whether pictures are resized; without, they must have the model's size already.
        do_rescale: whether pixel values are multiplied by `rescale_factor`.
        rescale_factor: 1/255 brings pixels into [0, 1].
        do_normalize: whether mean and standard deviation are applied.
        image_mean: mean per channel of values in [0, 1]; with 0.5 and 0.5 pixels become [-1, 1].
        image_std: standard deviation per channel.

    Raises:
        TypeError: for an unknown keyword.
        ValueError: for a value out of its bounds.
    """

    valid_kwargs = MirasolVideoProcessorKwargs
    model_input_names = ["pixel_values_videos", "video_mask"]
    _valid_processor_keys = ["videos"]

    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True
    do_sample_frames = True
    size = {"height": 64, "width": 64}
    num_frames = 8
    num_chunks = 8
    image_mean = [0.5, 0.5, 0.5]
    image_std = [0.5, 0.5, 0.5]

    def __init__(self, **kwargs: Any) -> None:
        refuse_unknown(type(self).__name__, kwargs, self.option_names())
        super().__init__(**kwargs)
        self._set_attributes(**kwargs)
        self._check_options()

    def _check_options(self) -> None:
        height, width = self._height_width({})
        values = {name: getattr(self, name) for name in _BOUNDS if hasattr(self, name)}
        check_numbers(type(self).__name__, {**values, "size.height": height, "size.width": width}, _BOUNDS)
        count = 3 * height * width * self.num_frames * self.num_chunks
        if count > _MOST_VALUES:
            raise ValueError(
                f"{type(self).__name__}: size, num_frames={self.num_frames} and num_chunks={self.num_chunks} make "
                f"{count} values of a clip; expected at most {_MOST_VALUES}"
            )
        if self.rescale_factor == 0:
            raise ValueError(f"{type(self).__name__}: rescale_factor=0 makes all pictures black; expected 1/255 or so")
        for name in ("do_resize", "do_rescale", "do_normalize", "do_sample_frames"):
            if not isinstance(getattr(self, name), (bool, type(None))):
                raise ValueError(
                    f"{type(self).__name__}: {name}={cut(repr(getattr(self, name)))} must be true or false"
                )
        for name in ("image_mean", "image_std"):
            value = getattr(self, name)
            if isinstance(value, (list, tuple)) and len(value) not in (1, 3):
                raise ValueError(f"{type(self).__name__}: {name}={cut(repr(value))} must be a number for each channel")

    @classmethod
    def option_names(cls) -> set[str]:
        """Names of what a video processor can be built of, and of what stands beside them in saved files."""
        return {*cls.valid_kwargs.__annotations__, *_SAVED_KEYS}

    def normalize_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """Scale and normalise pictures that already have the right size.

        Args:
            frames: uint8 `[..., H, W, 3]`.

        Returns:
            float32 `[..., 3, H, W]`, contiguous.

        Raises:
            ValueError: if the frames are not uint8 with three channels last.
        """
        if frames.dtype != torch.uint8 or frames.ndim < 3 or frames.shape[-1] != 3:
            raise ValueError(f"frames must be uint8 [..., H, W, 3], got {frames.dtype} {tuple(frames.shape)}")
        return self._scaled(frames, {})

    def read_chunks(
        self, clip: MediaFile | FramesClip, plan: ChunkPlan, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor, FloatArray] | None:
        """Pictures of one clip for a chunk plan.

        Args:
            clip: where the pictures come from.
            plan: the windows.
            kwargs: `size`, `do_resize`, `do_rescale`, `rescale_factor`, `do_normalize`, `image_mean`, `image_std`
                instead of the processor's own.

        Returns:
            float32 `[K, F, C, H, W]`, int64 mask `[K]` (chunks without a picture are all zero), and the float64
            `[K, F]` seconds at which the pictures are presented; None if no picture is on screen during the plan.
        """
        one_thread_after_fork()
        height, width = self._height_width(kwargs)
        source: Any = clip
        if source.in_memory:
            found = source.read_pictures(plan, height, width, bool(self._option("do_resize", kwargs)))
            if found is None:
                return None
            frames, times, present = found
        else:
            read = source.read_pictures(plan, height, width)
            if read is None:
                return None
            frames, times, present = torch.from_numpy(read[0]), read[1], read[2]
        mask = torch.from_numpy(present)
        pixels = self._scaled(frames, kwargs)
        pixels[~mask] = 0.0
        return pixels, mask.long(), times

    def preprocess(self, videos: Any, **kwargs: Any) -> BatchFeature:
        """Pictures of clips without their sound.

        Args:
            videos: see [`MirasolProcessor`].
            kwargs: those of the class, and `num_frames`, `fps`, `num_chunks` or `chunk_seconds`, `return_tensors` of
                the call. `fps` is the rate that frames in memory were taken at; where `video_metadata` (one entry for
                each clip) says that, it is the rate at which they are sampled. Without either they are taken as
                equally spaced.

        Returns:
            `pixel_values_videos` `[B, K, F, C, H, W]` and `video_mask` `[B, K]`.

        Raises:
            TypeError: for an unknown keyword.
            ValueError: if a clip has no pictures, or fewer frames in memory than `num_frames`.
        """
        one_thread_after_fork()
        refuse_unknown("MirasolVideoProcessor", kwargs, self.valid_kwargs.__annotations__)
        clips = split_videos(videos)
        rates = frame_rates(kwargs.get("video_metadata"), len(clips))
        read = [self._read_clip(f"videos[{i}]", clip, rates[i], kwargs) for i, clip in enumerate(clips)]
        data = {
            "pixel_values_videos": pad_chunks([pixels for pixels, _, _ in read]),
            "video_mask": pad_chunks([mask for _, mask, _ in read]),
        }
        return BatchFeature(data, tensor_type=kwargs.get("return_tensors"))

    def _read_clip(
        self, name: str, video: Any, rate: float | None, options: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor, FloatArray]:
        fps = options.get("fps")
        own = rate or fps or 1.0 / PICTURE_SECONDS
        clip = open_video(video, name, fps=own, timestamps=None, channels_first=None, limits=None, progress=None)
        wanted = options.get("num_frames")
        if isinstance(clip, FramesClip):
            fps = fps if rate else None
            if wanted is not None and wanted > len(clip.frames) and self._option("do_sample_frames", options):
                raise ValueError(f"num_frames={wanted}, but {name} has {len(clip.frames)} frames")
        try:
            plan = self.plan(clip, 0.0, clip.duration, options, fps)
            read = self.read_chunks(clip, plan, **options) if clip.has_video else None
        finally:
            if isinstance(clip, MediaFile):
                clip.close()
        if read is None:
            raise ValueError(f"{name} has no pictures")
        return read

    def plan(self, clip: Any, start: float, end: float, options: dict[str, Any], fps: float | None) -> ChunkPlan:
        """The windows and instants of a clip between two seconds, see `plan_request`.

        Args:
            clip: where the pictures come from; None or a file are always sampled.
            start, end: seconds.
            options: `num_frames`, `num_chunks`, `chunk_seconds` and `do_sample_frames` of a call.
            fps: rate at which the clip is sampled.
        """
        if isinstance(clip, FramesClip) and not self._option("do_sample_frames", options):
            count = int(((clip.times >= start) & (clip.times < end)).sum())
            chunks = max(1, math.ceil(count / self.num_frames))
            return plan_chunks(start, end, num_chunks=chunks, frames_per_chunk=self.num_frames)
        asked = {name: options.get(name) for name in ("num_frames", "num_chunks", "chunk_seconds")}
        return plan_request(start, end, self.num_frames, **asked, fps=fps, default=self.num_chunks)

    def sample_frames(
        self, metadata: Any, num_frames: int | None = None, fps: float | None = None, **kwargs: Any
    ) -> IntArray:
        """Which frames of a clip are used: those on screen at the centres of equal bins.

        Args:
            metadata: with `total_num_frames`, and `fps` where the clip is sampled at a rate.
            num_frames: how many; all by default.
            fps: frames per second, instead of `num_frames`.

        Returns:
            int64 indices, ascending.

        Raises:
            ValueError: if both are given, more frames are wanted than there are, or the clip's own rate is missing.
        """
        total = int(metadata.total_num_frames)
        if fps is not None:
            if num_frames is not None:
                raise ValueError(f"give num_frames or fps, not both: got num_frames={num_frames} and fps={fps}")
            if metadata.fps is None:
                raise ValueError(f"fps={fps} needs the rate of the clip: metadata.fps is None")
            num_frames = max(1, round(total / metadata.fps * fps))
        wanted = total if num_frames is None else num_frames
        if not 1 <= wanted <= total:
            raise ValueError(f"{wanted} frames are wanted of a clip of {total}")
        return np.floor((np.arange(wanted) + 0.5) / wanted * total).astype(np.int64)

    def _option(self, name: str, kwargs: dict[str, Any]) -> Any:
        value = kwargs.get(name)
        return getattr(self, name) if value is None else value

    def _height_width(self, kwargs: dict[str, Any]) -> tuple[int, int]:
        size = self._option("size", kwargs)
        if isinstance(size, int):
            return size, size
        size = dict(size)
        if size.get("height") is None or size.get("width") is None:
            raise ValueError(f"size must have height and width, got {size}")
        return size["height"], size["width"]

    def _scaled(self, frames: torch.Tensor, kwargs: dict[str, Any]) -> torch.Tensor:
        """Channels-last pictures in [0, 255] as channels-first float32 of the model's range."""
        pixels = frames.movedim(-1, -3).to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        factor = float(self._option("rescale_factor", kwargs)) if self._option("do_rescale", kwargs) else 1.0
        if not self._option("do_normalize", kwargs):
            return pixels.mul_(factor)
        mean = torch.as_tensor(self._option("image_mean", kwargs), dtype=torch.float32).view(-1, 1, 1)
        std = torch.as_tensor(self._option("image_std", kwargs), dtype=torch.float32).view(-1, 1, 1)
        return pixels.mul_(factor / std).sub_(mean / std)


def frame_rates(video_metadata: Any, count: int) -> list[float | None]:
    """Frames per second of each clip by the library's `video_metadata`; None where it does not say.

    Raises:
        ValueError: if there is not one entry for each clip.
    """
    if video_metadata is None:
        return [None] * count
    entries = video_metadata if isinstance(video_metadata, (list, tuple)) else [video_metadata]
    entries = [entry[0] if isinstance(entry, (list, tuple)) and len(entry) == 1 else entry for entry in entries]
    if len(entries) != count:
        raise ValueError(f"video_metadata has {len(entries)} entries for {count} clips")
    return [entry.get("fps") if isinstance(entry, dict) else getattr(entry, "fps", None) for entry in entries]


def pad_chunks(rows: list[torch.Tensor]) -> torch.Tensor:
    """Stack tensors `[K_i, ...]` into `[B, max K, ...]` with zeros at the end of the short ones.

    Raises:
        ValueError: if the rows differ in more than their number of chunks.
    """
    shapes = {tuple(row.shape[1:]) for row in rows}
    if len(shapes) > 1:
        raise ValueError(f"the clips of one batch give chunks of different shapes: {sorted(shapes)}")
    longest = max(row.shape[0] for row in rows)
    out = rows[0].new_zeros(len(rows), longest, *rows[0].shape[1:])
    for target, row in zip(out, rows, strict=True):
        target[: row.shape[0]] = row
    return out
