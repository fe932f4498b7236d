"""The choice of the reference group as a table and a contact sheet: who is in, who is out, and why."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.files.atomic import write_atomically, write_json, write_text
from bids_harmonize.imaging.slices import slice_at, slice_axis, slice_extent, slices_at_shares
from bids_harmonize.measures.image_quality import QUALITY_METRICS, format_significant
from bids_harmonize.training.reference_group import RankedCandidate, ReferenceScan, ReferenceSelection

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLUMNS = {
    "rank": "1 is the best; who left first has the last.",
    "scan": "Name of the candidate.",
    "group": "Whether the scan is in the reference group or out of it.",
    "reason": "Why, in words.",
    "score": "Quality plus homogeneity; the lowest left, again and again.",
    "quality": "Mean of the deviations of its measures from all candidates' median; more is better.",
    "homogeneity": "Deviation of its distance from those in the group it stood in last; more is better.",
    "distance": "Mean difference of its quantile function from that group's median, in units of its level.",
    "level": "Median of white matter in a head, of tissue elsewhere; in the scan's own unit.",
    **{
        name: f"{measure.label}; {'more' if measure.more_is_better else 'less'} is better.".capitalize()
        for name, measure in QUALITY_METRICS.items()
    },
    "not_measured": "Measures that this scan cannot give, and why.",
}

# Colours of the palette of Okabe and Ito (2008), distinguishable with any kind of colour vision.
GOOD, BAD = "#0072B2", "#D55E00"
BLACK, GREY = "#111827", "#6B7280"
# Robust standard deviations that get the full colour.
FULL_COLOUR = 3.0
# Each slice is placed so that this share of the region's voxels lies below it.
HEIGHTS = (0.3, 0.55, 0.8)
# Intensities above this quantile of the region are white in all pictures.
WINDOW_QUANTILE = 0.995
# All lengths on the sheet are in inches, from its upper left corner.
MARGIN, HEADING, ROW, GAP = 0.25, 1.2, 1.5, 0.08
TEXT, CELL = 4.1, 0.8
DOTS_PER_INCH = 110
# Matplotlib draws no larger picture, so hundreds of candidates get fewer dots each.
MAX_DOTS = 60_000
REASON_CHARACTERS, REASON_LINES = 56, 4


def write_reference_group(
    selection: ReferenceSelection, folder: Path, modality: str, picture: bytes | None = None
) -> list[Path]:
    """Write ``reference-group_<modality>`` as table (.tsv), its data dictionary (.json) and sheet (.png).

    Parameters
    ----------
    picture
        The sheet as `contact_sheet_png` gives it, if it was drawn before.

    Returns
    -------
    list of Path
        The three files.

    Raises
    ------
    CannotCreate, InputOutputError
        As `write_atomically` does.
    """
    table = folder / f"reference-group_{modality}.tsv"
    dictionary, sheet = table.with_suffix(".json"), table.with_suffix(".png")
    write_text(table, _tsv(selection))
    write_json(dictionary, {name: {"Description": text} for name, text in COLUMNS.items()})
    with write_atomically(sheet) as temporary:
        temporary.write_bytes(picture or contact_sheet_png(selection, modality))
    return [table, dictionary, sheet]


def _tsv(selection: ReferenceSelection) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, delimiter="\t", lineterminator="\n", restval="n/a")
    writer.writeheader()
    writer.writerows(_row(ranked) for ranked in selection.ranking)
    return text.getvalue()


def _row(ranked: RankedCandidate) -> dict[str, Any]:
    candidate = ranked.candidate
    figures = {
        "score": candidate.score,
        "quality": candidate.quality,
        "homogeneity": candidate.homogeneity,
        "distance": candidate.distance,
        "level": candidate.scan.reference_intensity,
        **candidate.scan.quality.values,
    }
    missing = candidate.scan.quality.missing
    return {
        "rank": ranked.rank,
        "scan": candidate.scan.name,
        "group": "in" if ranked.chosen else "out",
        "reason": ranked.reason,
        **{name: f"{value:.4g}" for name, value in figures.items()},
        "not_measured": "; ".join(f"{name}: {why}" for name, why in missing.items()) or "n/a",
    }


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What all rows share: columns, window and scale of the pictures."""

    measures: list[str]
    window: float
    inches_per_mm: float
    picture: float

    @property
    def figures(self) -> float:
        """Where the figures begin."""
        return MARGIN + TEXT + len(HEIGHTS) * (self.picture + GAP) + GAP

    @property
    def width(self) -> float:
        return self.figures + (1 + len(self.measures)) * CELL + MARGIN


