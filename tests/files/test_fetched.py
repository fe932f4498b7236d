from __future__ import annotations

import os
from pathlib import Path

import pytest

from bids_harmonize.errors import NoInput
from bids_harmonize.files.fetched import require_fetched

POINTER = "/annex/objects/MD5E-s12--0123456789abcdef.nii.gz\n"


def test_links_and_pointers_without_content_say_how_to_fetch_it(tmp_path: Path) -> None:
    locked, unlocked, loop = (tmp_path / name for name in ("locked.nii", "unlocked.nii", "loop.nii"))
    locked.symlink_to("../.git/annex/objects/not-here")
    unlocked.write_text(POINTER)
    loop.symlink_to(loop)
    for path in (locked, unlocked, loop):
        with pytest.raises(NoInput, match=f"datalad get {path}"):
            require_fetched(path)


def test_anything_else_is_left_to_its_reader(tmp_path: Path) -> None:
    fetched, link, pipe = (tmp_path / name for name in ("fetched.nii", "link.nii", "pipe"))
    fetched.write_text(f"its text may be about {POINTER}")
    link.symlink_to(fetched)
    os.mkfifo(pipe)
    for path in (fetched, link, pipe, tmp_path, tmp_path / "absent", tmp_path / ("a" * 5000)):
        require_fetched(path)
