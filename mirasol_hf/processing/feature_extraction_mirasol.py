"""Log-mel features of the sound in each chunk.

Legend: B batch, K chunks, S steps per chunk, M mel bins.

A chunk of any duration becomes exactly S steps: step s covers the s-th S-th of the window, and its value is the mean
mel *power* of the short frames whose centres lie in it, then in dB. A chunk sees its own samples only (zeros stand
outside), so features do not depend on what is read before or after.
"""

import inspect
import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.audio_utils import mel_filter_bank
from transformers.feature_extraction_sequence_utils import SequenceFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.processing_utils import AudioKwargs

from .chunk_plan_mirasol import plan_chunks, sample_ranges
from .forked_mirasol import one_thread_after_fork
from .keywords_mirasol import refuse_unknown
from .processor_part_mirasol import ProcessorPartMixin
from .saved_options_mirasol import check_numbers
from .step_power_mirasol import FRAMES_PER_BLOCK, StepPower, frame_centres, squared_spectra

# options of the base class, and what the library writes into saved files beside the options
_SAVED_KEYS = {"auto_map", "feature_extractor_type", "padding_side", "processor_class", "return_attention_mask"}

# smallest and largest value of each option, far beyond any real one
_BOUNDS = {
    "sampling_rate": (1, 384_000),
    "num_mel_bins": (1, 1024),
    "num_steps": (1, 16_384),
    "n_fft": (2, 8192),
    "win_length": (1, 8192),
    "max_hop_seconds": (1e-3, 10.0),
    "mel_floor": (1e-30, 1.0),
    "min_frequency": (0.0, 192_000.0),
    "max_frequency": (1e-3, 192_000.0),
    "db_offset": (-1e4, 1e4),
    "db_scale": (1e-4, 1e4),
    "padding_value": (-1e4, 1e4),
}


