"""Log lines, and the line below them."""

from __future__ import annotations

import io
import logging
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import screen

from bids_harmonize import terminal
from bids_harmonize.terminal import STATUS, StatusHandler, start_logging, time_left

TEXT = st.text("abc /_.", min_size=1, max_size=30)


class Terminal(io.StringIO):
    """A terminal of unknown width."""

    def isatty(self) -> bool:
        return True


@given(st.lists(st.tuples(st.booleans(), TEXT)))
def test_the_log_stands_above_the_last_status(messages: list[tuple[bool, str]]) -> None:
    stream = io.StringIO()
    handler = StatusHandler(stream)
    for is_status, text in messages:
        record = logging.makeLogRecord({"msg": text, **(STATUS if is_status else {})})
        handler.handle(record)
    *lines, last = screen(stream.getvalue())
    assert lines == [text for is_status, text in messages if not is_status]
    assert last == next((text for is_status, text in reversed(messages) if is_status), "")


def test_a_long_status_is_cut_and_a_long_line_is_not() -> None:
    stream = io.StringIO()
    handler = StatusHandler(stream)
    for extra in (STATUS, {}):
        handler.handle(logging.makeLogRecord({"msg": "x" * 300, **extra}))
    line, status = screen(stream.getvalue())
    assert line == "x" * 300
    assert status == "x" * 76 + "..."


def test_an_empty_status_takes_the_line_away() -> None:
    stream = io.StringIO()
    handler = StatusHandler(stream)
    for text in ("1 of 2", ""):
        handler.handle(logging.makeLogRecord({"msg": text, **STATUS}))
    assert screen(stream.getvalue()) == [""]


@pytest.mark.parametrize(
    ("stream", "term", "shown"),
    [(Terminal(), "xterm", True), (Terminal(), "dumb", False), (io.StringIO(), "xterm", False)],
)
def test_the_status_is_for_terminals_that_can_erase(
    stream: io.StringIO, term: str, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", term)
    start_logging(0)
    terminal.log.info("1 of 2", extra=STATUS)
    terminal.log.info("a line")
    assert ("1 of 2" in stream.getvalue()) == shown
    assert "a line\n" in stream.getvalue()


@pytest.mark.parametrize(
    ("verbosity", "told"),
    [
        (-1, ["WARNING"]),
        (0, ["INFO", "WARNING"]),
        (1, ["DEBUG", "INFO", "WARNING"]),
        (2, ["TRACE", "DEBUG", "INFO", "WARNING"]),
        (7, ["TRACE", "DEBUG", "INFO", "WARNING"]),
    ],
)
def test_verbosity(verbosity: int, told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    start_logging(verbosity)
    for level in (terminal.TRACE, logging.DEBUG, logging.INFO, logging.WARNING):
        terminal.log.log(level, "%s", logging.getLevelName(level))
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == told


@pytest.mark.parametrize(
    ("seconds", "count", "words"),
    [
        ([], 5, ""),
        ([2.0], 5, ", about 10 s left"),
        ([1.0, 3.0], 10, ", about 20 s left"),
        ([0.01], 2, ", about 1 s left"),
        ([10.0], 60, ", about 10 min left"),
        ([60.0], 150, ", about 2.5 h left"),
    ],
)
def test_time_left(seconds: list[float], count: int, words: str) -> None:
    assert time_left(seconds, count) == words


@given(st.floats(1, 1e5), st.integers(1, 1000), st.integers(1, 9))
def test_what_takes_always_the_same_will_take_so_again(seconds: float, count: int, done: int) -> None:
    number, unit = time_left([seconds] * done, count).split()[2:4]
    told = float(number) * {"s": 1, "min": 60, "h": 3600}[unit]
    assert told == pytest.approx(seconds * count, rel=0.5)


def test_width_is_that_of_the_terminal() -> None:
    master, slave = os.openpty()
    with open(slave, "w") as stream:
        # A new one has no width yet.
        assert terminal._fitted("x" * 100, stream) == "x" * 76 + "..."
    os.close(master)
