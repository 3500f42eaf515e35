"""`mirasol bench decode`: what it costs to get pictures and sound out of short and long files.

Each way of reading (see `decode_worker`) runs in a fresh process on files that are made for it (see `decode_media`)
and lie in the disk cache.
"""

import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirasol_hf.cli.decode_media import FileKind, make_file
from mirasol_hf.cli.timing import environment

METHODS = ("mirasol", "floor", "everything", "transformers")
FRAMES_PER_CHUNK = 8
_BLOCK = 2**24

Row = dict[str, Any]


@dataclass(frozen=True)
class DecodeBench:
    """What to measure: every combination of what is listed.

    Args:
        folder: where the files are kept between runs.
        seconds: durations of the files.
        heights: rows of their pictures.
        codecs: `"h264"`, `"vp9"`.
        intervals: `"short"`, `"long"` key frame intervals.
        methods: ways of reading.
        frames: pictures to get, a multiple of eight.
        size: rows and columns that pictures are resized to.
        part: seconds of film after which a way that decodes everything is stopped, and its time for the whole
            computed; 0 measures the whole.
        repeat: processes per figure; the median of the seconds is kept.
        threads: of the video decoder; 0 takes one per core, at most eight.
    """

    folder: Path
    seconds: tuple[int, ...] = (10, 600, 3600)
    heights: tuple[int, ...] = (480, 1080)
    codecs: tuple[str, ...] = ("h264", "vp9")
    intervals: tuple[str, ...] = ("short", "long")
    methods: tuple[str, ...] = METHODS
    frames: int = 128
    size: int = 224
    part: int = 0
    repeat: int = 1
    threads: int = 0

    def __post_init__(self) -> None:
        for method in self.methods:
            if method not in METHODS:
                raise ValueError(f"--methods {method!r} must be among {', '.join(METHODS)}")
        for option, value in (("--frames", self.frames), ("--size", self.size), ("--repeat", self.repeat)):
            if value < 1:
                raise ValueError(f"{option} {value} must be at least 1")
        if self.frames % FRAMES_PER_CHUNK:
            raise ValueError(f"--frames {self.frames} must be a multiple of {FRAMES_PER_CHUNK}")
        if self.part < 0 or self.threads < 0:
            raise ValueError(f"--part {self.part} and --threads {self.threads} must not be negative")
        if not list(self.kinds()) or not self.methods:
            raise ValueError("nothing to measure: an option lists nothing")

    def kinds(self) -> Iterator[FileKind]:
        """The files, those that differ in length alone behind each other."""
        for codec, height, interval, seconds in itertools.product(
            self.codecs, self.heights, self.intervals, sorted(self.seconds)
        ):
            yield FileKind(seconds, height, codec, interval)

    @property
    def decoder_threads(self) -> int:
        """Threads of the video decoder."""
        return self.threads or min(8, os.cpu_count() or 1)


def report(bench: DecodeBench) -> None:
    """Makes the files, measures, prints the table and ends with one JSON line."""
    print(
        f"{bench.frames} pictures of {bench.size} x {bench.size} spread over each file, and its sound; "
        f"{bench.decoder_threads} decoding threads, files in the disk cache"
    )
    rows = []
    for kind in bench.kinds():
        path = make_file(kind, bench.folder)
        _fill_cache(path)
        for method in bench.methods:
            rows.append(measure_row(bench, kind, path, method))
            print(f"  {path.name} {method}: {_told(rows[-1])}", file=sys.stderr, flush=True)
    ratios = list(compare(rows))
    print_tables(rows, ratios)
    settings = {"frames": bench.frames, "size": bench.size, "part": bench.part, "repeat": bench.repeat}
    facts = {**environment(), "decoder_threads": bench.decoder_threads}
    print(json.dumps({"benchmark": "decode", **settings, "rows": rows, "ratios": ratios, **facts}))


