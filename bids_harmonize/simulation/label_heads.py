"""Heads made of tissue fractions, from label maps: scans with a known truth, under any protocol."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Self

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.imaging.types import Mask, Volume

# Labels are numbered as by FreeSurfer inside the brain, and as by SAMSEG-CHARM outside it.
FREESURFER_LABELS: Mapping[str, Sequence[int]] = {
    "white matter": (2, 7, 16, 28, 41, 46, 60, 77, 85, 192, 250, 251, 252, 253, 254, 255, 512, 530),
    "grey matter": (3, 8, 17, 18, 42, 47, 53, 54, 80, 136, 137, 163, 164),
    "deep grey matter": (10, 11, 12, 13, 26, 49, 50, 51, 52, 58),
    # Around the ventricles of nearly everybody, and in much of the white matter of some.
    "lesion": (25, 57),
    "csf": (4, 5, 14, 15, 24, 31, 43, 44, 63, 72, 506),
    "blood": (30, 62, 502, 514),
    "muscle": (508,),
    "soft tissue": (507,),
    "scalp": (511,),
    "mucosa": (509,),
    "bone": (515,),
    "marrow": (516,),
}
# FreeSurfer's numbers, all of which are parts of the brain, end below this one.
MAX_BRAIN_LABEL = 500
# These labels hold fat as well as muscle, which lie in clumps. Where the number is positive, fat prevails.
FAT_OR_MUSCLE = {"soft tissue": 0.0, "scalp": 1.0}
CLUMP_MM = 12.0
# Grey matter in white matter, and white in grey, make a texture: its share, and the sizes of its grains.
TEXTURE, TEXTURE_MM = 0.06, (2.0, 6.0)
SPOT_RADII_MM = (2.5, 9.0)
AIR_MARGIN_VOXELS = 8


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
    brain: Mask
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
        inside = (labels > 0) & (labels < MAX_BRAIN_LABEL)
        brain = _share(inside, factors) > 0.5
        if not brain.any():
            raise BadData(f"{path} holds no brain; leave it out")
        x, y, z = (float(n * f) for n, f in zip(image.header.get_zooms()[:3], factors, strict=True))
        return cls(
            name=path.name.split("_")[0],
            tissues=tuple(FREESURFER_LABELS),
            fractions=np.stack(
                [_share(np.isin(labels, numbers), factors) for numbers in FREESURFER_LABELS.values()]
            ),
            brain=brain,
            zooms=(x, y, z),
        )

    def share(self, tissue: str) -> Volume:
        """The share of one tissue in every voxel."""
        return self.fractions[self.tissues.index(tissue)]

    def person(
        self,
        rng: np.random.Generator,
        spots: Mapping[str, int] = MappingProxyType({}),
        grain: float = 0.0,
    ) -> Person:
        """Draw what the label map leaves open; it is the same in all scans of that person.

        Parameters
        ----------
        spots
            How many round spots of another tissue the brain has; half of them are rings.
        grain
            Standard deviation of a texture of single voxels, as a share of the other tissue.
        """
        clumps = _smooth_noise(self.brain.shape, self.zooms, CLUMP_MM, rng)
        fat = {name: _fat(clumps + rng.normal(mean, 1)) for name, mean in FAT_OR_MUSCLE.items()}
        fields = [_smooth_noise(self.brain.shape, self.zooms, mm, rng) for mm in TEXTURE_MM]
        texture = np.float32(TEXTURE / np.sqrt(2)) * (fields[0] + fields[1])
        places = np.argwhere(self.share("white matter") > 0.5)
        lesions = {name: _spots(places, self.brain.shape, self.zooms, n, rng) for name, n in spots.items()}
        if grain:
            texture += np.float32(grain) * rng.standard_normal(texture.shape, dtype=np.float32)
        return Person(head=self, fat=fat, texture=texture, spots=lesions)


@dataclass(frozen=True, kw_only=True)
class Person:
    """A head with its own fat and texture.

    Attributes
    ----------
    fat
        Share of fat, 0 to 1, in soft tissue and in scalp; the rest is muscle.
    texture
        Share of grey matter in white, and of white in grey where negative.
    spots
        Share of lesions and the like, instead of what else is there.
    """

    head: Head
    fat: Mapping[str, Volume]
    texture: Volume
    spots: Mapping[str, Volume] = field(default_factory=dict)

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
        for name, share in self.spots.items():
            volume += share * (np.float32(signals[name]) - volume)
        return np.asarray(np.maximum(volume, 0), dtype=np.float32)


def _fat(field: Volume) -> Volume:
    """The share of fat by a field of random numbers: almost 0 or almost 1 in most places."""
    return np.asarray(1 / (1 + np.exp(-6 * field)), dtype=np.float32)


def _spots(
    places: NDArray[np.intp],
    shape: Sequence[int],
    zooms: Sequence[float],
    count: int,
    rng: np.random.Generator,
) -> Volume:
    """The share of balls and shells around `count` of the places."""
    share = np.zeros(shape, dtype=np.float32)
    for centre in places[rng.integers(len(places), size=count)]:
        radius = rng.uniform(*SPOT_RADII_MM)
        hollow = rng.uniform(0.3, 0.7) * radius if rng.random() < 0.5 else -np.inf
        window, offsets = [], []
        for place, n, zoom in zip(centre.tolist(), shape, zooms, strict=True):
            reach = math.ceil(radius / zoom) + 1
            window.append(slice(max(0, place - reach), min(n, place + reach + 1)))
            offsets.append((np.arange(n)[window[-1]] - place) * zoom)
        distance = np.sqrt(sum(np.square(offset) for offset in np.ix_(*offsets)))
        edge = float(np.mean(zooms))
        spot = np.clip((radius - distance) / edge + 0.5, 0, 1) * np.clip(
            (distance - hollow) / edge + 0.5, 0, 1
        )
        share[tuple(window)] = np.maximum(share[tuple(window)], spot)
    return share


def _bounding_box(inside: Mask, factors: Sequence[int], path: Path) -> tuple[slice, ...]:
    """The head with some air around it, a whole number of cells wide."""
    box = ndimage.find_objects(inside.astype(np.int8))
    if not box:
        raise BadData(f"{path} holds no label; leave it out")
    margins = []
    for extent, n, factor in zip(box[0], inside.shape, factors, strict=True):
        low, high = max(0, extent.start - AIR_MARGIN_VOXELS), min(n, extent.stop + AIR_MARGIN_VOXELS)
        margins.append(slice(low, low + (high - low) // factor * factor))
    return tuple(margins)


def _share(mask: Mask, factors: Sequence[int]) -> Volume:
    """The share of a mask in every block of `factors` voxels."""
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
