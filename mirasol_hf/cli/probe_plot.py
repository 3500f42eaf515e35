"""`mirasol probe --plot`: what the model would be shown, drawn on one time axis."""

from pathlib import Path
from typing import Any

import numpy as np

from mirasol_hf.cli.plot_file import check_plot_file
from mirasol_hf.processing.chunk_plan_mirasol import ChunkPlan, plan_chunks
from mirasol_hf.processing.feature_extraction_mirasol import MirasolFeatureExtractor
from mirasol_hf.processing.media_mirasol import MediaFile, probe_media

_CHUNKS = 8
_WIDTH = 14.0
_THUMBNAIL = 192
_SPECTRUM_STEPS = 128
_SPECTRUM_BINS = 64


def check_plot(path: Path, frames: int) -> None:
    """Fails before the files are read rather than after.

    Raises:
        ValueError: as `check_plot_file`, or for a number of frames that is no multiple of the chunks.
    """
    check_plot_file(path)
    if frames < 1 or frames % _CHUNKS:
        raise ValueError(f"--frames {frames} must be a positive multiple of {_CHUNKS}")


def draw(files: list[str], path: Path, frames: int = 16) -> None:
    """Draws each file as a contact sheet of the sampled frames over the log-mel spectrogram of its sound.

    Both have the same axis: seconds from the start of the file's earliest stream. Each picture covers the span that it
    stands for; its title is when it is presented. Lines mark the chunks.

    Args:
        files: what is drawn, one below the other.
        path: the PNG.
        frames: pictures of each file, a multiple of eight.
    """
    from matplotlib.figure import Figure

    clips = [_Clip(file, frames) for file in files]
    heights = [height for clip in clips for height in (clip.sheet_height, 1.6)]
    figure = Figure(figsize=(_WIDTH, sum(heights) + 1.1 * len(clips)), layout="constrained")
    axes = figure.subplots(2 * len(clips), 1, height_ratios=heights, squeeze=False)[:, 0]
    for clip, sheet, spectrogram in zip(clips, axes[0::2], axes[1::2], strict=True):
        _draw_sheet(sheet, clip)
        _draw_spectrogram(spectrogram, clip)
        for axis in (sheet, spectrogram):
            axis.set_xlim(0.0, clip.duration)
            for edge in clip.plan.windows[1:, 0]:
                axis.axvline(edge, color="black", linewidth=0.8, linestyle=":")
    figure.savefig(path, dpi=110)


class _Clip:
    """One file, sampled and analysed.

    Attributes:
        plan: K chunks of F frames.
        pictures: uint8 `[K, F, H, W, 3]` with the bool mask `[K]` and the times `[K, F]`, or None.
        spectrum: decibels `[K·S, M]`, NaN where there is no sound, or None.
    """

    def __init__(self, file: str, frames: int) -> None:
        self.name = Path(file).name
        video = probe_media(file)["video"]
        self.ratio = video["height"] / video["width"] if video is not None else 0.5
        with MediaFile(file) as media:
            self.duration = media.duration
            self.plan: ChunkPlan = plan_chunks(
                0.0, media.duration, num_chunks=_CHUNKS, frames_per_chunk=frames // _CHUNKS
            )
            height = max(2, round(_THUMBNAIL * self.ratio))
            self.pictures = media.read_pictures(self.plan, height, _THUMBNAIL) if media.has_video else None
            self.spectrum = self._spectrum(media) if media.has_audio else None
            media.warn()

    @property
    def sheet_height(self) -> float:
        """Inches that keep the pictures in proportion."""
        return float(np.clip(0.92 * _WIDTH / self.plan.frame_times.size * self.ratio, 0.4, 4.0))

    def _spectrum(self, media: MediaFile) -> np.ndarray[Any, Any]:
        extractor = MirasolFeatureExtractor(num_mel_bins=_SPECTRUM_BINS, num_steps=_SPECTRUM_STEPS)
        parts = []
        for window, pieces in zip(
            self.plan.windows, media.read_sound(self.plan, extractor.sampling_rate), strict=True
        ):
            features, mask = extractor.extract_pieces(pieces, window)
            decibels = features[0].numpy() * extractor.db_scale - extractor.db_offset
            parts.append(decibels if bool(mask[0]) else np.full_like(decibels, np.nan))
        return np.concatenate(parts)


def _draw_sheet(axis: Any, clip: _Clip) -> None:
    axis.set_title(f"{clip.name}, {clip.duration:.2f} s", loc="left", pad=18)
    axis.set(yticks=[], ylim=(0.0, 1.0))
    axis.tick_params(labelbottom=False)
    if clip.pictures is None:
        axis.text(0.5, 0.5, "no pictures", transform=axis.transAxes, ha="center", va="center")
        return
    frames, times, mask = clip.pictures
    span = clip.duration / clip.plan.frame_times.size
    for k, f in np.ndindex(*times.shape):
        left = clip.plan.windows[k, 0] + f * span
        if mask[k]:
            axis.imshow(frames[k, f], extent=(left, left + span, 0.0, 1.0), aspect="auto")
            axis.text(left + span / 2, 1.02, f"{times[k, f]:.2f}", ha="center", va="bottom", fontsize=7)


def _draw_spectrogram(axis: Any, clip: _Clip) -> None:
    axis.set_xlabel("seconds")
    if clip.spectrum is None or bool(np.isnan(clip.spectrum).all()):
        axis.set(yticks=[], ylim=(0.0, 1.0))
        axis.text(0.5, 0.5, "no sound", transform=axis.transAxes, ha="center", va="center")
        return
    loudest = float(np.nanmax(clip.spectrum))
    extent = (0.0, clip.duration, 0.0, _SPECTRUM_BINS)
    limits = {"vmin": max(loudest - 80.0, float(np.nanmin(clip.spectrum))), "vmax": loudest}
    axis.imshow(clip.spectrum.T, extent=extent, origin="lower", aspect="auto", cmap="magma", **limits)
    axis.set_ylabel("mel bin")
