"""The table of parameters in docs/architecture.md is what `mirasol info` prints."""

import json
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"


def table_of_the_page():
    """`{preset: {part: number}}`, the last row's share of the time-aligned part included."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| part | tiny"))
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip(" *`") for cell in line.strip("|").split("|")])
    presets = rows[0][1:]
    return {preset: {row[0]: row[i] for row in rows[2:]} for i, preset in enumerate(presets, start=1)}


def test_the_page_agrees_with_the_command(mirasol):
    page = table_of_the_page()
    assert set(page) == {"tiny", "base", "3b"}
    for preset, rows in page.items():
        facts = json.loads(mirasol("info", "--preset", preset, "--json").out)
        expected = {part: f"{count:,}" for part, count in facts["parameters"].items()}
        expected["total"] = f"{facts['total_parameters']:,}"
        expected["of it time-aligned"] = f"{facts['time_aligned_share']:.1%}"
        assert rows == expected, preset
        assert sum(facts["parameters"].values()) == facts["total_parameters"]
    large = json.loads(mirasol("info", "--preset", "3b", "--json").out)
    assert abs(large["total_parameters"] / 3.0e9 - 1) < 0.02
    assert large["time_aligned_share"] >= 0.6


def test_the_counts_are_those_of_real_weights(random_parts):
    model, _ = random_parts
    parts = {
        name: sum(value.numel() for value in module.parameters()) for name, module in model.model.named_children()
    }
    parts["loss_heads"] = sum(value.numel() for value in model.loss_heads.parameters())
    rows = table_of_the_page()["tiny"]
    for name, count in parts.items():
        assert rows[name] == f"{count:,}", name


def test_the_command_prints_the_table(mirasol):
    printed = mirasol("info", "--preset", "3b").out
    for part, number in table_of_the_page()["3b"].items():
        assert part in printed and number in printed
