"""Messages while a command runs: log lines, and on a terminal a status line below them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import TextIO

log = logging.getLogger("bids_harmonize")

# Levels by the number of -v, or -1 for -q: -v logs details of each scan, -vv also tracebacks of failures.
TRACE = 5
LOG_LEVELS = {-1: logging.WARNING, 0: logging.INFO, 1: logging.DEBUG, 2: TRACE}
# The `extra` argument of a log call whose message is shown on terminals only, until the next one replaces it.
STATUS = {"status": True}

_ERASE = "\r\x1b[K"
_WIDTH = 80


def start_logging(verbosity: int) -> None:
    """Send the package's log to standard error, in place of where it went before."""
    logging.addLevelName(TRACE, "TRACE")
    level = LOG_LEVELS[min(verbosity, max(LOG_LEVELS))]
    handler = StatusHandler(sys.stderr) if _is_terminal(sys.stderr) else _plain(sys.stderr)
    detailed = level < logging.INFO
    pattern = "%(asctime)s %(levelname)s: %(message)s" if detailed else "%(message)s"
    handler.setFormatter(logging.Formatter(pattern, datefmt="%H:%M:%S"))
    log.handlers[:] = [handler]
    log.setLevel(level)
    log.propagate = False


class StatusHandler(logging.StreamHandler[TextIO]):
    """Writes log lines to a terminal, and below them the last message that was marked as `STATUS`.

    An empty status removes the line.
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
    """Estimate the time for ``count`` scans from the seconds of others: ``", about 40 s left"``, or none."""
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
    """Cut a text to the width of the terminal, because a line that wraps could not be erased."""
    try:
        width = os.get_terminal_size(stream.fileno()).columns or _WIDTH
    except OSError:
        width = _WIDTH
    return text if len(text) < width else f"{text[: max(width - 4, 0)]}..."
