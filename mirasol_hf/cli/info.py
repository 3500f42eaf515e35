"""`mirasol info`: the parameters of a model, part by part."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mirasol_hf.cli.loading import adapter_base, load_config, model_folder
from mirasol_hf.cli.options import JsonOption, ModelOption

if TYPE_CHECKING:
    from mirasol_hf.modeling.configuration_mirasol import MirasolConfig


def info(
    preset: Annotated[str | None, typer.Option(help="A named size: tiny, base or 3b.")] = None,
    model: ModelOption = None,
    json_output: JsonOption = False,
) -> None:
    """Count the parameters of each part of a model, without making its weights."""
    from mirasol_hf.modeling.configuration_mirasol import MirasolConfig

    if preset is not None and model is not None:
        raise ValueError("--preset and --model exclude each other; give one")
    config = MirasolConfig.from_preset(preset) if preset is not None else load_config(model)
    facts = describe(config)
    if preset is None and adapter_base(model_folder(model)) is not None:
        facts["adapter_parameters"] = _adapter_parameters(model_folder(model))
    if json_output:
        print(json.dumps(facts))
    else:
        _print_table(facts)


def describe(config: "MirasolConfig") -> dict[str, Any]:
    """Parameters per part and the shape of a default input.

    Returns:
        `parameters` (part -> count; shared weights are counted once), `total_parameters`, `time_aligned_share` (share
        of everything that is not the text decoder) and `chunk` (frames, image size, features, spectrogram).
    """
    import torch

    from mirasol_hf.modeling.modeling_mirasol import MirasolForConditionalGeneration

    with torch.device("meta"):
        model = MirasolForConditionalGeneration(config)
    model.tie_weights()
    parts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        path = name.split(".")
        part = path[1] if path[0] == model.base_model_prefix and len(path) > 1 else path[0]
        parts[part] = parts.get(part, 0) + parameter.numel()
    total = sum(parts.values())
    text = sum(count for part, count in parts.items() if part in ("language_model", "text_decoder", "lm_head"))
    sections: Any = config
    video, audio = sections.video_config, sections.audio_config
    chunk: dict[str, Any] = {
        "frames": video.num_frames,
        "image_size": video.image_size,
        "joint_features": sections.combiner_config.num_output_tokens,
    }
    if audio is not None:
        chunk["spectrogram"] = [audio.num_steps, audio.num_mel_bins]
    return {
        "parameters": parts,
        "total_parameters": total,
        "time_aligned_share": round((total - text) / total, 4),
        "chunk": chunk,
        "trained_on": config.trained_on,
    }


def _adapter_parameters(folder: Path) -> int:
    """How many numbers an adapter's file holds, by its header."""
    from mirasol_hf.modeling.loading_mirasol import adapter_shapes

    return sum(math.prod(shape) for shape in adapter_shapes(folder).values())


def _print_table(facts: dict[str, Any]) -> None:
    from rich.table import Table

    from mirasol_hf.cli.console import table_console

    table = Table("part", "parameters", "share")
    table.columns[1].justify = table.columns[2].justify = "right"
    for part, count in facts["parameters"].items():
        table.add_row(part, f"{count:,}", f"{count / facts['total_parameters']:.1%}")
    table.add_section()
    table.add_row("total", f"{facts['total_parameters']:,}", "100.0%")
    table.add_row("of it time-aligned", "", f"{facts['time_aligned_share']:.1%}")
    if "adapter_parameters" in facts:
        table.add_row("adapter", f"{facts['adapter_parameters']:,}", "")
    console = table_console()
    console.print(table)
    console.print("one chunk: " + ", ".join(f"{key} {value}" for key, value in facts["chunk"].items()))
    if facts["trained_on"] is not None:
        console.print(f"trained on: {facts['trained_on']}")
