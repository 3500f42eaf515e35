"""Measures by which traits a clip is told to be unlike AVScenes, and how often that is wrong.

`python benchmarks/familiar_media.py [--clips N] [--work-dir DIR] [FILE...]` writes AVScenes clips as mp4, reads them
back, takes the ranges of the training clips, each widened by a tenth at both ends, and counts the clips of the other
splits that lie outside of one. FILEs are media of other origin: those inside of all ranges are missed. The ranges
belong into the recipe, as `config.media_ranges`. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import mirasol_hf
from mirasol_hf.data.avscenes import sample_scene
from mirasol_hf.evaluation.avscenes import clip_file

SPLITS = ("train", "test", "compositional")
MARGIN = 0.1

Traits = dict[str, float]
Ranges = dict[str, list[float]]


def ranges_of(clips: Iterable[Traits]) -> Ranges:
    """The lowest and the highest value of each trait, with the margin."""
    values: dict[str, list[float]] = {}
    for traits in clips:
        for name, value in traits.items():
            values.setdefault(name, []).append(value)
    margins = {name: MARGIN * (max(found) - min(found)) for name, found in values.items()}
    return {
        name: [round(min(found) - margins[name], 3), round(max(found) + margins[name], 3)]
        for name, found in values.items()
    }


def is_outside(traits: Mapping[str, float], ranges: Ranges) -> bool:
    """Whether one of the traits lies outside of its range."""
    return any(not ranges[name][0] <= value <= ranges[name][1] for name, value in traits.items())


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FILE", help="media that are not AVScenes")
    parser.add_argument("--clips", type=int, default=300, help="of each split")
    parser.add_argument("--work-dir", type=Path, help="keeps the clips for another run")
    asked = parser.parse_args()
    processor = mirasol_hf.MirasolProcessor.from_pretrained(mirasol_hf.EMBEDDED_MODEL)

    def traits_of(file: Path | str) -> Traits:
        return processor.media_traits(processor(videos=str(file), return_tensors="pt"))

    with tempfile.TemporaryDirectory() as temporary:
        place = asked.work_dir or Path(temporary)
        found = {
            split: [traits_of(clip_file(sample_scene(split, index), place)) for index in range(asked.clips)]
            for split in SPLITS
        }
    ranges = ranges_of(found.pop("train"))
    foreign = {Path(file).name: traits_of(file) for file in asked.files}
    for name, traits in foreign.items():
        print(name, {key: round(value, 2) for key, value in traits.items()})
    result = {
        "clips": asked.clips,
        "ranges": ranges,
        "false_alarms": {split: sum(is_outside(traits, ranges) for traits in clips) for split, clips in found.items()},
        "foreign": len(foreign),
        "missed": [name for name, traits in foreign.items() if not is_outside(traits, ranges)],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
