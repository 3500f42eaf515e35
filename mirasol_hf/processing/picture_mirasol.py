"""One decoded frame as a player shows it: both fields of one moment, upright, in RGB.

Legend: H, W image.
"""

from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import Interpolation

Pictures = npt.NDArray[np.uint8]
# The type stubs of PyAV do not know its argument, the frame.
_side_data_of: Any = SideDataContainer

# FFmpeg's number for a color space, transfer function or primaries that nobody has named.
_UNSPECIFIED = 2


def orientation(frame: Any) -> tuple[int, bool]:
    """How a player turns the stored picture.

    Returns:
        Clockwise degrees (0, 90, 180 or 270) to turn it by, after mirroring it left to right if the flag is set.
        Angles between are snapped to the nearest quarter; a matrix that cannot be inverted turns nothing.
    """
    try:
        # Not `frame.side_data`: that refers back to the frame, whose memory then waits for the garbage collector.
        matrix = next((bytes(side) for side in _side_data_of(frame) if side.type.name == "DISPLAYMATRIX"), None)
    except ValueError:
        # Beside the matrix lies something that PyAV has no name for (the EXIF data of a JPEG).
        return round(-frame.rotation / 90.0) % 4 * 90, False
    if matrix is None or len(matrix) < 36:
        return 0, False
    a, b, _, c, d = np.frombuffer(matrix, dtype=np.int32)[:5].astype(np.float64) / 65536.0
    determinant = a * d - b * c
    if abs(determinant) < 1e-6:
        return 0, False
    mirrored = bool(determinant < 0)
    # Mirroring first negates the first row of the matrix; what is left is a rotation.
    across, down = (-a, -b) if mirrored else (a, b)
    return round(np.degrees(np.arctan2(down, across)) / 90.0) % 4 * 90, mirrored


def one_field(frame: Any) -> Any:
    """The frame without the lines of its second field, which show a later moment; they are interpolated along edges.

    A frame that is not interlaced, or that FFmpeg's `estdif` does not take, stays as it is.
    """
    if not frame.interlaced_frame or frame.height < 4:
        return frame
    graph = Graph()
    graph.threads = 1
    # Nothing here depends on time, but a graph does not go without.
    tick = frame.time_base or Fraction(1, 1000)
    try:
        source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=tick)
        field = graph.add("estdif", "mode=frame:deint=interlaced")
        sink = graph.add("buffersink")
        source.link_to(field)
        field.link_to(sink)
        graph.configure()
        graph.push(frame)
        graph.push(None)
        return graph.pull()
    except (av.FFmpegError, ValueError, EOFError):
        return frame


def rgb_picture(frame: Any, height: int, width: int) -> Pictures:
    """The frame as a player shows it, uint8 `[H, W, 3]`; the whole picture is resized, nothing is cropped."""
    turn, mirrored = orientation(frame)
    rows, columns = (width, height) if turn % 180 else (height, width)
    frame = one_field(frame)
    try:
        rgb = _scaled(frame, rows, columns)
    except av.FFmpegError:
        # The scaler refuses colours described in a way that it does not know; here they are as good as not described.
        frame.colorspace = frame.color_trc = frame.color_primaries = _UNSPECIFIED
        rgb = _scaled(frame, rows, columns)
    if mirrored:
        rgb = rgb[:, ::-1]
    return np.ascontiguousarray(np.rot90(rgb, k=-turn // 90))


def _scaled(frame: Any, rows: int, columns: int) -> Pictures:
    """The frame in RGB; one thread and exact rounding give the same pixels on every machine and in every worker."""
    interpolation = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
    scaled = frame.reformat(width=columns, height=rows, format="rgb24", interpolation=interpolation, threads=1)
    return scaled.to_ndarray()