def contact_sheet_png(selection: ReferenceSelection, modality: str) -> bytes:
    """The contact sheet as a picture."""
    file = io.BytesIO()
    contact_sheet(selection, modality).savefig(file, format="png")
    return file.getvalue()


def contact_sheet(selection: ReferenceSelection, modality: str) -> Figure:
    """One row per candidate, the best first: rank and reason, three slices, figures by colour.

    Slices lie across the third axis (axial) or across the thickest voxels, in one window and scale for all.
    """
    from matplotlib.figure import Figure

    layout = _layout([ranked.candidate.scan for ranked in selection.ranking])
    height = HEADING + len(selection.ranking) * ROW + MARGIN
    figure = Figure(
        figsize=(layout.width, height), dpi=min(DOTS_PER_INCH, MAX_DOTS / height), facecolor="white"
    )
    sheet = figure.add_axes((0, 0, 1, 1))
    sheet.set_axis_off()
    _heading(sheet, selection, modality, layout)
    for row, ranked in enumerate(selection.ranking):
        top = HEADING + row * ROW
        _shade(sheet, (0, top), (layout.width, ROW - GAP / 2), GOOD if ranked.chosen else BAD, 0.05)
        _words(sheet, ranked, top)
        _pictures(sheet, ranked.candidate.scan, layout, top)
        _figures(sheet, ranked, layout, top)
    sheet.set(xlim=(0, layout.width), ylim=(height, 0), aspect="auto")
    return figure


def _layout(scans: Sequence[ReferenceScan]) -> Layout:
    across, upwards = np.max([_extent(scan) for scan in scans], axis=0)
    scale = (ROW - 2 * GAP) / upwards
    bright = [
        np.quantile(scan.volume[scan.region], WINDOW_QUANTILE) / scan.reference_intensity for scan in scans
    ]
    return Layout(
        measures=[name for name in QUALITY_METRICS if any(name in scan.quality.values for scan in scans)],
        window=float(np.median(bright)),
        inches_per_mm=float(scale),
        picture=float(across * scale),
    )


def _heading(sheet: Axes, selection: ReferenceSelection, modality: str, layout: Layout) -> None:
    title = f"Reference group, {modality}: {len(selection.group)} in, {len(selection.held_out)} out"
    sheet.text(MARGIN, 0.45, title, size=17, weight="bold", color=BLACK)
    explanation = (
        f"Pictures: one scale; black is 0, white {layout.window:.2g} times the scan's level.\n"
        "Colours: better (blue) or worse (orange) than the median. "
        f"Below each figure its deviation; {FULL_COLOUR:g} has the full colour."
    )
    sheet.text(MARGIN, 0.58, explanation, size=8.5, color=GREY, va="top", linespacing=1.4)
    for column, name in enumerate(["distance", *layout.measures]):
        better = "more" if name in QUALITY_METRICS and QUALITY_METRICS[name].more_is_better else "less"
        middle = layout.figures + (column + 0.5) * CELL
        label = name if name == "distance" else name.upper()
        sheet.text(middle, HEADING - 0.22, label, size=9, weight="bold", ha="center", color=BLACK)
        sheet.text(middle, HEADING - 0.08, f"{better} is better", size=6.5, ha="center", color=GREY)