def measure_row(bench: DecodeBench, kind: FileKind, path: Path, method: str) -> Row:
    """One way of reading one file; `failed` says why there are no figures."""
    row: Row = {
        "codec": kind.codec,
        "height": kind.height,
        "interval": kind.interval,
        "film_s": kind.seconds,
        "file_bytes": path.stat().st_size,
        "method": method,
    }
    arguments = {
        "method": method,
        "file": str(path),
        "frames": bench.frames,
        "size": bench.size,
        "part": bench.part or None,
        "threads": bench.decoder_threads,
    }
    command = [sys.executable, "-m", "mirasol_hf.cli.decode_worker", json.dumps(arguments)]
    environ = {**os.environ, "HF_HUB_OFFLINE": "1"}
    runs = []
    for _ in range(bench.repeat):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            return {**row, "failed": lines[-1] if lines else f"ended by signal {-done.returncode}"}
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    middle = statistics.median_low(run["seconds"] for run in runs)
    return {**row, **next(run for run in runs if run["seconds"] == middle)}


def compare(rows: list[Row]) -> Iterator[Row]:
    """The package against the other ways on the same file, and its memory against that for the shortest file."""
    by_file: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        if "failed" not in row:
            by_file.setdefault((row["codec"], row["height"], row["interval"], row["film_s"]), {})[row["method"]] = row
    shortest: dict[tuple[Any, ...], Row] = {}
    for (codec, height, interval, film), ways in by_file.items():
        if "mirasol" not in ways:
            continue
        own = ways["mirasol"]
        first = shortest.setdefault((codec, height, interval), own)
        ratio: Row = {"codec": codec, "height": height, "interval": interval, "film_s": film}
        for method in ("everything", "transformers"):
            if method in ways:
                ratio[f"faster_than_{method}"] = round(ways[method]["seconds"] / own["seconds"], 2)
        if "floor" in ways:
            ratio["times_the_floor"] = round(own["seconds"] / ways["floor"]["seconds"], 2)
        ratio["mib_above_shortest"] = round(own["peak_mib"] - first["peak_mib"], 1)
        yield ratio


def print_tables(rows: list[Row], ratios: list[Row]) -> None:
    """The rows, then how the package compares."""
    from rich.table import Table

    from mirasol_hf.cli.console import table_console

    head = ["codec", "rows", "keys", "film s", "way", "seconds", "CPU s", "decoded", "frames/s", "samples/s"]
    table = Table(*head, "peak MiB", "MB read")
    for column in (*table.columns[1:2], table.columns[3], *table.columns[5:]):
        column.justify = "right"
    for row in rows:
        table.add_row(*_cells(row))
    table_console().print(table)
    if any(row.get("extrapolated") for row in rows):
        print("~ computed from the part that was decoded")
    for ratio in ratios:
        print(describe(ratio))


def describe(ratio: Row) -> str:
    """One line for people."""
    text = f"{ratio['codec']} {ratio['height']}p {ratio['interval']} {ratio['film_s']} s:"
    for method in ("everything", "transformers"):
        if f"faster_than_{method}" in ratio:
            text += f" {ratio[f'faster_than_{method}']} times as fast as {method},"
    if "times_the_floor" in ratio:
        text += f" {ratio['times_the_floor']} times the floor,"
    return f"{text} {ratio['mib_above_shortest']:+.0f} MiB against the shortest file"


def _cells(row: Row) -> list[str]:
    cells = [row["codec"], str(row["height"]), row["interval"], str(row["film_s"]), row["method"]]
    if "failed" in row:
        return [*cells, "failed"]
    read = "-" if row["bytes_read"] is None else f"{row['bytes_read'] / 1e6:,.0f}"
    return [
        *cells,
        f"{'~' if row['extrapolated'] else ''}{row['seconds']:,.2f}",
        f"{row['cpu_seconds']:,.2f}",
        f"{row['frames_decoded']:,}",
        f"{row['frames_per_second']:,.1f}",
        f"{row['samples_per_second']:,}",
        f"{row['peak_mib']:,.0f}",
        read,
    ]


def _told(row: Row) -> str:
    if "failed" in row:
        return f"failed: {row['failed']}"
    return f"{row['seconds']} s{' (computed from a part)' if row['extrapolated'] else ''}, {row['peak_mib']:.0f} MiB"


def _fill_cache(path: Path) -> None:
    """Read the file once, so that no way of reading waits for the disk."""
    with path.open("rb") as file:
        while file.read(_BLOCK):
            pass
