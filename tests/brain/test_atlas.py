"""The atlas is a set of shares, keeps what is stored of it, and goes on beyond its edges."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bids_harmonize.brain import atlas as module
from bids_harmonize.brain.atlas import BRAIN, CELL_MM, CLASSES, Atlas


def test_shares_are_shares_and_a_brain_has_its_size() -> None:
    shares = Atlas.bundled().shares
    assert len(shares) == len(CLASSES)
    assert shares.min() >= 0
    torch.testing.assert_close(shares.sum(0), torch.ones(shares.shape[1:]))
    assert 1200 < float(shares[BRAIN].sum()) * CELL_MM**3 / 1000 < 1800


def test_left_and_right_are_alike() -> None:
    shares = Atlas.bundled().shares
    torch.testing.assert_close(shares, shares.flip(1), atol=0.02, rtol=0)


def test_what_is_stored_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atlas = Atlas.bundled()
    monkeypatch.setattr(module, "BUNDLED", tmp_path / "atlas.safetensors")
    module.BUNDLED.write_bytes(atlas.stored())
    Atlas.bundled.__func__.cache_clear()
    try:
        again = Atlas.bundled()
    finally:
        Atlas.bundled.__func__.cache_clear()
    assert again.origin == atlas.origin
    torch.testing.assert_close(again.shares, atlas.shares, atol=0.005, rtol=0)


@given(st.tuples(*[st.integers(0, 40)] * 3))
def test_the_share_in_a_cell_is_found_at_its_place(cell: tuple[int, int, int]) -> None:
    atlas = Atlas.bundled()
    place = (torch.tensor(cell) - torch.tensor(atlas.origin)) * CELL_MM
    torch.testing.assert_close(atlas.at(place[None])[:, 0], atlas.shares[:, *cell], atol=1e-4, rtol=0)


def test_above_the_head_there_is_air_however_far() -> None:
    far = torch.tensor([[0.0, 0.0, 1e4], [1e4, 0.0, 0.0], [0.0, 0.0, 150.0]])
    assert float(Atlas.bundled().at(far)[0].min()) > 0.95
