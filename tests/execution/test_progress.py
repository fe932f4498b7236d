"""Log lines, and the line below them."""

from __future__ import annotations

import io
import logging
import os
import termios

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.execution import progress
from bids_harmonize.execution.progress import STATUS, StatusHandler, start_logging, time_left
from tests.helpers.toy_datasets import screen

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
    progress.log.info("1 of 2", extra=STATUS)
    progress.log.info("a line")
    assert ("1 of 2" in stream.getvalue()) == shown
    assert "a line\n" in stream.getvalue()


@pytest.mark.parametrize(
    ("verbosity", "levels"),
    [
        (-1, ["WARNING"]),
        (0, ["INFO", "WARNING"]),
        (1, ["DEBUG", "INFO", "WARNING"]),
        (2, ["TRACE", "DEBUG", "INFO", "WARNING"]),
        (7, ["TRACE", "DEBUG", "INFO", "WARNING"]),
    ],
)
def test_verbosity(verbosity: int, levels: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    start_logging(verbosity)
    for level in (progress.TRACE, logging.DEBUG, logging.INFO, logging.WARNING):
        progress.log.log(level, "%s", logging.getLevelName(level))
    assert [line.split()[-1] for line in stream.getvalue().splitlines()] == levels


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
    estimate = float(number) * {"s": 1, "min": 60, "h": 3600}[unit]
    assert estimate == pytest.approx(seconds * count, rel=0.5)


@pytest.mark.parametrize(("columns", "shown"), [(40, 36), (0, 76)])
def test_the_width_is_that_of_the_terminal_which_may_not_know_it(columns: int, shown: int) -> None:
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, columns))
    with open(slave, "w") as stream:
        StatusHandler(stream).handle(logging.makeLogRecord({"msg": "x" * 100, **STATUS}))
        assert screen(os.read(master, 1000).decode()) == ["x" * shown + "..."]
    os.close(master)
