"""Tone curves of a scan: which intensity became which, and how that differs from place to place."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.files.atomic import write_text
from bids_harmonize.measures.histogram import PERCENTILES
from bids_harmonize.model.bilateral_grid import KNOT_STEP, KNOTS
from bids_harmonize.model.transform import Transform
from bids_harmonize.report.components.pictures import BLUE, FAINT, INK, legend_above, plain_figure, svg
from bids_harmonize.report.participant.image_view import ImageView
from bids_harmonize.report.participant.manifest import CURVES, FigureInputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Curves are shown up to this multiple of the 99th percentile of the foreground.
SHOWN_UP_TO = 1.2
# Cells of which a larger share is tissue lie inside the head.
TISSUE_SHARE = 0.5
BINS = 40
# A bin of input intensity must hold this many voxels to have percentiles.
MIN_VOXELS_PER_BIN = 50
# Percentiles are taken of at most this many voxels.
MAX_VOXELS = 200_000


@dataclass(frozen=True, kw_only=True)
class ToneCurves:
    """How intensities are mapped: percentiles 5, 50 and 95 of the output, (3, n), at n inputs."""

    inputs: NDArray[np.floating]
    outputs: NDArray[np.floating]


def write_tone_curves(scan: FigureInputs, before: ImageView | None, after: ImageView) -> bool:
    """Draw the saved curves inside the head, else what the voxels say; False if there is neither.

    Raises
    ------
    BadData
        The saved curves cannot be read.
    """
    if scan.transform is not None:
        curves: ToneCurves | None = curves_of_cells(Transform.load(scan.transform))
    elif before is not None:
        curves = curves_of_voxels(before.tissue_values, after.tissue_values, before.scale)
    else:
        curves = None
    if curves is not None:
        write_text(scan.drawing(CURVES), svg(_figure(curves, scan.gain), _in_words(curves)))
    return curves is not None


def curves_of_cells(transform: Transform) -> ToneCurves:
    """Percentiles over the cells inside the head, of saved curves."""
    grid = transform.curves.numpy()
    inside = transform.tissue.numpy() > TISSUE_SHARE
    # A thin or small object may fill no cell.
    curves = grid[:, inside] if inside.any() else grid.reshape(KNOTS, -1)
    shown = np.arange(KNOTS) * KNOT_STEP <= SHOWN_UP_TO
    outputs = np.percentile(curves[shown], PERCENTILES, axis=1)
    return ToneCurves(inputs=np.arange(KNOTS)[shown] * KNOT_STEP * transform.scale, outputs=outputs)


def curves_of_voxels(
    before: NDArray[np.float32], after: NDArray[np.float32], scale: float
) -> ToneCurves | None:
    """Percentiles of the output over the voxels of about one input; None where there are too few voxels.

    Parameters
    ----------
    before, after
        Intensities of the same voxels.
    scale
        The 99th percentile of the foreground before.
    """
    step = max(1, before.size // MAX_VOXELS)
    before, after = before[::step], after[::step]
    width = SHOWN_UP_TO * scale / BINS
    order = np.argsort(before, kind="stable")
    ends = np.searchsorted(before[order], width * np.arange(BINS + 1))
    bins = [
        (width * (n + 0.5), np.percentile(after[order[first:last]], PERCENTILES))
        for n, (first, last) in enumerate(pairwise(ends))
        if last - first >= MIN_VOXELS_PER_BIN
    ]
    if not bins:
        return None
    inputs, outputs = zip(*bins, strict=True)
    return ToneCurves(inputs=np.array(inputs), outputs=np.stack(outputs, axis=1))


def _figure(curves: ToneCurves, gain: float | None) -> Figure:
    figure, panel = plain_figure()
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
    legend_above(panel)
    return figure


def _in_words(curves: ToneCurves) -> str:
    low, middle, high = curves.outputs
    places = np.searchsorted(curves.inputs, curves.inputs[-1] * np.array([0.25, 0.5, 0.75]))
    text = "; ".join(
        f"{curves.inputs[n]:.0f} becomes {middle[n]:.0f} ({low[n]:.0f} to {high[n]:.0f})" for n in places
    )
    return f"Tone curves, from intensity before to intensity after: {text}."
