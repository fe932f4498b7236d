"""Tier G: are lesions still there, as bright or as dark as they were?

Balls are inserted before harmonization, brighter and darker than their surroundings by 10 to 60 % of white
matter: into the noiseless rendering of simulated heads (before field and noise), and into one real scan of
every site. Contrast is the median inside minus that in a shell around, of the same tissue.

What becomes of it is compared with two expectations, 1 being as expected:

- *own mapping*: how the same method maps, without the lesion, the intensities around (within 20 mm) to its
  output there; the lesion's intensity and that of its shell are read off that curve. It shows whether a
  method treats a lesion otherwise than any tissue of that intensity.
- *white-grey contrast*: the change of the contrast between white and grey matter of the same scan. It shows
  whether lesions gain or lose against anatomy. Simulated heads only.

Lesions whose contrast in the input is below 5 % of white matter are in no metric.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from benchmarks.data import Data
from benchmarks.methods import Method
from benchmarks.metrics import tissue_median
from benchmarks.result_rows import Better, Row
from benchmarks.scans import Mask, Scan, Volume
from benchmarks.simulated import PROTOCOLS, Subject
from benchmarks.tiers.invariants import one_of_each_site
from bids_harmonize.imaging.tissues import white_and_grey

TIER = "G"
RADII_MM = (2.0, 4.0, 8.0)
#: Shares of white matter's intensity; each is added once and taken away once.
CONTRASTS = (0.1, 0.2, 0.4, 0.6)
MIN_CONTRAST = 0.05
#: Gap between a lesion and the shell of voxels that it is compared with, and how far the shell reaches.
GAP_MM, SHELL_MM = 1.5, 6.0
SURROUNDINGS_MM = 20.0
#: Protocols that lesions are scanned with: the first and the last of the six.
SCANNED = (0, -1)
CURVE_BINS = 24
#: A shell must have at least this many voxels.
MIN_SHELL_VOXELS = 10
#: A lesion of less than this share of the contrast expected is faint.
FAINT = 0.5


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """A ball at a voxel.

    Attributes
    ----------
    share
        Share of white matter's intensity that is added; negative of a dark lesion.
    """

    centre: tuple[int, int, int]
    radius: float
    share: float
    tissue: str


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a lesion is measured: masks inside a box around it.

    Attributes
    ----------
    core, shell
        The lesion without its soft edge, and the same tissue around it.
    near
        The brain around, from which the mapping of a method is learned.
    """

    radius: float
    box: tuple[slice, ...]
    core: Mask
    shell: Mask
    near: Mask


@dataclass(frozen=True, kw_only=True)
class Lesioned:
    """A scan without and with lesions, where they are, and what its white matter's intensity is."""

    without: Scan
    with_lesions: Scan
    places: Sequence[Place]
    tissues: Mapping[str, Mask]
    white: float


@dataclass(frozen=True, kw_only=True)
class LesionContrast:
    """Contrast of one lesion in the input and in the output, and what is expected of the latter."""

    radius: float
    before: float
    after: float
    by_own_mapping: float
    by_white_grey: float

    @property
    def sign_kept(self) -> bool:
        """Whether what was brighter than its surroundings still is, or darker."""
        return self.after * self.before > 0


def run(methods: Sequence[Method], data: Data) -> list[Row]:
    """The rows of all methods."""
    simulated = [
        lesioned_subject(subject, list(PROTOCOLS[data.modality])[index], seed)
        for seed, subject in enumerate(data.subjects)
        for index in SCANNED
    ]
    real = [lesioned_scan(scan, seed) for seed, scan in enumerate(one_of_each_site(data.sites))]
    return [
        row
        for method in methods
        for kind, scans in (("simulated", simulated), ("real sites", real))
        if scans
        for row in _method_rows(method, scans, data.modality, kind)
    ]


def lesioned_subject(subject: Subject, protocol: str, seed: int) -> Lesioned:
    """Insert lesions into the rendering, before field and noise."""
    tissues = {name: share > 0.5 for name, share in subject.shares.items()}
    lesions = draw(tissues, subject.zooms, np.random.default_rng(seed))
    rendering = insert(subject.renderings[protocol], lesions, subject.white[protocol], subject.zooms)
    without = subject.scan(protocol)
    return Lesioned(
        without=without,
        with_lesions=subject.scan(protocol, rendering, tag="-lesions"),
        places=[place(lesion, without, tissues) for lesion in lesions],
        tissues=tissues,
        white=tissue_median(without, without.volume, "white matter"),
    )