class MirasolFeatureExtractor(ProcessorPartMixin, SequenceFeatureExtractor):
    """Turn waveforms and chunk windows into log-mel features.

    Args:
        sampling_rate: samples per second of every waveform given.
        num_mel_bins: M.
        num_steps: S, steps per chunk.
        n_fft: points of the Fourier transform.
        win_length: samples of the Hann window (400 = 25 ms at 16 kHz); at most `n_fft`.
        max_hop_seconds: largest distance between two short frames.
        mel_floor: smallest power, 1e-8 = -80 dB of a full-scale sine.
        min_frequency: lower edge of the lowest mel bin, Hz.
        max_frequency: upper edge of the highest mel bin, Hz.
        db_offset: added to the decibels before scaling.
        db_scale: divides the shifted decibels; with 40 and 40, -80 dB .. 0 dB become -1 .. 1.

    Raises:
        TypeError: for an unknown keyword.
        ValueError: for a value out of its bounds, or a window longer than the Fourier transform.
    """

    model_input_names = ["input_features", "audio_mask"]

    def __init__(
        self,
        sampling_rate: int = 16000,
        num_mel_bins: int = 64,
        num_steps: int = 32,
        n_fft: int = 512,
        win_length: int = 400,
        max_hop_seconds: float = 0.01,
        mel_floor: float = 1e-8,
        min_frequency: float = 0.0,
        max_frequency: float = 8000.0,
        db_offset: float = 40.0,
        db_scale: float = 40.0,
        padding_value: float = 0.0,
        **kwargs: object,
    ) -> None:
        kwargs.pop("feature_size", None)
        refuse_unknown(type(self).__name__, kwargs, self.option_names())
        super().__init__(feature_size=num_mel_bins, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)
        self.num_mel_bins = num_mel_bins
        self.num_steps = num_steps
        self.n_fft = n_fft
        self.win_length = win_length
        self.max_hop_seconds = max_hop_seconds
        self.mel_floor = mel_floor
        self.min_frequency = min_frequency
        self.max_frequency = max_frequency
        self.db_offset = db_offset
        self.db_scale = db_scale
        check_numbers(type(self).__name__, vars(self), _BOUNDS)
        if win_length > n_fft:
            raise ValueError(f"win_length={win_length} must not exceed n_fft={n_fft}")
        if min_frequency >= max_frequency:
            raise ValueError(f"min_frequency={min_frequency} must be below max_frequency={max_frequency}")

    @classmethod
    def option_names(cls) -> set[str]:
        """Names of what a feature extractor can be built of, and of what stands beside them in saved files."""
        return (set(inspect.signature(cls).parameters) - {"kwargs"}) | _SAVED_KEYS | {"feature_size"}

    def extract_chunks(
        self, waveform: torch.Tensor | npt.NDArray[np.float32], windows: npt.ArrayLike, origin: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of the chunks of one waveform.

        Args:
            waveform: float32 `[n]`, mono, at `sampling_rate`.
            windows: float64 `[K, 2]` seconds.
            origin: the second at which `waveform[0]` sounds.

        Returns:
            `features` float32 `[K, S, M]` and `mask` int64 `[K]`, 0 where a window holds no sample of the waveform
            (its features are 0).

        Raises:
            ValueError: if the waveform is not one-dimensional or the windows are not `[K, 2]`.
        """
        one_thread_after_fork()
        wave = torch.as_tensor(waveform, dtype=torch.float32)
        if wave.ndim != 1:
            raise ValueError(f"waveform must be one-dimensional (mono), got shape {tuple(wave.shape)}")
        windows = np.asarray(windows, dtype=np.float64)
        if windows.ndim != 2 or windows.shape[1] != 2:
            raise ValueError(f"windows must have shape [K, 2], got {windows.shape}")
        ranges = sample_ranges(windows, self.sampling_rate) - round(origin * self.sampling_rate)
        features = torch.zeros(len(ranges), self.num_steps, self.num_mel_bins)
        mask = torch.zeros(len(ranges), dtype=torch.int64)
        for first, last in self._blocks(ranges):
            real = (np.minimum(ranges[first:last, 1], len(wave)) - np.maximum(ranges[first:last, 0], 0)) > 0
            rows = np.flatnonzero(real) + first
            if len(rows):
                features[rows] = self._log_mel(wave, ranges[rows])
                mask[rows] = 1
        return features, mask

    def extract_pieces(
        self, pieces: Iterable[tuple[int, npt.NDArray[np.float32]]], window: Sequence[float] | npt.NDArray[np.float64]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of one chunk whose sound comes in pieces; time between them is silent and needs no memory.

        Args:
            pieces: in order and without overlap, the position of the first sample, counted from second 0, and float32
                `[n]` at `sampling_rate`.
            window: first and last second of the chunk.

        Returns:
            `features` float32 `[1, S, M]` and `mask` int64 `[1]`, as of `extract_chunks`.
        """
        one_thread_after_fork()
        begin, end = sample_ranges(np.asarray(window)[None], self.sampling_rate)[0].tolist()
        power = self._power_of_pieces(pieces, begin, end)
        if power is None:
            return torch.zeros(1, self.num_steps, self.num_mel_bins), torch.zeros(1, dtype=torch.int64)
        return self._decibels(power), torch.ones(1, dtype=torch.int64)

    def __call__(
        self,
        raw_speech: Any,
        sampling_rate: int | None = None,
        num_chunks: int = 8,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Features of whole waveforms, each cut into the same number of equal chunks.

        Args:
            raw_speech: one mono waveform `[n]`, or a list of them.
            sampling_rate: their samples per second; must be that of the extractor.
            num_chunks: K.
            return_tensors: `"pt"`, `"np"` or None.
            kwargs: `padding`, `truncation` and others of the common interface, without effect on features of fixed
                size.

        Returns:
            `input_features` `[B, K, S, M]` and `audio_mask` `[B, K]`.

        Raises:
            ValueError: if a waveform is not mono, empty or not finite, or its rate is another one.
            TypeError: for an unknown keyword.
        """
        one_thread_after_fork()
        refuse_unknown("MirasolFeatureExtractor", kwargs, {*AudioKwargs.__annotations__, "num_chunks"})
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(f"sampling_rate={sampling_rate}, but this extractor works at {self.sampling_rate}")
        batch = isinstance(raw_speech, (list, tuple)) and not isinstance(raw_speech[0], (int, float))
        waves = [check_waveform(wave) for wave in (raw_speech if batch else [raw_speech])]
        parts = []
        for wave in waves:
            plan = plan_chunks(0.0, len(wave) / self.sampling_rate, num_chunks=num_chunks, frames_per_chunk=1)
            parts.append(self.extract_chunks(wave, plan.windows))
        data = {
            "input_features": torch.stack([features for features, _ in parts]),
            "audio_mask": torch.stack([mask for _, mask in parts]),
        }
        return BatchFeature(data, tensor_type=return_tensors)

    def _frames_per_step(self, samples: int) -> int:
        """Short frames per step, so that they are at most `max_hop_seconds` apart in a chunk of `samples`."""
        step = samples / self.num_steps
        return max(1, math.ceil(step / (self.max_hop_seconds * self.sampling_rate) - 1e-9))

    def _blocks(self, ranges: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
        """Runs of chunks whose short frames fit into one block; at least one chunk each."""
        longest = int((ranges[:, 1] - ranges[:, 0]).max(initial=1))
        size = max(1, FRAMES_PER_BLOCK // (self._frames_per_step(longest) * self.num_steps))
        return [(k, min(k + size, len(ranges))) for k in range(0, len(ranges), size)]

    def _log_mel(self, wave: torch.Tensor, ranges: npt.NDArray[np.int64]) -> torch.Tensor:
        """Scaled log-mel `[k, S, M]` of the chunks whose sample ranges are given."""
        lengths = ranges[:, 1] - ranges[:, 0]
        if len(ranges) == 1 and self._frames_per_step(int(lengths[0])) * self.num_steps > FRAMES_PER_BLOCK:
            power = self._power_of_pieces([(0, wave)], int(ranges[0, 0]), int(ranges[0, 1]))
            assert power is not None
        else:
            power = self._power_of_chunks(wave, ranges, lengths)
        return self._decibels(power)

    def _decibels(self, power: torch.Tensor) -> torch.Tensor:
        """Scaled log-mel `[k, S, M]` of power spectra."""
        mel = power @ _mel_filters(
            self.n_fft, self.num_mel_bins, self.min_frequency, self.max_frequency, self.sampling_rate
        )
        decibels = 10.0 * torch.log10(mel.clamp_min(self.mel_floor))
        return ((decibels + self.db_offset) / self.db_scale).float()

    def _power_of_chunks(
        self, wave: torch.Tensor, ranges: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
    ) -> torch.Tensor:
        """Mean power spectrum per step, float64 `[k, S, n_fft // 2 + 1]`."""
        half = self.win_length // 2
        stride = int(lengths.max()) + 2 * half
        # Each chunk lies alone in its row, half a window of zeros on either side: neighbours cannot leak in.
        rows = torch.zeros(len(ranges), stride)
        for row, (begin, end) in zip(rows, ranges.tolist(), strict=True):
            low, high = max(begin, 0), min(end, len(wave))
            row[half + low - begin : half + high - begin] = wave[low:high]
        # The count of short frames follows the length of each chunk alone, never that of its neighbours.
        counts = np.array([self._frames_per_step(int(n)) for n in lengths])
        power = torch.empty(len(ranges), self.num_steps, self.n_fft // 2 + 1, dtype=torch.float64)
        for count in np.unique(counts):
            chosen = np.flatnonzero(counts == count)
            starts = self._starts(lengths[chosen], int(count)) + chosen[:, None, None] * stride
            power[chosen] = self._power_of_steps(rows.flatten(), starts)
        return power

    def _power_of_pieces(self, pieces: Iterable[tuple[int, Any]], begin: int, end: int) -> torch.Tensor | None:
        """As `_power_of_chunks` for one chunk whose sound comes in pieces; None if no sample lies in it."""
        length, wave, heard = end - begin, torch.zeros(0), False
        count = self._frames_per_step(length)
        steps = StepPower(length, self.num_steps, count, self.win_length, self.n_fft)
        is_short = count * self.num_steps <= FRAMES_PER_BLOCK
        if is_short:
            wave = torch.zeros(length)
        for position, samples in pieces:
            part = torch.as_tensor(samples[max(0, begin - position) : max(0, end - position)])
            first = max(0, position - begin)
            heard = heard or len(part) > 0
            if is_short:
                wave[first : first + len(part)] = part
            elif len(part):
                steps.add(first, part)
        if not heard:
            return None
        return self._power_of_chunks(wave, np.array([[0, length]]), np.array([length])) if is_short else steps.finish()

    def _starts(self, lengths: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
        """First samples `[k, S, count]` of short frames in rows that begin half a window before their chunk."""
        frames = count * self.num_steps
        centres = frame_centres(np.arange(frames), frames, lengths[:, None])
        return centres.reshape(len(lengths), self.num_steps, count)

    def _power_of_steps(self, wave: torch.Tensor, starts: npt.NDArray[np.int64]) -> torch.Tensor:
        """Mean power spectrum float64 `[k, s, n_fft // 2 + 1]` of short frames that begin at `starts` `[k, s, n]`."""
        squares = squared_spectra(wave, starts.reshape(-1), self.win_length, self.n_fft)
        # Squares of real and imaginary parts are averaged first and added last: one pass less over the large tensor.
        return squares.view(*starts.shape, -1).mean(2).unflatten(-1, (-1, 2)).sum(-1).double()


def check_waveform(waveform: Any, name: str = "audio") -> npt.NDArray[np.float32]:
    """A mono waveform as float32 in [-1, 1].

    Args:
        waveform: numbers, array or tensor `[n]`; whole numbers are scaled by the range of their type.
        name: how the error calls it.

    Raises:
        ValueError: if it has another rank, is empty, or holds NaN or infinity.
    """
    values = waveform.detach().cpu().numpy() if isinstance(waveform, torch.Tensor) else np.asarray(waveform)
    if values.ndim != 1:
        raise ValueError(f"{name} must be a mono waveform of shape [samples], got shape {values.shape}")
    if len(values) == 0:
        raise ValueError(f"{name} is empty")
    if values.dtype.kind in "iu" and isinstance(waveform, (np.ndarray, torch.Tensor)):
        half = float(np.iinfo(values.dtype).max // 2 + 1) if values.dtype.kind == "u" else 0.0
        values = (values - half) / (half or -float(np.iinfo(values.dtype).min))
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{name} must hold numbers, got {values.dtype}")
    values = values.astype(np.float32)
    if not bool(np.isfinite(values).all()):
        raise ValueError(f"{name} holds NaN or infinite samples")
    return np.ascontiguousarray(values)


@lru_cache(maxsize=8)
def _mel_filters(n_fft: int, bins: int, low: float, high: float, rate: int) -> torch.Tensor:
    """Triangular mel filters of peak 1, float64 `[n_fft // 2 + 1, M]`."""
    filters = mel_filter_bank(
        num_frequency_bins=n_fft // 2 + 1,
        num_mel_filters=bins,
        min_frequency=low,
        max_frequency=high,
        sampling_rate=rate,
        norm=None,
        mel_scale="slaney",
    )
    return torch.from_numpy(np.asarray(filters, dtype=np.float64))
