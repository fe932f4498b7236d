"""What the fault tests share: their long mode, and a count of what was survived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.helpers import warm_processes

TALLY = pytest.StashKey[Counter[str]]()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for what, count in sorted(config.stash.get(TALLY, Counter()).items()):
        terminalreporter.write_line(f"faults: {count} {what}")


@pytest.fixture
def tally(pytestconfig: pytest.Config) -> Counter[str]:
    """Counts of what was tried, by name (``tally["kills"] += 1``), told at the end of the session."""
    if TALLY not in pytestconfig.stash:
        pytestconfig.stash[TALLY] = Counter()
    return pytestconfig.stash[TALLY]


@pytest.fixture(scope="session")
def long(pytestconfig: pytest.Config) -> bool:
    """Whether the long mode was asked for (``--long``)."""
    return bool(pytestconfig.getoption("--long"))


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """Processes of the test end with it."""
    yield
    warm_processes.end_all()
