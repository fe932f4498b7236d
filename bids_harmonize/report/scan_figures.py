"""Figures of one scan: slices before and after, the edit, tone curves, histograms.

Each is a file of its own, with one more that says what was drawn, so that a later run draws only what is out
of date.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray

from bids_harmonize.anatomy import Mask, Volume, tissue_mask
from bids_harmonize.bids.atomic import write_atomically, write_json, write_text
from bids_harmonize.bids.fields import Fields, check_fields, is_flag, is_number, is_positive, is_text, list_of
from bids_harmonize.bids.jsonfile import read_object
from bids_harmonize.errors import BadData
from bids_harmonize.grid import CELL_MM, KNOTS, STEP, Cells
from bids_harmonize.image import (
    SCALE_SAMPLE,
    as_magnitude,
    intensity_scale,
    open_image,
    read_voxels,
    zooms,
)
from bids_harmonize.intensities import BINS, BRIGHTEST, PERCENTILES, ReferenceIntensities, spread
from bids_harmonize.model import Transform
from bids_harmonize.report.page import BLUE, FAINT, INK, ORANGE, grey_png, plain_axes, svg
from bids_harmonize.safety import FOREGROUND, LARGEST_SAMPLE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BEFORE, AFTER, EDIT, CURVES, HISTOGRAM = "before", "after", "edit", "curves", "histogram"
# Axis across which each plane lies, of volumes whose axes are right, anterior, superior.
PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}
# Blue is darker and red brighter than by the overall factor; told apart with any kind of colour vision.
EDIT_COLOURS = "RdBu_r"
# Besides none, an odd number, so that one of them is no change.
SHADES_OF_EDIT = 255
# Of the voxels of the edit map that lie within its colours.
MOST_OF_EDIT = 99.0
# Per cent at the ends of its colours; nothing can be darkened by more than the last.
EDIT_LIMITS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
# Times the bright value, to which tone curves are shown.
CURVES_END = 1.2
# Cells with more tissue than this lie inside the head.
INSIDE = 0.5
# Bins of input intensity, and voxels that a bin must hold to have percentiles.
CURVE_BINS, LEAST_IN_BIN = 40, 50
# Voxels that percentiles are taken of.
SAMPLE = 1_000_000
# Inches; text that is still read on a phone's width.
WIDTH, HEIGHT = 5.0, 3.0


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What there is of a scan besides its original, and where its figures go.

    Attributes
    ----------
    key
        Changes when anything does that the figures are made from.
    image
        The derivative.
    transform
        The saved curves; None if they were not saved.
    harmonized
        False if the derivative is the original, passed through.
    gain
        Median of after/before over the foreground, as the sidecar says; None if it does not.
    reference
        Intensities of the model's reference group, where they are known.
    figures
        Path of a figure without its ending, a format string with ``{}`` where it says what it shows.
    """

    key: str
    image: Path
    transform: Path | None
    harmonized: bool
    gain: float | None
    reference: ReferenceIntensities | None
    figures: str

    def picture(self, what: str, plane: str) -> Path:
        """Where a slice lies."""
        return Path(self.figures.format(f"{what}{plane.capitalize()}") + ".png")

    def drawing(self, what: str) -> Path:
        """Where curves or a histogram lie."""
        return Path(self.figures.format(what) + ".svg")

    @property
    def record(self) -> Path:
        """Where it says what was drawn."""
        return Path(self.figures.format("figures") + ".json")


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A slice that is shown: its number of so many, counted from left, back or below, and its size in mm."""

    name: str
    number: int
    slices: int
    across: float
    upwards: float


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What was drawn of a scan.

    Attributes
    ----------
    key
        Of the scan, when they were drawn.
    missing
        Why the original is not shown; empty if it is.
    pictures
        Which of before, after and edit there are, in three planes each.
    drawings
        Which of curves and histogram there are.
    oriented
        Whether the image says where left and right are.
    edit_limit
        Per cent at the ends of the edit's colours; None if there is no edit map.
    from_transform
        Whether the tone curves are the saved ones.
    apart
        Share of tissue whose intensity differs from the reference group's typical histogram, of before and
        after, as far as known.
    voxels, zooms
        Shape and voxel size in mm of the image as it is shown.
    """

    key: str
    missing: str
    pictures: Sequence[str]
    drawings: Sequence[str]
    planes: Sequence[Plane]
    oriented: bool
    edit_limit: float | None
    from_transform: bool
    apart: Mapping[str, float]
    voxels: Sequence[int]
    zooms: Sequence[float]

    @classmethod
    def read(cls, scan: Scan) -> Self | None:
        """What was drawn before; None if that is not known, or not all of it is there any more."""
        try:
            told = read_object(scan.record)
            check_fields(scan.record, told, DRAWN)
            drawn = cls(**told | {"planes": [Plane(**plane) for plane in told["planes"]]})
            there = all(path.is_file() for path in drawn.files(scan))
        except (BadData, LookupError, TypeError):
            return None
        return drawn if there else None

    def files(self, scan: Scan) -> list[Path]:
        """All figures."""
        pictures = [scan.picture(what, plane.name) for what in self.pictures for plane in self.planes]
        return pictures + [scan.drawing(what) for what in self.drawings]


