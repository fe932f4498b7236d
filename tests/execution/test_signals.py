"""A signal that arrives while a library is being loaded waits until it is there."""

from __future__ import annotations

import importlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from bids_harmonize.execution.signals import after_imports


@pytest.fixture
def arrived() -> Iterator[list[int]]:
    """Signals that the handler of SIGTERM saw; handlers are as before afterwards."""
    seen: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        seen.append(number)

    before = signal.signal(signal.SIGTERM, after_imports(note)), signal.getsignal(signal.SIGALRM)
    yield seen
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGTERM, before[0])
    signal.signal(signal.SIGALRM, before[1])


def test_at_other_times_it_is_handled_at_once(arrived: list[int]) -> None:
    signal.raise_signal(signal.SIGTERM)
    assert arrived == [signal.SIGTERM]


def test_it_waits_for_the_library(
    arrived: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["import signal, time", "signal.raise_signal(signal.SIGTERM)"]
    # Time for the timer to ring, more than once, while the library is not there yet.
    lines += ["time.sleep(0.3)"]
    (tmp_path / "library_that_is_slow.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("library_that_is_slow")
    before_the_timer = list(arrived)
    end = time.monotonic() + 30
    while not arrived and time.monotonic() < end:
        time.sleep(0.01)
    assert before_the_timer == []
    assert arrived == [signal.SIGTERM]
