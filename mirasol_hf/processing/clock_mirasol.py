"""One clock without jumps for containers whose time stamps may start anew.

MPEG streams and Ogg files are often joined end to end, and broadcasts restart their clock; each part then counts from
a time of its own. A player lets the parts follow each other, and so do these classes: from where the time stamps jump,
they are shifted so that the new part begins where the old one ended. Formats that tell the time of each sample in a
table (mp4, Matroska) mean what they say and are left alone.
"""

from collections import defaultdict
from typing import Any, Protocol

from av.format import Flags

# FFmpeg's own program takes ten seconds ahead for a jump (option `dts_delta_threshold`).
_AHEAD_SECONDS = 10.0
_BACK_SECONDS = 1.0

# From the packet of that number (of its stream) on, seconds to add to the time stamps.
Shifts = list[tuple[int, float]]


class Clock(Protocol):
    """What puts packets of a container on one clock."""

    def set(self, packet: Any) -> None:
        """Shift the time stamps of the packet, in place. Every packet of a stream must come, in file order."""


class ContinuousClock:
    """Finds jumps while the packets of all streams come, and takes them out.

    Args:
        container: `av.container.InputContainer`; only formats that FFmpeg marks as discontinuous are shifted.

    Attributes:
        shifts: for each stream index where it is shifted and by how much, for a [`KnownClock`].
    """

    def __init__(self, container: Any) -> None:
        self.shifts: defaultdict[int, Shifts] = defaultdict(list)
        self._watches = bool(Flags(container.format.flags) & Flags.ts_discont)
        self._parts = [0.0]  # what is added in each part between two jumps
        self._part: defaultdict[int, int] = defaultdict(int)  # the part that each stream is in
        self._ends: dict[int, float] = {}
        self._seen: defaultdict[int, int] = defaultdict(int)

    @property
    def jumped(self) -> bool:
        """Whether the time stamps have jumped so far."""
        return len(self._parts) > 1

    def set(self, packet: Any) -> None:
        """Shift the time stamps of the packet, in place."""
        if not self._watches:
            return
        stream = packet.stream_index
        number = self._seen[stream]
        self._seen[stream] += 1
        # Where FFmpeg works decoding times out itself, those at a jump belong to neither part.
        ticks = packet.pts if packet.pts is not None else packet.dts
        if ticks is None:
            return
        tick = float(packet.time_base)
        part = self._find_part(stream, ticks * tick)
        if part != self._part[stream]:
            self._part[stream] = part
            self.shifts[stream].append((number, self._parts[part]))
        shift = self._parts[part]
        end = (ticks + max(packet.duration or 0, 0)) * tick + shift
        self._ends[stream] = max(self._ends.get(stream, end), end)
        _shift(packet, shift)

    def _find_part(self, stream: int, second: float) -> int:
        """The part in which this time follows what came before: the present one, another, or a new one."""
        present = self._part[stream]
        if stream not in self._ends:
            return present
        for part in (present, *reversed(range(len(self._parts)))):
            if -_BACK_SECONDS <= second + self._parts[part] - self._ends[stream] <= _AHEAD_SECONDS:
                return part
        # The new part begins when all that came before has ended; streams that jump with this one share its shift.
        self._parts.append(max(self._ends.values()) - second)
        return len(self._parts) - 1


class KnownClock:
    """Repeats for one stream, read again from its first packet, what a [`ContinuousClock`] has found.

    Args:
        shifts: its `shifts` of that stream.
    """

    def __init__(self, shifts: Shifts) -> None:
        self._shifts = shifts
        self._place = self._seen = 0
        self._shift = 0.0

    def set(self, packet: Any) -> None:
        """Shift the time stamps of the packet, in place."""
        if not self._shifts:
            return
        while self._place < len(self._shifts) and self._shifts[self._place][0] <= self._seen:
            self._shift = self._shifts[self._place][1]
            self._place += 1
        self._seen += 1
        _shift(packet, self._shift)


def _shift(packet: Any, seconds: float) -> None:
    if seconds == 0.0:
        return
    ticks = round(seconds / packet.time_base)
    if packet.pts is not None:
        packet.pts += ticks
    if packet.dts is not None:
        packet.dts += ticks