def _some_of(*known: str) -> Callable[[object], bool]:
    return list_of(lambda value: value in known)


def _is_plane(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.get("name") in tuple(PLANES)
        and all(is_positive(value.get(key)) for key in ("number", "slices", "across", "upwards"))
    )


DRAWN: Fields = {
    **dict.fromkeys(("key", "missing"), is_text),
    "pictures": lambda value: bool(value) and _some_of(BEFORE, AFTER, EDIT)(value),
    "drawings": _some_of(CURVES, HISTOGRAM),
    "planes": list_of(_is_plane),
    **dict.fromkeys(("oriented", "from_transform"), is_flag),
    "edit_limit": lambda value: value is None or is_positive(value),
    "apart": lambda value: isinstance(value, dict) and all(map(is_number, value.values())),
    **dict.fromkeys(("voxels", "zooms"), list_of(is_positive)),
}
"""What the file that says what was drawn must hold."""


@dataclass(frozen=True, kw_only=True)
class ToneCurves:
    """How intensities are mapped: percentiles 5, 50 and 95 of the output, (3, n), at n inputs."""

    inputs: NDArray[np.floating]
    outputs: NDArray[np.floating]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Seen:
    """One of the images, and where there is tissue; what is asked for again and again is found once.

    Attributes
    ----------
    thinned
        Planes that are looked at for tissue, of a large volume not all.
    """

    volume: Volume
    tissue: Mask
    thinned: tuple[slice, ...]

    @cached_property
    def bright(self) -> float:
        return intensity_scale(self.volume)

    @cached_property
    def values(self) -> NDArray[np.float32]:
        """Of the tissue."""
        return self.volume[self.thinned][self.tissue]


def draw(scan: Scan, original: Path | None, missing: str = "") -> Drawn:
    """Draw all figures of a scan that can be drawn, and write down which.

    Parameters
    ----------
    original
        The image that the derivative was made from; None if it is not there, and then `missing` says why.

    Raises
    ------
    BadData, NoInput
        An image cannot be read.
    CannotCreate, InputOutputError
        A figure cannot be written.
    """
    image = open_image(scan.image)
    volume, size = _canonical(image)
    thinned = _thinned(volume.shape, size)
    apart_mm = [zoom * (along.step or 1) for zoom, along in zip(size, thinned, strict=True)]
    tissue = tissue_mask(volume[thinned], apart_mm)
    shown = _Seen(volume=volume, tissue=tissue, thinned=thinned)
    planes = _planes(shown, size)
    limit, curves, apart = None, None, dict[str, float]()
    if scan.harmonized:
        before = None
        if original is not None:
            before = _Seen(volume=_like(original, volume.shape), tissue=tissue, thinned=thinned)
        pictures = _slices(scan, planes, before, shown)
        if before is not None:
            limit = _edit(scan, planes, before, shown)
        curves = _tone_curves(scan, image.affine, before, shown)
        apart = _histogram(scan, before, shown)
    else:
        pictures = _slices(scan, planes, shown, None)
    if curves is not None:
        write_text(scan.drawing(CURVES), svg(_curves_figure(curves, scan.gain), _curves_in_words(curves)))
    drawn = Drawn(
        key=scan.key,
        missing=missing,
        pictures=[*pictures, *([EDIT] if limit is not None else [])],
        drawings=[*([CURVES] if curves is not None else []), *([HISTOGRAM] if scan.harmonized else [])],
        planes=planes,
        oriented=bool(int(image.header["qform_code"]) or int(image.header["sform_code"])),
        edit_limit=limit,
        from_transform=scan.transform is not None,
        apart=apart,
        voxels=list(volume.shape),
        zooms=list(size),
    )
    # The last: figures without it are drawn again.
    write_json(scan.record, asdict(drawn))
    return drawn