def _words(sheet: Axes, ranked: RankedCandidate, top: float) -> None:
    candidate, colour = ranked.candidate, GOOD if ranked.chosen else BAD
    left = MARGIN + 0.62
    sheet.text(MARGIN, top + 0.42, f"{ranked.rank}", size=20, weight="bold", color=colour)
    sheet.text(left, top + 0.3, candidate.scan.name, size=11, weight="bold", color=BLACK)
    sheet.text(MARGIN, top + 0.64, "IN" if ranked.chosen else "OUT", size=11, weight="bold", color=colour)
    score = (
        f"score {candidate.score:+.1f}: quality {candidate.quality:+.1f}, "
        f"homogeneity {candidate.homogeneity:+.1f}"
    )
    sheet.text(left, top + 0.5, score, size=8, color=GREY)
    lines = textwrap.wrap(
        ranked.reason, REASON_CHARACTERS, max_lines=REASON_LINES, placeholder=" ...", break_on_hyphens=False
    )
    sheet.text(left, top + 0.6, "\n".join(lines), size=8.5, color=BLACK, va="top", linespacing=1.3)


def _pictures(sheet: Axes, scan: ReferenceScan, layout: Layout, top: float) -> None:
    across, upwards = (extent * layout.inches_per_mm for extent in _extent(scan))
    for column, picture in enumerate(_slices(scan)):
        left = MARGIN + TEXT + column * (layout.picture + GAP)
        _shade(sheet, (left, top + GAP), (layout.picture, ROW - 2.5 * GAP), "black", 1)
        x = left + (layout.picture - across) / 2
        y = top + (ROW - GAP / 2 - upwards) / 2
        sheet.imshow(
            picture.T / scan.reference_intensity,
            cmap="gray",
            vmin=0,
            vmax=layout.window,
            # Row 0 is at the bottom: posterior or inferior.
            extent=(x, x + across, y + upwards, y),
            origin="lower",
            interpolation="antialiased",
            zorder=2,
        )


def _figures(sheet: Axes, ranked: RankedCandidate, layout: Layout, top: float) -> None:
    candidate = ranked.candidate
    values = {"distance": candidate.distance, **candidate.scan.quality.values}
    deviations = {"distance": candidate.homogeneity, **candidate.deviations}
    for column, name in enumerate(["distance", *layout.measures]):
        left = layout.figures + column * CELL
        middle = left + CELL / 2
        if name not in values:
            sheet.text(middle, top + ROW / 2, "n/a", size=9, ha="center", color=GREY)
            continue
        deviation = deviations[name]
        strength = 0.6 * min(abs(deviation) / FULL_COLOUR, 1)
        colour = GOOD if deviation > 0 else BAD
        _shade(sheet, (left + 0.02, top + GAP), (CELL - 0.04, ROW - 2.5 * GAP), colour, strength)
        sheet.text(middle, top + ROW / 2, format_significant(values[name]), size=11, ha="center", color=BLACK)
        sheet.text(middle, top + ROW / 2 + 0.2, f"{deviation:+.1f}", size=8, ha="center", color=BLACK)


def _shade(
    sheet: Axes, corner: tuple[float, float], size: tuple[float, float], colour: str, strength: float
) -> None:
    from matplotlib.patches import Rectangle

    sheet.add_patch(Rectangle(corner, *size, facecolor=colour, alpha=strength, linewidth=0))


def _slices(scan: ReferenceScan) -> list[NDArray[np.float32]]:
    """Slices through the region, low to high; their first axis runs across the picture, their second up."""
    axis = slice_axis(scan.zooms)
    return [slice_at(scan.volume, axis, index) for index in slices_at_shares(scan.region, axis, HEIGHTS)]


def _extent(scan: ReferenceScan) -> tuple[float, float]:
    """Size of a slice in mm, across and upwards."""
    return slice_extent(scan.volume.shape, scan.zooms, slice_axis(scan.zooms))
