"""How many threads work: two things at a time, or all in one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch

T = TypeVar("T")


@contextmanager
def meanwhile(work: Callable[[], T]) -> Iterator[Callable[[], T]]:
    """Do work in another thread while the block runs; with one thread only, when its result is asked for.

    Yields
    ------
    Callable
        What gives the result, waits for it if need be, and raises what the work raised.
    """
    if torch.get_num_threads() == 1:
        yield cache(work)
        return
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(work).result


@contextmanager
def one_thread() -> Iterator[None]:
    """Add floating-point numbers in one order, so that voxels do not depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