# --- Slices -----------------------------------------------------------------------------------------------


def _canonical(image: Nifti1Image) -> tuple[Volume, tuple[float, float, float]]:
    """Voxels, and their size, with axes as near to right, anterior, superior as they can be."""
    voxels = as_magnitude(read_voxels(image))[0]
    canonical = nib.as_closest_canonical(Nifti1Image(voxels, image.affine, image.header))
    return np.asarray(canonical.dataobj, dtype=np.float32), zooms(canonical)


def _like(path: Path, shape: tuple[int, ...]) -> Volume:
    voxels = _canonical(open_image(path))[0]
    if voxels.shape != shape:
        raise BadData(f"{path} has {voxels.shape} voxels, its derivative {shape}; harmonize it again")
    return voxels


def _thinned(shape: Sequence[int], size: Sequence[float]) -> tuple[slice, ...]:
    """Every so many planes across the longest axis: enough of a large volume, but some of every cell."""
    longest = int(np.argmax(shape))
    step = max(1, min(round(math.prod(shape) / LARGEST_SAMPLE), int(CELL_MM / size[longest])))
    return tuple(slice(None, None, step if axis == longest else None) for axis in range(3))


def _planes(seen: _Seen, size: Sequence[float]) -> list[Plane]:
    """Through the most tissue across each axis."""
    tissue, shape = seen.tissue, seen.volume.shape
    planes = []
    for name, axis in PLANES.items():
        first, second = (n * zoom for k, (n, zoom) in enumerate(zip(shape, size, strict=True)) if k != axis)
        number = int(np.argmax(tissue.sum(axis=tuple({0, 1, 2} - {axis})))) * (seen.thinned[axis].step or 1)
        slices = shape[axis]
        planes.append(Plane(name=name, number=number + 1, slices=slices, across=first, upwards=second))
    return planes


def _slice(volume: NDArray[Any], plane: Plane) -> NDArray[Any]:
    # Not numpy.take, which copies all of a volume in Fortran's order.
    return np.moveaxis(volume, PLANES[plane.name], 0)[plane.number - 1]


def _slices(scan: Scan, planes: Sequence[Plane], before: _Seen | None, after: _Seen | None) -> list[str]:
    """Write slices in one window: from 0 to each image's own bright value."""
    images = {what: seen for what, seen in ((BEFORE, before), (AFTER, after)) if seen is not None}
    for what, seen in images.items():
        for plane in planes:
            _write(scan.picture(what, plane.name), grey_png(_slice(seen.volume, plane), seen.bright))
    return list(images)


def _edit(scan: Scan, planes: Sequence[Plane], before: _Seen, after: _Seen) -> float:
    """Write maps of the gain relative to its median, in per cent; return the limit of their colours."""
    foreground = FOREGROUND * before.bright
    overall = scan.gain or _overall(before.volume, after.volume, foreground)
    maps = []
    for plane in planes:
        first, second = (_slice(seen.volume, plane).astype(np.float64) for seen in (before, after))
        inside = first > foreground
        change = np.divide(100 * second, overall * first, out=np.full_like(first, np.nan), where=inside) - 100
        maps.append(change)
    found = np.concatenate([np.abs(change[np.isfinite(change)]) for change in maps])
    limit = _round_up(float(np.percentile(found, MOST_OF_EDIT))) if found.size else 1.0
    for plane, change in zip(planes, maps, strict=True):
        _write(scan.picture(EDIT, plane.name), _coloured_png(change, limit))
    return limit


def _overall(before: Volume, after: Volume, foreground: float) -> float:
    inside = before > foreground
    return float(np.median(after[inside] / before[inside]))


