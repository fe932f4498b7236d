"""Heads made of tissue fractions, from label maps: scans with a known truth, under any protocol."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_harmonize.errors import BadData, NoInput

Volume = NDArray[np.float32]

# Numbers of FreeSurfer inside the brain and of SAMSEG-CHARM outside it.
LABELS: Mapping[str, Sequence[int]] = {
    "white matter": (2, 7, 16, 28, 41, 46, 60, 77, 85, 192, 250, 251, 252, 253, 254, 255, 512, 530),
    "grey matter": (3, 8, 17, 18, 42, 47, 53, 54, 80, 136, 137, 163, 164),
    "deep grey matter": (10, 11, 12, 13, 26, 49, 50, 51, 52, 58),
    "csf": (4, 5, 14, 15, 24, 31, 43, 44, 63, 72, 506),
    "blood": (30, 62, 502, 514),
    "muscle": (25, 57, 508),
    "soft tissue": (507,),
    "scalp": (511,),
    "mucosa": (509,),
    "bone": (515,),
    "marrow": (516,),
}
# FreeSurfer's numbers, all of the brain, end below.
LARGEST_BRAIN_LABEL = 500
# Labels that do not part fat from muscle, and which of the two prevails (fat: positive). They lie in clumps.
FAT_OR_MUSCLE = {"soft tissue": 0.0, "scalp": 1.0}
CLUMP_MM = 12.0
# Share of white in grey matter, and of grey in white, that varies from place to place.
TEXTURE, TEXTURE_MM = 0.06, (2.0, 6.0)
AIR_MARGIN = 8


@dataclass(frozen=True, kw_only=True)
class Head:
    """A head as shares of tissues in every voxel.

    Attributes
    ----------
    tissues
        Names, in the order of `fractions`; soft tissue and scalp are fat or muscle, see `Person`.
    fractions
        ``(tissues, X, Y, Z)`` float32 between 0 and 1; what is missing to 1 is air.
    brain
        Voxels of the brain, its fluid included.
    zooms
        Voxel size, mm; axes are right, anterior, superior.
    """

    name: str
    tissues: tuple[str, ...]
    fractions: Volume
    brain: NDArray[np.bool_]
    zooms: tuple[float, float, float]

    @classmethod
    def read(cls, path: Path, factors: tuple[int, int, int] = (2, 2, 2)) -> Self:
        """Read a label map and gather `factors` voxels (right, anterior, superior) into one.

        Raises
        ------
        NoInput, BadData
            There is no such file, or it is no label map of a head in three dimensions.
        """
        if not path.is_file():
            raise NoInput(f"the label map {path} does not exist")
        try:
            image = nib.as_closest_canonical(nib.load(path))
            labels = np.asarray(image.dataobj).round().astype(np.int16)
        except (nib.filebasedimages.ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
            raise BadData(f"{path} cannot be read as a label map; leave it out") from error
        if labels.ndim != 3:
            raise BadData(f"{path} has {labels.ndim} dimensions instead of 3; leave it out")
        labels = labels[_bounding_box(labels > 0, factors, path)]
        inside = (labels > 0) & (labels < LARGEST_BRAIN_LABEL)
        brain = _share(inside, factors) > 0.5
        if not brain.any():
            raise BadData(f"{path} holds no brain; leave it out")
        x, y, z = (float(n * f) for n, f in zip(image.header.get_zooms()[:3], factors, strict=True))
        return cls(
            name=path.name.split("_")[0],
            tissues=tuple(LABELS),
            fractions=np.stack([_share(np.isin(labels, numbers), factors) for numbers in LABELS.values()]),
            brain=brain,
            zooms=(x, y, z),
        )

    def share(self, tissue: str) -> Volume:
        """The share of one tissue in every voxel."""
        return self.fractions[self.tissues.index(tissue)]

    def person(self, rng: np.random.Generator) -> Person:
        """What the label map leaves open, drawn once: the same in all scans of that person."""
        clumps = _smooth_noise(self.brain.shape, self.zooms, CLUMP_MM, rng)
        fat = {name: _fat(clumps + rng.normal(mean, 1)) for name, mean in FAT_OR_MUSCLE.items()}
        fields = [_smooth_noise(self.brain.shape, self.zooms, mm, rng) for mm in TEXTURE_MM]
        texture = np.float32(TEXTURE / np.sqrt(2)) * (fields[0] + fields[1])
        return Person(head=self, fat=fat, texture=texture)


@dataclass(frozen=True, kw_only=True)
class Person:
    """A head with its own fat and texture.

    Attributes
    ----------
    fat
        Share of fat, 0 to 1, in soft tissue and in scalp; the rest is muscle.
    texture
        Share of grey matter in white, and of white in grey where negative.
    """

    head: Head
    fat: Mapping[str, Volume]
    texture: Volume

    def render(self, signals: Mapping[str, float]) -> Volume:
        """The noiseless image, given the signal of every tissue; partial volume is linear."""
        head = self.head
        weights = [signals.get(name, 0.0) for name in head.tissues]
        volume = np.tensordot(np.asarray(weights, dtype=np.float32), head.fractions, axes=1)
        muscle, fat = np.float32(signals["muscle"]), np.float32(signals["fat"])
        for name, share in self.fat.items():
            volume += head.share(name) * (muscle + share * (fat - muscle))
        step = np.float32(signals["grey matter"] - signals["white matter"])
        volume += self.texture * step * (head.share("white matter") + head.share("grey matter"))
        return np.asarray(np.maximum(volume, 0), dtype=np.float32)


def _fat(field: Volume) -> Volume:
    """Almost 0 or almost 1 in most places."""
    return np.asarray(1 / (1 + np.exp(-6 * field)), dtype=np.float32)


def _bounding_box(inside: NDArray[np.bool_], factors: Sequence[int], path: Path) -> tuple[slice, ...]:
    """The head with some air around it, a whole number of cells wide."""
    box = ndimage.find_objects(inside.astype(np.int8))
    if not box:
        raise BadData(f"{path} holds no label; leave it out")
    margins = []
    for extent, n, factor in zip(box[0], inside.shape, factors, strict=True):
        low, high = max(0, extent.start - AIR_MARGIN), min(n, extent.stop + AIR_MARGIN)
        margins.append(slice(low, low + (high - low) // factor * factor))
    return tuple(margins)


def _share(mask: NDArray[np.bool_], factors: Sequence[int]) -> Volume:
    """Mean over blocks."""
    (x, y, z), (a, b, c) = mask.shape, factors
    blocks = mask.reshape(x // a, a, y // b, b, z // c, c)
    return np.asarray(blocks.mean(axis=(1, 3, 5)), dtype=np.float32)


def _smooth_noise(
    shape: Sequence[int], zooms: Sequence[float], mm: float, rng: np.random.Generator
) -> Volume:
    """A field of standard deviation 1 that varies over `mm`."""
    coarse = [max(2, round(n * zoom / mm) + 1) for n, zoom in zip(shape, zooms, strict=True)]
    values = rng.standard_normal(coarse, dtype=np.float32)
    factors = [n / m for n, m in zip(shape, coarse, strict=True)]
    field = ndimage.zoom(values, factors, order=1, mode="nearest", grid_mode=True)
    # Interpolation between independent values lowers the spread.
    return np.asarray(field / field.std(), dtype=np.float32)
