"""Runs the library's own common tests over Mirasol's classes and holds them to the table in `skips.py`.

The archive with the tests is fetched when these files are collected, so only where slow tests are wanted.
"""

import os
from collections import Counter

import pytest

from tests.conformance import archive, skips

MARKERS = (
    "accelerate_tests",
    "flash_attn_3_test",
    "flash_attn_4_test",
    "flash_attn_test",
    "is_agent_test",
    "is_expert_parallel_test",
    "is_fsdp_test",
    "is_pipeline_test",
    "is_staging_test",
    "is_tensor_parallel_test",
    "is_training_test",
    "order",
    "torch_compile_test",
)


SEVERITY = ("passed", "skipped", "failed")


class Tally:
    """What became of the mixins' tests, and which lines of the table were used."""

    def __init__(self):
        self.outcomes = {}  # by group and test
        self.used = set()
        self.unavailable = None

    def count(self, group, test, outcome):
        """A test is as bad as the worst of its phases and subtests."""
        known = self.outcomes.get((group, test), "passed")
        self.outcomes[group, test] = max(known, outcome, key=SEVERITY.index)

    def table(self):
        groups = sorted({group for group, _ in self.outcomes})
        rows = {group: Counter() for group in [*groups, "in all"]}
        for (group, _), outcome in self.outcomes.items():
            rows[group][outcome] += 1
            rows["in all"][outcome] += 1
        width = max(map(len, rows))
        lines = [f"{'':{width}}  passed  skipped  failed"]
        return lines + [
            f"{name:{width}}  {row['passed']:6}  {row['skipped']:7}  {row['failed']:6}" for name, row in rows.items()
        ]


TALLY = pytest.StashKey[Tally]()


def pytest_configure(config):
    config.stash[TALLY] = Tally()
    for name in MARKERS:
        config.addinivalue_line("markers", f"{name}: of the library's own tests")


def pytest_ignore_collect(collection_path, config):
    """Leaves this folder out of the quick tests, and of all where the archive cannot be had."""
    if not collection_path.name.startswith("test_"):
        return None
    if "not slow" in (config.option.markexpr or ""):
        return True
    tally = config.stash[TALLY]
    if tally.unavailable:
        return True
    os.environ["RUN_SLOW"] = "1"  # read by the library when its tests are imported
    try:
        archive.prepare()
    except archive.ArchiveError as error:
        if os.environ.get("MIRASOL_CONFORMANCE") == "required":
            raise pytest.UsageError(str(error)) from error
        tally.unavailable = str(error)
        return True
    return None


def library_bases(cls):
    """The library's test classes that `cls` is made of."""
    return [base for base in getattr(cls, "__mro__", ()) if base.__module__.startswith(archive.PACKAGE)]


def is_override(cls, name):
    """Whether `cls` has its own test in place of one of the library's."""
    defined = any(name in vars(base) for base in library_bases(cls))
    return defined and getattr(cls, name).__module__ == cls.__module__


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    bases = library_bases(item.cls)
    if not hasattr(item.cls, "subject"):
        return report
    tally, cls, name = item.config.stash[TALLY], item.cls.__name__, item.originalname or item.name
    if report.skipped:
        reason = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr)
        line = skips.find(cls, item.name, reason)
        if line is None:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped, and no line of skips.py allows it: {reason}"
        tally.used.add(line)
    if is_override(item.cls, name):
        line = skips.find_override(cls, name)
        if line is None:
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} overrides the library's test, and no line of skips.py allows it"
        tally.used.add(line)
    mixin = next((base for base in bases if name in vars(base)), bases[0] if bases else None)
    group = f"{mixin.__name__ if mixin else 'ConfigTester'} over {item.cls.subject}"
    tally.count(group, item.nodeid, report.outcome)
    return report


def unused_lines(config):
    """Lines of the table that a run of the whole folder did not use."""
    tally = config.stash[TALLY]
    whole = not (config.option.keyword or config.option.deselect or any("::" in arg for arg in config.args))
    files = {test.split("::")[0] for _, test in tally.outcomes}
    if not whole or len(files) < len(list(archive.HERE.glob("test_*.py"))):
        return []
    return [line for line in (*skips.SKIPS, *skips.OVERRIDES) if line not in tally.used]


def pytest_sessionfinish(session, exitstatus):
    if exitstatus == 0 and unused_lines(session.config):
        session.exitstatus = 1


def pytest_terminal_summary(terminalreporter, config):
    tally = config.stash[TALLY]
    if tally.unavailable:
        terminalreporter.section("conformance: not run")
        terminalreporter.write_line(tally.unavailable)
    if not tally.outcomes:
        return
    terminalreporter.section("conformance: the library's own tests")
    for line in tally.table():
        terminalreporter.write_line(line)
    for line in unused_lines(config):
        terminalreporter.write_line(f"a line of skips.py that nothing needs: {line}")