def _round_up(value: float) -> float:
    """The next of `EDIT_LIMITS`, or the last."""
    return next((limit for limit in EDIT_LIMITS if limit >= value), EDIT_LIMITS[-1])


def _coloured_png(change: NDArray[np.float64], limit: float) -> bytes:
    """A slice of the edit map, one byte a pixel; what is no foreground is transparent."""
    from PIL import Image

    place = np.nan_to_num(np.clip(0.5 + change.T[::-1] / (2 * limit), 0, 1))
    pixels = np.where(np.isnan(change.T[::-1]), 0, 1 + np.rint(place * (SHADES_OF_EDIT - 1)))
    picture = Image.fromarray(pixels.astype(np.uint8), mode="P")
    picture.putpalette(b"\0\0\0" + b"".join(bytes.fromhex(c[1:]) for c in edit_ramp(SHADES_OF_EDIT)))
    file = io.BytesIO()
    picture.save(file, format="png", transparency=0)
    return file.getvalue()


@cache
def edit_ramp(stops: int = 11) -> tuple[str, ...]:
    """The edit's colours from darkest to brightest, for a colour bar."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return tuple(to_hex(colormaps[EDIT_COLOURS](place)) for place in np.linspace(0, 1, stops))


def _write(path: Path, png: bytes) -> None:
    with write_atomically(path) as temporary:
        temporary.write_bytes(png)


# --- Tone curves ------------------------------------------------------------------------------------------


def _tone_curves(
    scan: Scan, affine: NDArray[np.floating], before: _Seen | None, after: _Seen
) -> ToneCurves | None:
    """The saved curves inside the head, else what the voxels tell; None if there is neither."""
    if scan.transform is not None:
        return _curves_of_cells(Transform.load(scan.transform), affine, after.tissue)
    return None if before is None else _curves_of_voxels(before.values, after.values, before.bright)


def _curves_of_cells(transform: Transform, affine: NDArray[np.floating], tissue: Mask) -> ToneCurves:
    """Percentiles over the cells inside the head."""
    orientation = nib.orientations.io_orientation(affine)
    grid = nib.orientations.apply_orientation(transform.curves.permute(1, 2, 3, 0).numpy(), orientation)
    inside = _cell_means(tissue, grid.shape[:3]) > INSIDE
    # A thin or small object may fill no cell.
    curves = grid[inside] if inside.any() else grid.reshape(-1, KNOTS)
    shown = np.arange(KNOTS) * STEP <= CURVES_END
    outputs = np.percentile(curves[:, shown], PERCENTILES, axis=0)
    return ToneCurves(inputs=np.arange(KNOTS)[shown] * STEP * transform.scale, outputs=outputs)


def _cell_means(mask: Mask, counts: Sequence[int]) -> NDArray[np.float64]:
    """Share of every cell that lies in a mask."""
    x, y, z = mask.shape
    cells = Cells((x, y, z), (counts[0], counts[1], counts[2]))
    means = mask.astype(np.float64)
    for axis, count in enumerate(counts):
        index = cells.index(axis).numpy()
        sums = np.add.reduceat(means, np.searchsorted(index, np.arange(count)), axis=axis)
        sizes = np.bincount(index, minlength=count)
        means = sums / sizes.reshape([-1 if k == axis else 1 for k in range(3)])
    return means


def _curves_of_voxels(
    before: NDArray[np.float32], after: NDArray[np.float32], bright: float
) -> ToneCurves | None:
    """Percentiles of the output over the voxels of about one input."""
    step = max(1, before.size // SAMPLE)
    before, after = before[::step], after[::step]
    width = CURVES_END * bright / CURVE_BINS
    order = np.argsort(before, kind="stable")
    ends = np.searchsorted(before[order], width * np.arange(CURVE_BINS + 1))
    bins = [
        (width * (n + 0.5), np.percentile(after[order[first:last]], PERCENTILES))
        for n, (first, last) in enumerate(pairwise(ends))
        if last - first >= LEAST_IN_BIN
    ]
    if not bins:
        return None
    inputs, outputs = zip(*bins, strict=True)
    return ToneCurves(inputs=np.array(inputs), outputs=np.stack(outputs, axis=1))


def _curves_figure(curves: ToneCurves, gain: float | None) -> Figure:
    figure, panel = _figure()
    low, middle, high = curves.outputs
    panel.fill_between(
        curves.inputs, low, high, color=BLUE, alpha=0.25, linewidth=0, label="90 % of the places"
    )
    panel.plot(curves.inputs, middle, color=BLUE, linewidth=2, label="median")
    if gain is not None:
        ends = np.array([0, curves.inputs[-1]])
        panel.plot(ends, gain * ends, color=FAINT, linewidth=1.2, linestyle="--", label="one factor for all")
    panel.set_xlabel("intensity before, in the scanner's unit", color=INK, size=9)
    panel.set_ylabel("intensity after", color=INK, size=9)
    panel.set(xlim=(0, curves.inputs[-1]), ylim=(0, None))
    _legend(panel)
    return figure


def _curves_in_words(curves: ToneCurves) -> str:
    low, middle, high = curves.outputs
    places = np.searchsorted(curves.inputs, curves.inputs[-1] * np.array([0.25, 0.5, 0.75]))
    told = "; ".join(
        f"{curves.inputs[n]:.0f} becomes {middle[n]:.0f} ({low[n]:.0f} to {high[n]:.0f})" for n in places
    )
    return f"Tone curves, from intensity before to intensity after: {told}."


# --- Histograms -------------------------------------------------------------------------------------------


def _histogram(scan: Scan, before: _Seen | None, after: _Seen) -> dict[str, float]:
    """Draw the histograms of tissue; return how far each is from the reference group's typical one."""
    reference = scan.reference
    values = {AFTER: _sample(after)}
    if before is not None:
        # One after the other: the factor may be more than float32 holds.
        relative = _sample(before) / np.float32(before.bright)
        values = {BEFORE: relative * np.float32(after.bright), **values}
    top = reference.top if reference else float(np.quantile(values[AFTER], BRIGHTEST))
    shares = {what: spread(intensities, top) for what, intensities in values.items()}
    medians = {what: float(np.median(intensities)) for what, intensities in values.items()}
    write_text(
        scan.drawing(HISTOGRAM), svg(_histogram_figure(shares, top, reference), _histogram_in_words(medians))
    )
    if reference is None:
        return {}
    typical = reference.shares[PERCENTILES.index(50)] / max(
        reference.shares[PERCENTILES.index(50)].sum(), 1e-6
    )
    return {what: round(float(np.abs(share - typical).sum() / 2), 4) for what, share in shares.items()}


