"""Histograms of the tissue of a scan, before and after, and of the reference group's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.files.atomic import write_text
from bids_harmonize.imaging.intensity import SCALE_SAMPLE
from bids_harmonize.measures.histogram import (
    HISTOGRAM_BINS,
    PERCENTILES,
    TOP_QUANTILE,
    ReferenceIntensities,
    tissue_histogram,
)
from bids_harmonize.report.components.pictures import (
    BLUE,
    FAINT,
    INK,
    ORANGE,
    legend_above,
    plain_figure,
    svg,
)
from bids_harmonize.report.participant.image_view import ImageView
from bids_harmonize.report.participant.manifest import AFTER, BEFORE, HISTOGRAM, FigureInputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_histograms(scan: FigureInputs, before: ImageView | None, after: ImageView) -> dict[str, float]:
    """Draw the histograms of tissue; return how far each is from the reference group's typical one."""
    reference = scan.reference
    values = {AFTER: _sample(after)}
    if before is not None:
        # Division and multiplication are separate steps, because the combined factor could exceed float32.
        relative = _sample(before) / np.float32(before.scale)
        values = {BEFORE: relative * np.float32(after.scale), **values}
    top = reference.top if reference else float(np.quantile(values[AFTER], TOP_QUANTILE))
    shares = {what: tissue_histogram(intensities, top) for what, intensities in values.items()}
    medians = {what: float(np.median(intensities)) for what, intensities in values.items()}
    write_text(scan.drawing(HISTOGRAM), svg(_figure(shares, top, reference), _in_words(medians)))
    if reference is None:
        return {}
    typical = reference.shares[PERCENTILES.index(50)]
    typical = typical / max(typical.sum(), 1e-6)
    return {what: round(float(np.abs(share - typical).sum() / 2), 4) for what, share in shares.items()}


def _sample(view: ImageView) -> NDArray[np.float32]:
    """Intensities of tissue, no more than a histogram needs."""
    return view.tissue_values[:: max(1, view.tissue_values.size // SCALE_SAMPLE)]


def _figure(
    shares: Mapping[str, NDArray[np.float64]], top: float, reference: ReferenceIntensities | None
) -> Figure:
    figure, panel = plain_figure()
    middles = (np.arange(HISTOGRAM_BINS) + 0.5) * top / HISTOGRAM_BINS
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
    legend_above(panel)
    return figure


def _in_words(medians: Mapping[str, float]) -> str:
    text = ", ".join(f"{median:.0f} {what}" for what, median in medians.items())
    return f"Histogram of the intensities of tissue. Median: {text}."
