"""Signals that arrive while a library is being loaded."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType

Handler = Callable[[int, FrameType | None], None]

# How long after a signal its handler looks again whether the library is loaded.
SECONDS_UNTIL_LOADED = 0.05


def after_imports(handle: Handler) -> Handler:
    """Make a signal handler that raises wait until the modules that are being loaded are there.

    Libraries in C++ abort the process when Python raises while they are being loaded, and leave a trace
    instead of a sentence. Who calls the command from a module of its own, as that one is loaded, is no reason
    to wait. The real-time timer and SIGALRM are taken for the meantime; whoever installs the handler gives
    them back.
    """
    imports_before = _imports_under_way(sys._getframe())

    def wait_and_handle(number: int, frame: FrameType | None) -> None:
        if _imports_under_way(frame) > imports_before:
            signal.signal(signal.SIGALRM, lambda _, later: wait_and_handle(number, later))
            signal.setitimer(signal.ITIMER_REAL, SECONDS_UNTIL_LOADED)
        else:
            handle(number, frame)

    return wait_and_handle


def _imports_under_way(frame: FrameType | None) -> int:
    count = 0
    while frame is not None:
        count += frame.f_code.co_name == "_find_and_load"
        frame = frame.f_back
    return count