def lesioned_scan(scan: Scan, seed: int) -> Lesioned:
    """Insert lesions into a real scan."""
    white, grey = white_and_grey(scan.volume, scan.brain, modality=scan.modality)
    tissues = {"white matter": white, "grey matter": grey}
    level = float(np.median(scan.volume[white]))
    lesions = draw(tissues, scan.zooms, np.random.default_rng([seed, 1]))
    volume = insert(scan.volume, lesions, level, scan.zooms)
    return Lesioned(
        without=scan,
        with_lesions=replace(scan, name=f"{scan.name}_lesions", volume=volume),
        places=[place(lesion, scan, tissues) for lesion in lesions],
        tissues=tissues,
        white=level,
    )


def draw(tissues: Mapping[str, Mask], zooms: Sequence[float], rng: np.random.Generator) -> list[Lesion]:
    """One lesion of every radius, contrast and sign, apart from each other; tissues by turns."""
    free = {name: _densest(mask, zooms) for name, mask in tissues.items()}
    settings = [(radius, sign * c) for radius in RADII_MM[::-1] for c in CONTRASTS for sign in (1, -1)]
    lesions = []
    for number, (radius, share) in enumerate(settings):
        # Neither sign nor contrast must go with a tissue.
        tissue = list(tissues)[(number + number // 2) % 2]
        places = np.flatnonzero(free[tissue])
        if places.size:
            x, y, z = map(int, np.unravel_index(int(rng.choice(places)), free[tissue].shape))
            lesions.append(Lesion(centre=(x, y, z), radius=radius, share=share, tissue=tissue))
            _keep_clear(free, lesions[-1], zooms)
    return lesions


def _keep_clear(free: Mapping[str, Mask], lesion: Lesion, zooms: Sequence[float]) -> None:
    for mask in free.values():
        reach = lesion.radius + SHELL_MM + RADII_MM[-1]
        box, away = around(lesion.centre, reach, mask.shape, zooms)
        mask[box] &= away > reach


def _densest(mask: Mask, zooms: Sequence[float]) -> Mask:
    """Voxels of a tissue with much of the same tissue around."""
    density = ndimage.gaussian_filter(mask.astype(np.float32), [RADII_MM[1] / zoom for zoom in zooms])
    return mask & (density > np.median(density[mask]))


def around(
    centre: Sequence[int], reach: float, shape: Sequence[int], zooms: Sequence[float]
) -> tuple[tuple[slice, ...], Volume]:
    """A box that holds all voxels within `reach` mm of a voxel, and their distances from it."""
    sides = [int(np.ceil(reach / zoom)) + 1 for zoom in zooms]
    spans = [
        (max(0, c - side), min(n, c + side + 1)) for c, side, n in zip(centre, sides, shape, strict=True)
    ]
    grid = np.meshgrid(*(np.arange(*span) for span in spans), indexing="ij", sparse=True)
    x, y, z = (((axis - c) * zoom) ** 2 for axis, c, zoom in zip(grid, centre, zooms, strict=True))
    return tuple(slice(*span) for span in spans), np.sqrt(x + y + z).astype(np.float32)


def insert(volume: Volume, lesions: Sequence[Lesion], white: float, zooms: Sequence[float]) -> Volume:
    """Add the lesions, with soft edges of a voxel; nothing becomes negative."""
    changed = volume.copy()
    soft = min(zooms)
    for lesion in lesions:
        box, away = around(lesion.centre, lesion.radius + soft, volume.shape, zooms)
        changed[box] += np.float32(lesion.share * white) * np.clip((lesion.radius - away) / soft + 0.5, 0, 1)
    return np.asarray(np.maximum(changed, 0), dtype=np.float32)


def place(lesion: Lesion, scan: Scan, tissues: Mapping[str, Mask]) -> Place:
    """Where to measure a lesion."""
    box, away = around(lesion.centre, lesion.radius + SURROUNDINGS_MM, scan.volume.shape, scan.zooms)
    shell = (away > lesion.radius + GAP_MM) & (away < lesion.radius + SHELL_MM)
    return Place(
        radius=lesion.radius,
        box=box,
        core=away <= max(lesion.radius - min(scan.zooms) / 2, 0),
        shell=shell & tissues[lesion.tissue][box],
        near=(away < lesion.radius + SURROUNDINGS_MM) & scan.brain[box],
    )


def compare(method: Method, scans: Lesioned) -> list[LesionContrast]:
    """Contrast of the lesions of a scan that can be seen in the input."""
    before, after = scans.with_lesions.volume, method.apply(scans.with_lesions)
    plain = method.apply(scans.without)
    change = _white_grey_change(scans, plain)
    contrasts = []
    for place in scans.places:
        if np.count_nonzero(place.shell) < MIN_SHELL_VOXELS:
            continue
        inside, outside = _medians(before, place)
        if abs(inside - outside) < MIN_CONTRAST * scans.white:
            continue
        curve = LocalCurve.of(scans.without.volume[place.box][place.near], plain[place.box][place.near])
        contrasts.append(
            LesionContrast(
                radius=place.radius,
                before=inside - outside,
                after=float(np.subtract(*_medians(after, place))),
                by_own_mapping=curve(inside) - curve(outside),
                by_white_grey=change * (inside - outside),
            )
        )
    return contrasts


def _medians(volume: Volume, place: Place) -> tuple[float, float]:
    """Inside and around."""
    return float(np.median(volume[place.box][place.core])), float(np.median(volume[place.box][place.shell]))


def _white_grey_change(scans: Lesioned, plain: Volume) -> float:
    """White-grey contrast of the output over that of the input."""
    white, grey = (scans.tissues[name] for name in ("white matter", "grey matter"))
    after, before = (float(np.median(v[white]) - np.median(v[grey])) for v in (plain, scans.without.volume))
    return after / before


@dataclass(frozen=True, kw_only=True)
class LocalCurve:
    """Medians of output over bins of input; straight on beyond, as the outer half goes."""

    knots: NDArray[np.float32]
    values: NDArray[np.float32]

    @classmethod
    def of(cls, before: Volume, after: Volume) -> LocalCurve:
        order = np.argsort(before)
        bins = np.array_split(order, min(CURVE_BINS, len(order)))
        knots, values = (np.array([np.median(v[part]) for part in bins]) for v in (before, after))
        return cls(knots=knots, values=values)

    def __call__(self, value: float) -> float:
        knots, values, middle = self.knots, self.values, len(self.knots) // 2
        if value < knots[0]:
            return float(values[0] + (value - knots[0]) * _slope(knots[: middle + 1], values[: middle + 1]))
        if value > knots[-1]:
            return float(values[-1] + (value - knots[-1]) * _slope(knots[middle:], values[middle:]))
        return float(np.interp(value, knots, values))


def _slope(knots: NDArray[np.float32], values: NDArray[np.float32]) -> float:
    return float((values[-1] - values[0]) / (knots[-1] - knots[0]))


def _method_rows(method: Method, scans: Sequence[Lesioned], modality: str, kind: str) -> list[Row]:
    found = [lesion for lesioned in scans for lesion in compare(method, lesioned)]
    kept = [lesion.sign_kept for lesion in found]
    small = [lesion.sign_kept for lesion in found if lesion.radius == RADII_MM[0]]
    own = [lesion.after / lesion.by_own_mapping for lesion in found if lesion.by_own_mapping]
    faint = [ratio < FAINT for ratio in own]
    used = len(scans)
    smallest = f"{kind}: sign of contrast kept, radius {RADII_MM[0]:g} mm, %"
    rows = [
        _share(f"{kind}: sign of contrast kept, %", method, modality, kept, used, "higher"),
        _share(smallest, method, modality, small, used, "higher"),
        _share(f"{kind}: below half of own mapping, %", method, modality, faint, used, "lower"),
        _median(f"{kind}: contrast over own mapping", method, modality, own, used),
    ]
    if kind == "simulated":
        anatomy = [lesion.after / lesion.by_white_grey for lesion in found if lesion.by_white_grey]
        rows.append(_median(f"{kind}: contrast over white-grey contrast", method, modality, anatomy, used))
    return rows


def _share(
    metric: str, method: Method, modality: str, hits: Sequence[bool], scans: int, better: Better
) -> Row:
    """Per cent; the spread is the binomial standard error."""
    share = float(np.mean(hits)) if hits else float("nan")
    error = 100 * np.sqrt(share * (1 - share) / len(hits)) if hits else float("nan")
    return Row(
        tier=TIER,
        modality=modality,
        metric=metric,
        method=method.name,
        value=100 * share,
        spread=float(error),
        n=len(hits),
        better=better,
        scans_used=scans,
    )


def _median(metric: str, method: Method, modality: str, ratios: Sequence[float], scans: int) -> Row:
    """Median and interquartile range over 1.35, which is the standard deviation of normal numbers."""
    low, median, high = np.percentile(ratios, [25, 50, 75]) if ratios else [float("nan")] * 3
    return Row(
        tier=TIER,
        modality=modality,
        metric=metric,
        method=method.name,
        value=float(median),
        spread=float((high - low) / 1.35),
        n=len(ratios),
        better="neither",
        scans_used=scans,
    )
