"""Every test that docs/works-with.md names is there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_named_tests_exist() -> None:
    rows = [
        line
        for line in (ROOT / "docs/works-with.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and "`test" in line
    ]
    assert len(rows) > 20
    for row in rows:
        file = None
        for word in re.findall(r"`([\w/.:]+)`", row.rsplit("|", 2)[1]):
            path, _, name = word.rpartition("::")
            file = path or file
            assert file is not None and f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), (file, name)
