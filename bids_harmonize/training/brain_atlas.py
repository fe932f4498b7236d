"""Making the atlas by which brains are found, from label maps of heads.

    python -m bids_harmonize.training.brain_atlas LABEL_MAPS OUT.safetensors

Heads are placed onto their mean, by a shift, a turn and a size along each axis, and averaged anew. The
bundled atlas was made of heads 1 to 8 of SynthSeg's training label maps.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bids_harmonize.brain.atlas import BRAIN, CELL_MM, CLASSES, Atlas
from bids_harmonize.brain.placement import Pose, places_of
from bids_harmonize.files.atomic import write_atomically
from bids_harmonize.imaging.blocks import block_means
from bids_harmonize.simulation.label_heads import FREESURFER_LABELS, MAX_BRAIN_LABEL

# Size of the atlas in cells, and where in it the middle of the brain lies: left and right are alike.
SHAPE, ORIGIN = (52, 64, 60), (25.5, 30.0, 36.0)
# Tissues of label maps that are no soft tissue outside the brain, and none of its fluid inside.
INSIDE = {"white matter": "white matter", "grey matter": "grey matter", "deep grey matter": "grey matter"}
OUTSIDE = {"bone": "bone", "marrow": "bone"}
# How deep below its top a brain is measured for its middle: below begins the neck, which maps show or not.
MEASURED_MM = 125.0
# Rounds of placing and averaging; steps of placing, each on so many cells.
ROUNDS, STEPS, RATE, SAMPLE = 2, 60, 0.01, 20_000
# What is expected where no map says anything, and how much it weighs beside one head.
EXPECTED, WEIGHT = (0.5, 0.05, 0.05, 0.05, 0.3, 0.05), 0.15
# A map ends somewhere in the neck; the planes that it ends in are left out, mm.
CUT_MM = 6.0


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledHead:
    """A label map as shares of classes.

    Attributes
    ----------
    shares
        ``(classes, x, y, z)`` in cells of about 4 mm; axes are right, anterior, superior.
    extent
        Length of the map along each axis, mm.
    places
        ``(n, 3)``, where the cells lie, mm from their middle.
    bottom
        Height below which the map shows nothing, mm.
    """

    shares: Tensor
    extent: Tensor
    places: Tensor
    bottom: float

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a label map."""
        image = nib.as_closest_canonical(nib.load(path))
        labels = np.asarray(image.dataobj).round().astype(np.int16)
        brain = (labels > 0) & (labels < MAX_BRAIN_LABEL)
        classes = np.where(brain, CLASSES.index("CSF"), np.where(labels > 0, CLASSES.index("soft tissue"), 0))
        for where, names in ((brain, INSIDE), (~brain, OUTSIDE)):
            for tissue, name in names.items():
                classes[where & np.isin(labels, FREESURFER_LABELS[tissue])] = CLASSES.index(name)
        zooms = torch.tensor(image.header.get_zooms()[:3])
        steps = [max(1, round(CELL_MM / zoom)) for zoom in zooms.tolist()]
        shares = torch.from_numpy(
            np.stack([block_means((classes == k).astype(np.float32), steps) for k in range(len(CLASSES))])
        )
        sizes = zooms * torch.tensor(steps)
        places = places_of(shares.shape[1:], sizes)
        shown = places[(1 - shares[0]).flatten() > 0.5]
        return cls(
            shares=shares,
            extent=sizes * torch.tensor(shares.shape[1:]),
            places=places,
            bottom=float(shown[:, 2].min()) + CUT_MM,
        )

    @property
    def middle(self) -> tuple[float, float, float]:
        """The middle of the brain, mm."""
        brain = self.shares[BRAIN].sum(0).flatten()
        top = float(self.places[brain > 0.5][:, 2].max())
        weights = brain * (self.places[:, 2] > top - MEASURED_MM)
        x, y, z = ((weights[:, None] * self.places).sum(0) / weights.sum()).tolist()
        return x, y, z

    def on_atlas(self, pose: Pose) -> tuple[Tensor, Tensor]:
        """Shares on the grid of the atlas, and where the map shows anything."""
        cells = torch.stack(torch.meshgrid(*[torch.arange(n) for n in SHAPE], indexing="ij"), dim=-1)
        places = pose.inverse(((cells - torch.tensor(ORIGIN)) * CELL_MM).view(-1, 3))
        grid = (places * 2 / self.extent).flip(-1).view(1, *SHAPE, 3)
        shares = F.grid_sample(self.shares[None], grid, align_corners=False)[0]
        shares[0] += 1 - shares.sum(0)
        known = (places[:, 2] > self.bottom).float().view(SHAPE)
        return shares * known, known


def make_atlas(heads: Sequence[LabelledHead]) -> Atlas:
    """Place heads onto their mean, and average them."""
    poses = [Pose(head.middle, 0.0) for head in heads]
    generator = torch.Generator().manual_seed(0)
    for _ in range(ROUNDS):
        atlas = _mean(heads, poses)
        for head, pose in zip(heads, poses, strict=True):
            _align(atlas, head, pose, generator)
        _keep_the_mean(poses)
    return _mean(heads, poses)


def _mean(heads: Sequence[LabelledHead], poses: Sequence[Pose]) -> Atlas:
    """The mean of the heads and of their mirror images."""
    total, known = torch.zeros(len(CLASSES), *SHAPE), torch.zeros(SHAPE)
    with torch.no_grad():
        for head, pose in zip(heads, poses, strict=True):
            shares, shown = head.on_atlas(pose)
            total, known = total + shares, known + shown
    expected = WEIGHT * torch.tensor(EXPECTED).view(-1, 1, 1, 1)
    shares = (total + total.flip(1) + expected) / (known + known.flip(0) + WEIGHT)
    return Atlas(shares=shares / shares.sum(0), origin=ORIGIN)


def _align(atlas: Atlas, head: LabelledHead, pose: Pose, generator: torch.Generator) -> None:
    """Improve a pose so that classes lie where the atlas has them."""
    shown = torch.nonzero(head.places[:, 2] > head.bottom).flatten()
    shares = head.shares.flatten(1)
    optimizer = torch.optim.Adam(pose.parameters(), lr=RATE)
    for _ in range(STEPS):
        chosen = shown[torch.randint(len(shown), (SAMPLE,), generator=generator)]
        likely = atlas.at(pose(head.places[chosen])) + 1e-3
        loss = pose.oddity() - (likely.log() * shares[:, chosen]).sum(0).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _keep_the_mean(poses: Sequence[Pose]) -> None:
    """Give the atlas the mean size of the heads, and let it look ahead."""
    with torch.no_grad():
        for name in ("size", "turn"):
            mean = torch.stack([getattr(pose, name) for pose in poses]).mean(0)
            for pose in poses:
                getattr(pose, name).sub_(mean)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make an atlas of a folder of label maps."""
    parser = argparse.ArgumentParser(prog="python -m bids_harmonize.training.brain_atlas")
    parser.add_argument("label_maps", type=Path, help="folder of label maps, *_dseg.nii.gz")
    parser.add_argument("out", type=Path, help="the file to write")
    options = parser.parse_args(arguments)
    heads = [LabelledHead.read(path) for path in sorted(options.label_maps.glob("*_dseg.nii*"))]
    with write_atomically(options.out) as temporary:
        temporary.write_bytes(make_atlas(heads).stored())
    return 0


if __name__ == "__main__":
    sys.exit(main())
