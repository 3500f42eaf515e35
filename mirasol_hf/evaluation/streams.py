"""Take one stream out of a media file without decoding it."""

from __future__ import annotations

from pathlib import Path

import av


def copy_stream(source: Path, target: Path, kind: str) -> None:
    """Write a file that holds only the first stream of `kind` ("video" or "audio") of `source`, packets unchanged.

    Raises:
        ValueError: if `source` has no such stream.
    """
    with av.open(str(source)) as whole:
        stream = next((entry for entry in whole.streams if entry.type == kind), None)
        if stream is None:
            raise ValueError(f"{source} has no {kind} stream")
        with av.open(str(target), "w", format="mp4") as single:
            copied = single.add_stream_from_template(stream)
            for packet in whole.demux(stream):
                # The demuxer ends with an empty packet that no file can hold.
                if packet.dts is not None:
                    packet.stream = copied
                    single.mux(packet)
