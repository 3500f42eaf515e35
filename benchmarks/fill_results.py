"""Writes the table of results into README.md and model_card.md, between their `results` marks.

Each argument is a file with what `mirasol eval avscenes … --json` printed; a column is made of each, in order:

    mirasol eval avscenes --split test --limit 1000 --json > runs/test.json
    mirasol eval avscenes --split compositional --limit 1000 --json > runs/compositional.json
    mirasol eval avscenes --split test --limit 1000 --ablate media --json > runs/media.json     # and sound, pictures
    python benchmarks/fill_results.py runs/test.json runs/compositional.json runs/media.json …
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "model_card.md")
MARKS = re.compile(r"(<!-- results:begin -->\n).*?(<!-- results:end -->)", re.DOTALL)
COLUMN_OF_ABLATION = {"media": "question only", "sound": "without sound", "pictures": "without pictures"}


def results_table(results: list[dict[str, Any]]) -> str:
    """A Markdown table of exact match in per cent, one row for each family, with the command below it.

    Args:
        results: what `mirasol_hf.evaluation.avscenes.evaluate` returned, one for each column; the first one also
            gives the column of the best fixed answer.
    """
    titles = [COLUMN_OF_ABLATION.get(result["ablate"], result["split"]) for result in results]
    lines = ["| questions | " + " | ".join(titles) + " | best fixed answer |"]
    lines.append("|---" * (len(results) + 2) + "|")
    for family in results[0]["families"]:
        lines.append(_row(family, [result["families"][family] for result in results]))
    lines.append(_row("**all**", results))
    first = results[0]
    flags = f"--split {first['split']} --limit {first['limit']} --json"
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    lines += [
        "",
        f"Exact match in per cent, n = {first['n']} a column: `mirasol eval avscenes {flags}`; the other columns with",
        f"`--split compositional` or `--ablate media`, `sound`, `pictures`. {versions}; {first['date']}.",
    ]
    return "\n".join(lines) + "\n"


def _row(name: str, scores: list[dict[str, Any]]) -> str:
    cells = [f"{100 * score['exact_match']:.1f}" for score in scores]
    return f"| {name} | " + " | ".join([*cells, f"{100 * scores[0]['majority_rate']:.1f}"]) + " |"


def main() -> None:
    """Reads the files named on the command line and rewrites both documents."""
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    table = results_table([json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]])
    for name in DOCUMENTS:
        path = ROOT / name
        text, count = MARKS.subn(
            lambda found: found.group(1) + table + found.group(2), path.read_text(encoding="utf-8")
        )
        if count != 1:
            raise SystemExit(f"{name} must have one pair of results marks, found {count}")
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
