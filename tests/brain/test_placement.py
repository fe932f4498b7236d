"""The atlas finds its own place, whatever the contrast."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bids_harmonize.brain.atlas import CELL_MM, Atlas
from bids_harmonize.brain.placement import Pose, in_cells, place, places_of

ZOOMS = (CELL_MM, CELL_MM, CELL_MM)


@settings(max_examples=8)
@given(
    st.permutations([0.3, 0.5, 0.7, 0.9, 0.6]),
    st.tuples(*[st.floats(-15, 15)] * 3),
    st.floats(-0.1, 0.1),
    st.tuples(*[st.floats(-0.15, 0.15)] * 3),
)
def test_a_moved_atlas_is_found_in_any_contrast(
    levels: list[float], shift: tuple[float, float, float], size: float, turn: tuple[float, float, float]
) -> None:
    atlas = Atlas.bundled()
    true = Pose(shift, size)
    true.turn.data = torch.tensor(turn)
    true.requires_grad_(False)
    places = places_of((56, 64, 60), torch.tensor(ZOOMS))
    signals = torch.tensor([0.0, *levels])
    volume = (signals @ atlas.at(true(places))).view(56, 64, 60)
    found = place(atlas, volume.numpy(), ZOOMS).pose
    brain = places[atlas.at(true(places))[1:4].sum(0) > 0.5]
    assert float((found(brain) - true(brain)).norm(dim=1).mean()) < 6


def test_a_part_has_the_same_places() -> None:
    pose = Pose((5.0, -3.0, 8.0), 0.1).requires_grad_(False)
    zooms, shape = (2.0, 3.0, 4.0), (30, 24, 20)
    part = (slice(4, 20), slice(0, 24), slice(7, 19))
    whole = pose(places_of(shape, torch.tensor(zooms))).view(*shape, 3)[part]
    inside = pose.in_part(part, shape, zooms)(places_of((16, 24, 12), torch.tensor(zooms)))
    torch.testing.assert_close(inside.view(16, 24, 12, 3), whole, atol=1e-3, rtol=0)


@pytest.mark.parametrize("cell_mm", [4.0, 12.0])
def test_cells_keep_the_extent_and_the_mean(cell_mm: float) -> None:
    volume = torch.rand(24, 30, 12, generator=torch.Generator().manual_seed(0)).numpy()
    cells, sizes = in_cells(volume, (2.0, 1.6, 5.0), cell_mm)
    extent = torch.tensor(cells.shape) * sizes
    torch.testing.assert_close(extent, torch.tensor([48.0, 48.0, 60.0]))
    assert float(cells.mean()) == pytest.approx(float(volume.mean()), rel=0.02)
