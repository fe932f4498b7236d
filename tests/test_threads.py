"""Two things at a time where there are threads, and the same results where there are not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bids_harmonize.threads import meanwhile
from tests.helpers.toy_datasets import harmonize_image, head, image_of


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_work_is_done_once_and_beside_the_block_if_there_are_threads(threads: int) -> None:
    calls: list[int] = []

    def work() -> int:
        calls.append(threading.get_ident())
        return 7

    with meanwhile(work) as result:
        assert [result(), result()] == [7, 7]
    assert len(calls) == 1
    assert (calls[0] == threading.get_ident()) == (threads == 1)


def test_what_the_work_raises_comes_out(threads: int) -> None:
    def work() -> None:
        raise OSError("the disk is full")

    with meanwhile(work) as result, pytest.raises(OSError, match="full"):
        result()


def test_nobody_needs_to_ask(threads: int) -> None:
    with meanwhile(lambda: 1 / 0):
        pass


def test_two_threads_write_the_same_bytes_as_one(tmp_path: Path, random_model: Path) -> None:
    image_of(head(1)).to_filename(tmp_path / "a_T1w.nii.gz")
    for count in ("1", "2"):
        out = tmp_path / f"out{count}.nii.gz"
        options = ("--model", random_model, "--omp-nthreads", count)
        assert harmonize_image(tmp_path / "a_T1w.nii.gz", out, *options).code == 0
    assert (tmp_path / "out1.nii.gz").read_bytes() == (tmp_path / "out2.nii.gz").read_bytes()
