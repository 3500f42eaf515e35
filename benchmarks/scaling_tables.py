"""Writes the tables of docs/scaling.md from the files in benchmarks/results.

    mirasol bench scaling --preset base --flops-only | tail -n 1 > benchmarks/results/scaling-base.json
    python benchmarks/scaling_tables.py

Each result is the last line of a run, as it was printed. In the page, what stands between `<!-- measured: NAME -->`
and `<!-- end -->` is replaced.
"""

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "scaling.md"
PARTS = ("video_tower", "audio_tower", "combiner", "time_model", "joint_transformer")
_MARKED = re.compile(r"<!-- measured: (?P<name>[\w-]+) -->\n.*?<!-- end -->", re.DOTALL)


def read_result(name: str) -> dict[str, Any]:
    """One stored result."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def tables(result: dict[str, Any]) -> str:
    """A result in Markdown: when, where and with what, and a table for each kind of figure that it holds."""
    where = [result["device"]]
    if _timed(result):
        where.append(f"{result['threads']} threads, {result['dtype']}")
    versions = [f"{name} {result[name]}" for name in ("mirasol_hf", "torch", "transformers")]
    parts = [f"{result['date']}, {', '.join([*where, *versions])}."]
    parts += [part(result) for part in (_costs, _times, _growth, _savings, _ragged)]
    return "\n\n".join(part for part in parts if part)


def _timed(result: dict[str, Any]) -> bool:
    return any("seconds" in row for row in (*result["rows"], *result["ragged"]))


def _table(head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def _label(row: dict[str, Any]) -> str:
    return f"{row['encoder']}, streamed" if row["streamed"] else row["encoder"]


def _times(result: dict[str, Any]) -> str:
    head = ["encoder", "frames", "seconds", "frames/s", "first quarter", "last quarter", "peak MiB", "before media"]
    rows = []
    for row in result["rows"]:
        if "seconds" in row:
            quarters = [row.get(f"{name}_quarter_frames_per_second") for name in ("first", "last")]
            memory = [f"{row[name]:,.0f}" for name in ("peak_mib", "loaded_mib")]
            speeds = ["–" if speed is None else f"{speed:,.1f}" for speed in (row["frames_per_second"], *quarters)]
            rows.append([_label(row), f"{row['frames']:,}", f"{row['seconds']:,.2f}", *speeds, *memory])
        elif "failed" in row:
            rows.append([_label(row), f"{row['frames']:,}", row["failed"], *["–"] * 5])
    return _table(head, rows)


def _ragged(result: dict[str, Any]) -> str:
    head = ["one ragged batch", "chunks", "FLOPs", "seconds", "padded rectangle: FLOPs", "seconds"]
    rows = []
    for row in result["ragged"]:
        ratios = [
            f"×{row[f'{kind}_{measured}_against_singles']:.2f}" if "seconds" in row else row["failed"]
            for kind in ("batch", "rectangle")
            for measured in ("flops", "seconds")
        ]
        rows.append([row["encoder"], ", ".join(map(str, row["chunks"])), *ratios])
    return _table(head, rows)


def _costs(result: dict[str, Any]) -> str:
    head = [
        "encoder",
        "frames",
        "parameters (M)",
        "video",
        "audio",
        "Combiner",
        "time model",
        "joint",
        "GFLOPs in all",
    ]
    rows = []
    for row in result["rows"]:
        cells = [_label(row), f"{row['frames']:,}"]
        if "unavailable" in row:
            rows.append([*cells, "not available", *["–"] * (len(head) - 3)])
            continue
        cells.append(f"{sum(row['parameters'].values()) / 1e6:,.2f}")
        cells += [f"{row['flops'][part] / 1e9:,.2f}" if part in row["flops"] else "–" for part in PARTS]
        rows.append([*cells, f"{row['total_flops'] / 1e9:,.2f}"])
    return _table(head, rows)


def _growth(result: dict[str, Any]) -> str:
    head = ["encoder", "frames", "linear", "FLOPs", "above linear", "within 5 %", "same parameters", "peak memory"]
    rows = [
        [
            _label(ratio),
            " → ".join(f"{frames:,}" for frames in ratio["frames"]),
            f"×{ratio['linear']:g}",
            f"×{ratio['flops']:.2f}",
            f"{ratio['above_linear']:+.1%}",
            "yes" if ratio["within_5_percent"] else "no",
            "yes" if ratio["same_parameters"] else "no",
            f"×{ratio['peak_mib']:.3f}" if "peak_mib" in ratio else "–",
        ]
        for ratio in result["ratios"]
    ]
    return _table(head, rows)


def _savings(result: dict[str, Any]) -> str:
    head = ["encoder", "frames", "fewer FLOPs than causal"]
    rows = [
        [_label(saving), f"{saving['frames']:,}", f"{saving['spared_against_causal']:.1%}"]
        for saving in result["savings"]
    ]
    return _table(head, rows)


def fill(page: str) -> str:
    """The page with every marked part written anew; a part whose result is not there stays empty."""

    def measured(match: re.Match[str]) -> str:
        name = match["name"]
        if not (RESULTS / f"{name}.json").exists():
            return f"<!-- measured: {name} -->\n<!-- end -->"
        return f"<!-- measured: {name} -->\n{tables(read_result(name))}\n<!-- end -->"

    return _MARKED.sub(measured, page)


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text()))
