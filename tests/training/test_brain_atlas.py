"""An atlas made of label maps shows what they show, wherever they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bids_harmonize.brain.atlas import BRAIN, CELL_MM, CLASSES
from bids_harmonize.training import brain_atlas
from bids_harmonize.training.brain_atlas import LabelledHead, main, make_atlas
from tests.helpers.toy_heads import label_map, write_label_map

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledHead]:
    folder = tmp_path_factory.mktemp("labels")
    maps = [label_map(seed) for seed in range(2)]
    # The second lies elsewhere in its image.
    maps[1] = np.pad(maps[1], ((6, 0), (0, 8), (4, 4)))
    paths = [
        write_label_map(folder / f"sub-{number}_dseg.nii.gz", labels) for number, labels in enumerate(maps)
    ]
    return [LabelledHead.read(path) for path in paths]


def millilitres(shares: torch.Tensor, cell_mm: float) -> float:
    return float(shares[BRAIN].sum()) * cell_mm**3 / 1000


def test_a_label_map_is_read_as_shares(heads: list[LabelledHead]) -> None:
    for head in heads:
        assert len(head.shares) == len(CLASSES)
        torch.testing.assert_close(head.shares.sum(0), torch.ones(head.shares.shape[1:]))
        assert len(head.places) == head.shares[0].numel()


def test_the_mean_of_heads_has_their_size_and_is_symmetric(
    heads: list[LabelledHead], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(brain_atlas, "STEPS", 10)
    atlas = make_atlas(heads)
    torch.testing.assert_close(atlas.shares.sum(0), torch.ones(atlas.shares.shape[1:]))
    torch.testing.assert_close(atlas.shares, atlas.shares.flip(1), atol=1e-5, rtol=0)
    sizes = [millilitres(head.shares, 3.5) for head in heads]
    # Where no head reaches, a little of everything is expected.
    inside = atlas.shares * (atlas.shares[BRAIN].sum(0) > 0.2)
    assert millilitres(inside, CELL_MM) == pytest.approx(np.mean(sizes), rel=0.3)


def test_a_folder_of_label_maps_becomes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brain_atlas, "STEPS", 1)
    write_label_map(tmp_path / "sub-0_dseg.nii.gz", label_map(0))
    out = tmp_path / "atlas.safetensors"
    assert main([str(tmp_path), str(out)]) == 0
    assert out.stat().st_size > 1_000_000