def _sample(seen: _Seen) -> NDArray[np.float32]:
    """Values of tissue, no more than a histogram needs."""
    return seen.values[:: max(1, seen.values.size // SCALE_SAMPLE)]


def _histogram_figure(
    shares: Mapping[str, NDArray[np.float64]], top: float, reference: ReferenceIntensities | None
) -> Figure:
    figure, panel = _figure()
    middles = (np.arange(BINS) + 0.5) * top / BINS
    if reference is not None:
        low, middle, high = 100 * reference.shares
        panel.fill_between(
            middles, low, high, color=FAINT, alpha=0.3, linewidth=0, label="reference group (90 %)"
        )
        panel.plot(middles, middle, color=FAINT, linewidth=1.2, linestyle="--", label="its median")
    styles = {BEFORE: (ORANGE, (0, (4, 1.5)), "before, rescaled"), AFTER: (BLUE, "-", "after")}
    for what, share in shares.items():
        colour, line, label = styles[what]
        panel.plot(middles, 100 * share, color=colour, linewidth=2, linestyle=line, label=label)
    panel.set_xlabel("intensity, in the unit of the outputs", color=INK, size=9)
    panel.set_ylabel("share of tissue, %", color=INK, size=9)
    panel.set(xlim=(0, top), ylim=(0, None))
    _legend(panel)
    return figure


def _histogram_in_words(medians: Mapping[str, float]) -> str:
    told = ", ".join(f"{median:.0f} {what}" for what, median in medians.items())
    return f"Histogram of the intensities of tissue. Median: {told}."


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    panel = figure.subplots()
    plain_axes(panel)
    return figure, panel


def _legend(panel: Axes) -> None:
    panel.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False, fontsize=8.5, labelcolor=INK
    )
