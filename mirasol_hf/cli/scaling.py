"""`mirasol bench scaling`: what more frames cost, for each Combiner and for the plain baseline.

FLOPs are counted on the meta device, where neither weights nor media take memory. Seconds and peak memory are taken
in one fresh process for each row.
"""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mirasol_hf.cli.plot_file import can_plot, check_plot_file
from mirasol_hf.cli.scaling_models import (
    COMBINERS,
    ENCODERS,
    PLAIN,
    NotAvailableError,
    build_encoder,
    count_flops,
    count_parameters,
    encoder_config,
)
from mirasol_hf.cli.timing import environment

LINEAR_WITHIN = 0.05
RAGGED_WITHIN = 0.15
_DTYPES = ("float32", "bfloat16")
_KILLED = -9

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Scaling:
    """What to measure.

    Args:
        preset: `"tiny"`, `"base"` or `"3b"`.
        frames: lengths of whole clips.
        streamed: lengths of clips taken in chunk by chunk.
        window: chunks that a stream remembers, in the time model and in a causal Combiner.
        flops_only: count only; no weights, no processes.
        dtype: of weights and media when timing.
        encoders: which of `ENCODERS`.
        ragged: chunks of each clip of the ragged batch; empty for none. Measured only when timing.
    """

    preset: str = "tiny"
    frames: tuple[int, ...] = (32, 64, 128, 256, 512)
    streamed: tuple[int, ...] = (128, 512, 4096)
    window: int = 16
    flops_only: bool = False
    dtype: str = "float32"
    encoders: tuple[str, ...] = ENCODERS
    ragged: tuple[int, ...] = (1, 7, 16)

    @property
    def combiners(self) -> list[str]:
        """The encoders with a Combiner, which can stream and leave padded chunks out."""
        return [name for name in self.encoders if name != PLAIN]

    def __post_init__(self) -> None:
        for name in self.encoders:
            if name not in ENCODERS:
                raise ValueError(f"--encoders {name!r} is not known; expected some of {', '.join(ENCODERS)}")
        chunk = encoder_config(self.preset, PLAIN).video_config.num_frames
        for option, lengths in (("--frames", self.frames), ("--streamed", self.streamed)):
            for length in lengths:
                if length < chunk or length % chunk:
                    raise ValueError(f"{option} {length} must be a positive multiple of the {chunk} frames of a chunk")
        if not self.encoders or not (self.frames or self.streamed or self.ragged):
            raise ValueError("nothing to measure: --encoders, or --frames, --streamed and --ragged, are empty")
        if any(chunks < 1 for chunks in self.ragged):
            raise ValueError(f"--ragged {','.join(map(str, self.ragged))} must have at least 1 chunk for each clip")
        if self.window < 1:
            raise ValueError(f"--window {self.window} must be at least 1 chunk")
        if self.dtype not in _DTYPES:
            raise ValueError(f"--dtype {self.dtype!r} must be one of {', '.join(_DTYPES)}")


def report(scaling: Scaling, plot: Path | None = None) -> None:
    """Measures, prints the tables, draws the plot if a file is named for it, and ends with one JSON line."""
    if plot is not None:
        check_plot_file(plot)
    print(
        "FLOPs as torch's counter has them (a multiply-add is two), for one clip; parameters without the text decoder"
    )
    rows = list(measure_rows(scaling))
    ragged = [] if scaling.flops_only or not scaling.ragged else list(measure_ragged(scaling))
    ratios, savings = list(measure_ratios(rows)), list(measure_savings(rows))
    print_tables(rows)
    for line in (*map(describe_ratio, ratios), *map(describe_saving, savings), *map(describe_ragged, ragged)):
        print(line)
    if plot is not None:
        draw(rows, scaling, plot)
        print(f"plot: {plot}")
    elif not can_plot():
        print("no plot: it needs matplotlib, pip install 'mirasol_hf[plots]'")
    facts = {
        **environment(),
        **({"device": "meta (nothing timed)"} if scaling.flops_only else {"dtype": scaling.dtype}),
    }
    figures = {
        "preset": scaling.preset,
        "window": scaling.window,
        "rows": rows,
        "ratios": ratios,
        "savings": savings,
        "ragged": ragged,
    }
    print(json.dumps({"benchmark": "scaling", **figures, **facts}))


def default_plot(preset: str) -> Path | None:
    """The file in the current folder that is drawn if none is named; without matplotlib none is."""
    return Path(f"scaling-{preset}.png") if can_plot() else None


