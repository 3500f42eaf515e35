"""Power spectra of a chunk too long to be held: what its sound has given so far.

Legend: S steps per chunk.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

# Short frames analysed at once: bounds the memory for long clips without changing any number.
FRAMES_PER_BLOCK = 8192
# Samples that are gathered before their short frames are analysed.
_GATHERED = 2**20


class StepPower:
    """Sums up the power spectra of the short frames of one chunk while its sound comes, in order.

    Time without sound adds nothing and costs nothing; of the sound only what later frames still see is held.

    Args:
        length: samples of the chunk.
        num_steps: S.
        count: short frames of each step.
        win_length: samples of the window.
        n_fft: points of the Fourier transform.
    """

    def __init__(self, length: int, num_steps: int, count: int, win_length: int, n_fft: int) -> None:
        self.length, self.count, self.frames = length, count, num_steps * count
        self.win_length, self.n_fft = win_length, n_fft
        self.sums = torch.zeros(num_steps, 2 * (n_fft // 2 + 1), dtype=torch.float64)
        self.next_frame = 0
        self.place = self.end = -win_length  # where the held samples begin and end, counted from the chunk's first
        self.held: list[torch.Tensor] = []

    def add(self, position: int, samples: torch.Tensor) -> None:
        """Take the next samples; `position` counts from the first of the chunk."""
        gap = position - self.end
        self._hold(torch.zeros(min(gap, self.win_length)))
        if gap > self.win_length:
            self._measure()
            # Silent frames in between are passed over, but for a few that see the zeros in front of the samples.
            self.place = self.end = position - self.win_length
            self.held = []
            self._hold(torch.zeros(self.win_length))
            first = (self.place + self.win_length // 2) / self.length * self.frames
            self.next_frame = max(self.next_frame, int(first) - 1)
        self._hold(samples)
        if self.end - self.place >= _GATHERED:
            self._measure()

    def finish(self) -> torch.Tensor:
        """Mean power spectrum of each step, float64 `[1, S, n_fft // 2 + 1]`."""
        self._hold(torch.zeros(self.win_length))
        self._measure()
        return (self.sums / self.count).unflatten(-1, (-1, 2)).sum(-1)[None]

    def _hold(self, samples: torch.Tensor) -> None:
        self.held.append(samples)
        self.end += len(samples)

    def _measure(self) -> None:
        """Analyse all short frames that end within what is held."""
        wave = torch.cat(self.held)
        last = len(wave) - self.win_length
        while self.next_frame < self.frames:
            block = np.arange(self.next_frame, min(self.next_frame + FRAMES_PER_BLOCK, self.frames))
            starts = frame_centres(block, self.frames, self.length) - self.win_length // 2 - self.place
            ready = int(np.searchsorted(starts, last, side="right"))
            if ready == 0:
                break
            squares = squared_spectra(wave, starts[:ready].clip(min=0), self.win_length, self.n_fft)
            for step in range(self.next_frame // self.count, (self.next_frame + ready - 1) // self.count + 1):
                rows = slice(max(0, step * self.count - self.next_frame), (step + 1) * self.count - self.next_frame)
                self.sums[step] += squares[rows].sum(0, dtype=torch.float64)
            self.next_frame += ready
        if last > 0:
            self.held, self.place = [wave[last:].clone()], self.place + last
        else:
            self.held = [wave]


def frame_centres(frames: npt.NDArray[np.int64], count: int, lengths: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Sample at the centre of short frames, of which `count` lie evenly in a chunk of so many samples."""
    return ((frames + 0.5) / count * np.asarray(lengths)).astype(np.int64)


def squared_spectra(wave: torch.Tensor, starts: npt.NDArray[np.int64], win_length: int, n_fft: int) -> torch.Tensor:
    """Squares `[n, 2 * (n_fft // 2 + 1)]` of real and imaginary parts of the spectra of frames that begin there."""
    short = wave.unfold(0, win_length, 1)[torch.from_numpy(starts)]
    spectrum = torch.view_as_real(torch.fft.rfft(short * _hann_window(win_length), n=n_fft)).flatten(1)
    return spectrum.square_()


@lru_cache(maxsize=8)
def _hann_window(length: int) -> torch.Tensor:
    """Hann window scaled so that a full-scale sine has power 1 in its bin."""
    window = torch.hann_window(length, periodic=True, dtype=torch.float64)
    return (window * 2.0 / window.sum()).float()
