"""`mirasol bench`: times what a user waits for, and counts what longer videos and reading them cost."""

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mirasol_hf.cli.timing import BENCHMARKS, environment

DECODE_FOLDER = Path(tempfile.gettempdir()) / "mirasol-bench-decode"
RepeatOption = Annotated[int, typer.Option(help="Runs, each in a fresh process; the median is reported.")]


class _BenchGroup(TyperGroup):
    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is None:
            raise ValueError(
                f"benchmark {cmd_name!r} is not known; expected one of {', '.join(self.list_commands(ctx))}"
            )
        return command


bench = typer.Typer(
    cls=_BenchGroup,
    no_args_is_help=True,
    help="Measure the package; ends with one JSON line: figures, versions, date.",
)


@bench.command("import")
def bench_import(repeat: RepeatOption = 5) -> None:
    """Time `import mirasol_hf`."""
    _time("import", repeat)


@bench.command("answer")
def bench_answer(repeat: RepeatOption = 5) -> None:
    """Time the first answer about a 10 s clip."""
    _time("answer", repeat)


def _time(name: str, repeat: int) -> None:
    if repeat < 1:
        raise ValueError(f"--repeat {repeat} must be at least 1")
    print((BENCHMARKS[name].__doc__ or "").split("\n\n")[0])
    figures = BENCHMARKS[name](repeat)
    for key, value in figures.items():
        print(f"  {key}: {value}")
    print(json.dumps({"benchmark": name, **figures, **environment()}))


@bench.command("scaling")
def bench_scaling(
    preset: Annotated[str, typer.Option(help="A named size: tiny, base or 3b.")] = "tiny",
    frames: Annotated[str, typer.Option(help="Lengths of whole clips, in frames.")] = "32,64,128,256,512",
    streamed: Annotated[str, typer.Option(help="Lengths taken in chunk by chunk; empty for none.")] = "128,512,4096",
    window: Annotated[int, typer.Option(help="Chunks that a stream remembers.")] = 16,
    encoders: Annotated[str, typer.Option(help="Which to compare.")] = "chunk,causal,ttm,plain",
    ragged: Annotated[str, typer.Option(help="Chunks of each clip of a ragged batch; empty for none.")] = "1,7,16",
    flops_only: Annotated[bool, typer.Option("--flops-only", help="Count without weights; time nothing.")] = False,
    dtype: Annotated[str, typer.Option(help="Of weights and media when timing: float32 or bfloat16.")] = "float32",
    plot: Annotated[
        Path | None, typer.Option(help="Draw the figures into this PNG; scaling-PRESET.png if none is named.")
    ] = None,
    no_plot: Annotated[bool, typer.Option("--no-plot", help="Draw nothing.")] = False,
) -> None:
    """Show what more frames cost: parameters, FLOPs by part, seconds and peak memory of each Combiner.

    Beside them the plain baseline: the same towers, then all tokens of all chunks in one bidirectional Transformer as
    deep as Combiner and time model together.
    """
    from mirasol_hf.cli.scaling import Scaling, default_plot, report

    scaling = Scaling(
        preset,
        tuple(sorted(set(_numbers("--frames", frames)))),
        tuple(sorted(set(_numbers("--streamed", streamed)))),
        window,
        flops_only,
        dtype,
        _words(encoders),
        _numbers("--ragged", ragged),
    )
    if plot is not None and no_plot:
        raise ValueError(f"--plot {plot} and --no-plot contradict each other")
    report(scaling, None if no_plot else plot or default_plot(preset))


@bench.command("decode")
def bench_decode(
    folder: Annotated[Path, typer.Option(help="Where the files are kept between runs.")] = DECODE_FOLDER,
    seconds: Annotated[str, typer.Option(help="Durations of the files.")] = "10,600,3600",
    heights: Annotated[str, typer.Option(help="Rows of their pictures.")] = "480,1080",
    codecs: Annotated[str, typer.Option(help="h264, vp9.")] = "h264,vp9",
    intervals: Annotated[str, typer.Option(help="Key frames: short (each second), long (every ten).")] = "short,long",
    methods: Annotated[str, typer.Option(help="Ways of reading.")] = "mirasol,floor,everything,transformers",
    frames: Annotated[int, typer.Option(help="Pictures to get of each file.")] = 128,
    size: Annotated[int, typer.Option(help="Rows and columns they are resized to.")] = 224,
    part: Annotated[int, typer.Option(help="Decode so many seconds of everything, compute the rest; 0: all.")] = 0,
    repeat: RepeatOption = 1,
    threads: Annotated[int, typer.Option(help="Of the video decoder; 0: one per core, at most eight.")] = 0,
) -> None:
    """Read pictures and sound of files of 10 s to an hour: time, memory, bytes.

    Beside the package: transformers' load_video(backend="pyav") with resizing and sound, decoding everything, and the
    floor: libav decoding from the key frame to each wanted picture, and the sound, without converting anything.
    """
    from mirasol_hf.cli.decode_bench import DecodeBench, report

    bench_of = DecodeBench(
        folder,
        _numbers("--seconds", seconds),
        _numbers("--heights", heights),
        _words(codecs),
        _words(intervals),
        _words(methods),
        frames,
        size,
        part,
        repeat,
        threads,
    )
    report(bench_of)


def _words(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def _numbers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError:
        raise ValueError(f"{option} {text!r} must be numbers with commas between") from None