def measure_rows(scaling: Scaling) -> Iterator[Row]:
    """One row for each encoder and length: whole clips first, then streams (the plain baseline has none)."""
    for name in scaling.encoders:
        for frames in scaling.frames:
            yield measure_row(scaling, name, frames, streamed=False)
    for name in scaling.combiners:
        for frames in scaling.streamed:
            yield measure_row(scaling, name, frames, streamed=True)


def measure_row(scaling: Scaling, name: str, frames: int, streamed: bool) -> Row:
    """Parameters, FLOPs and, if wanted, time and memory; `unavailable` says why there are none."""
    row: Row = {"encoder": name, "frames": frames, "streamed": streamed}
    window = scaling.window if streamed else None
    try:
        config = encoder_config(scaling.preset, name, window)
        encoder = build_encoder(name, config)
    except NotAvailableError as error:
        return {**row, "unavailable": str(error)}
    row["parameters"] = count_parameters(encoder)
    row["flops"] = count_flops(encoder, config, frames // config.video_config.num_frames, streamed)
    row["total_flops"] = sum(row["flops"].values())
    if not scaling.flops_only:
        row.update(_measure_apart("measure", scaling, name, frames=frames, streamed=streamed, window=window))
    return row


def measure_ragged(scaling: Scaling) -> Iterator[Row]:
    """For each Combiner: a batch of clips of different lengths against its clips one after the other."""
    for name in scaling.combiners:
        row: Row = {"encoder": name, "chunks": list(scaling.ragged)}
        row.update(_measure_apart("measure_ragged", scaling, name, lengths=list(scaling.ragged)))
        for measured in ("flops", "seconds"):
            if measured in row:
                singles = row[measured]["singles"]
                for other in ("batch", "rectangle"):
                    row[f"{other}_{measured}_against_singles"] = round(row[measured][other] / singles, 4)
        yield row


def _measure_apart(measure: str, scaling: Scaling, name: str, **arguments: Any) -> Row:
    arguments = {"preset": scaling.preset, "encoder": name, "dtype": scaling.dtype, **arguments}
    command = [sys.executable, "-m", "mirasol_hf.cli.scaling_worker", measure, json.dumps(arguments)]
    environ = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    if done.returncode == _KILLED or "out of memory" in done.stderr:
        return {"failed": "out of memory"}
    if done.returncode != 0:
        raise RuntimeError(f"the measured process failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure_ratios(rows: list[Row]) -> Iterator[Row]:
    """How FLOPs (and seconds) grow from the shortest to the longest clip of each encoder, whole and streamed."""
    groups: dict[tuple[str, bool], list[Row]] = {}
    for row in rows:
        if "unavailable" not in row:
            groups.setdefault((row["encoder"], row["streamed"]), []).append(row)
    for (name, streamed), group in groups.items():
        short, long = group[0], group[-1]
        if short is long:
            continue
        linear = long["frames"] / short["frames"]
        flops = long["total_flops"] / short["total_flops"]
        ratio: Row = {
            "encoder": name,
            "streamed": streamed,
            "frames": [short["frames"], long["frames"]],
            "linear": linear,
            "flops": round(flops, 3),
            "above_linear": round(flops / linear - 1, 4),
            "within_5_percent": abs(flops / linear - 1) <= LINEAR_WITHIN,
            "same_parameters": short["parameters"] == long["parameters"],
        }
        for measured in ("seconds", "peak_mib"):
            if measured in short and measured in long:
                ratio[measured] = round(long[measured] / short[measured], 3)
        yield ratio


def measure_savings(rows: list[Row]) -> Iterator[Row]:
    """FLOPs that another Combiner spares against the causal one, as a share of the causal one's, whole and streamed.

    A whole clip computes masked attention too. Of a stream that is not longer than its window nothing is masked, and
    nothing is dropped.
    """
    counted = {(row["encoder"], row["frames"], row["streamed"]): row for row in rows if "unavailable" not in row}
    for (name, frames, streamed), row in counted.items():
        causal = counted.get(("causal", frames, streamed))
        if causal is not None and name in COMBINERS and name != "causal":
            spared = 1 - row["total_flops"] / causal["total_flops"]
            yield {
                "encoder": name,
                "frames": frames,
                "streamed": streamed,
                "spared_against_causal": round(spared, 4),
            }


def print_tables(rows: list[Row]) -> None:
    """The rows, then what no column holds."""
    from rich.table import Table

    from mirasol_hf.cli.console import table_console

    timed = any("seconds" in row or "failed" in row for row in rows)
    head = ["encoder", "frames", "params (M)", "video", "audio", "Combiner", "time model", "joint", "GFLOPs in all"]
    table = Table(*head, *(("seconds", "frames/s", "peak MiB") if timed else ()))
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*_cells(row, timed))
    console = table_console()
    console.print(table)
    for reason in sorted({row["unavailable"] for row in rows if "unavailable" in row}):
        console.print(f"not available: {reason}", highlight=False, soft_wrap=True)
    for row in rows:
        if "last_quarter_frames_per_second" in row:
            first, last = row["first_quarter_frames_per_second"], row["last_quarter_frames_per_second"]
            print(f"{label(row)}, {row['frames']} frames: {first} frames/s in the first quarter, {last} in the last")


def label(row: Row) -> str:
    """The encoder, and whether it took the clip chunk by chunk."""
    return f"{row['encoder']}, streamed" if row["streamed"] else row["encoder"]


def describe_ratio(ratio: Row) -> str:
    """One line for people."""
    short, long = ratio["frames"]
    verdict = "within" if ratio["within_5_percent"] else "not within"
    text = (
        f"{label(ratio)}: FLOPs x{ratio['flops']} from {short} to {long} frames, {ratio['above_linear']:+.1%} against "
        f"linear (x{ratio['linear']:g}), {verdict} 5%"
    )
    return text + "".join(f"; {key} x{ratio[key]}" for key in ("seconds", "peak_mib") if key in ratio)


def describe_saving(saving: Row) -> str:
    """One line for people."""
    spared = saving["spared_against_causal"]
    return f"{label(saving)}, {saving['frames']} frames: {spared:.1%} fewer FLOPs than causal"


def describe_ragged(ragged: Row) -> str:
    """One line for people."""
    text = f"{ragged['encoder']}, one batch of {', '.join(map(str, ragged['chunks']))} chunks: "
    if "failed" in ragged:
        return text + ragged["failed"]
    parts = []
    for measured in ("flops", "seconds"):
        batch, rectangle = (ragged[f"{kind}_{measured}_against_singles"] for kind in ("batch", "rectangle"))
        verdict = "within" if batch <= 1 + RAGGED_WITHIN else "not within"
        parts.append(f"{measured} x{batch} of the single clips, {verdict} 15% (padded rectangle: x{rectangle})")
    return text + "; ".join(parts)


def _cells(row: Row, timed: bool) -> list[str]:
    cells = [label(row), f"{row['frames']:,}"]
    if "unavailable" in row:
        return [*cells, "not available"]
    cells.append(f"{sum(row['parameters'].values()) / 1e6:,.2f}")
    for part in ("video_tower", "audio_tower", "combiner", "time_model", "joint_transformer"):
        cells.append(f"{row['flops'][part] / 1e9:,.2f}" if part in row["flops"] else "-")
    cells.append(f"{row['total_flops'] / 1e9:,.2f}")
    if timed and "failed" in row:
        cells.append(row["failed"])
    elif timed:
        cells += [f"{row['seconds']:.3f}", f"{row['frames_per_second']:,.0f}", f"{row['peak_mib']:,.0f}"]
    return cells


def draw(rows: list[Row], scaling: Scaling, path: Path) -> None:
    """FLOPs against frames, and seconds and memory where they were measured; both axes logarithmic."""
    from matplotlib.figure import Figure

    panels = [("total_flops", "FLOPs"), ("seconds", "seconds"), ("peak_mib", "peak MiB")]
    panels = [(key, title) for key, title in panels if any(key in row for row in rows)]
    figure = Figure(figsize=(5.5 * len(panels), 4.5), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        for name in dict.fromkeys(label(row) for row in rows):
            points = [(row["frames"], row[key]) for row in rows if label(row) == name and key in row]
            if points:
                axes.plot(*zip(*points), marker="o", linestyle="--" if "streamed" in name else "-", label=name)
        axes.set(xscale="log", yscale="log", xlabel="frames", ylabel=title)
        axes.set_xticks(ticks := sorted({row["frames"] for row in rows}), [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.legend()
    figure.suptitle(f"mirasol bench scaling, preset {scaling.preset}")
    figure.savefig(path, dpi=150)
