"""What is told while a command runs: log lines, and on a terminal a line below them that is kept current."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import TextIO

log = logging.getLogger("bids_harmonize")

# By how often -v was given, -1 for -q: -v tells how a scan is done, -vv also where in the code it failed.
TRACE = 5
LEVELS = {-1: logging.WARNING, 0: logging.INFO, 1: logging.DEBUG, 2: TRACE}
# For `extra` of a log call: the message is shown on a terminal only, until the next one takes its place.
STATUS = {"status": True}

_ERASE = "\r\x1b[K"
_WIDTH = 80


def start_logging(verbosity: int) -> None:
    """Send the package's log to standard error, in place of where it went before."""
    logging.addLevelName(TRACE, "TRACE")
    level = LEVELS[min(verbosity, max(LEVELS))]
    handler = StatusHandler(sys.stderr) if _is_terminal(sys.stderr) else _plain(sys.stderr)
    detailed = level < logging.INFO
    pattern = "%(asctime)s %(levelname)s: %(message)s" if detailed else "%(message)s"
    handler.setFormatter(logging.Formatter(pattern, datefmt="%H:%M:%S"))
    log.handlers[:] = [handler]
    log.setLevel(level)
    log.propagate = False


class StatusHandler(logging.StreamHandler[TextIO]):
    """Writes log lines to a terminal, and below them the last message that was marked as `STATUS`.

    An empty one takes the line away.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._status = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, or show it as the status."""
        try:
            erase = _ERASE if self._status else ""
            if _is_status(record):
                line, self._status = "", record.getMessage()
            else:
                line = f"{self.format(record)}{self.terminator}"
            self.stream.write(f"{erase}{line}{_fitted(self._status, self.stream)}")
            self.flush()
        except Exception:
            self.handleError(record)


def time_left(seconds: Sequence[float], count: int) -> str:
    """How long ``count`` scans will take, from how long others took: ``", about 40 s left"``, or nothing."""
    if not seconds:
        return ""
    return f", about {_rounded(sum(seconds) / len(seconds) * count)} left"


def _rounded(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def _plain(stream: TextIO | None) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    handler.addFilter(lambda record: not _is_status(record))
    return handler


def _is_status(record: logging.LogRecord) -> bool:
    return bool(getattr(record, "status", False))


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def _fitted(text: str, stream: TextIO) -> str:
    """The beginning of a text: a line that wraps could not be erased."""
    try:
        width = os.get_terminal_size(stream.fileno()).columns or _WIDTH
    except OSError:
        width = _WIDTH
    return text if len(text) < width else f"{text[: max(width - 4, 0)]}..."
