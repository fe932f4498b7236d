"""Loss and agreement over a training, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bids_harmonize.model.card_entries import CheckpointRecord, HeldOutAgreement
from bids_harmonize.report.components.numbers import decibel
from bids_harmonize.report.components.pictures import (
    BLUE,
    FAINT,
    FIGURE_WIDTH,
    INK,
    ORANGE,
    legend_above,
    plain_axes,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Height of a panel in inches.
PANEL_HEIGHT = 2.1


def learning_curves(history: Sequence[CheckpointRecord], kept: CheckpointRecord) -> Figure:
    """Loss and, if scans were held out, their agreement, checkpoint by checkpoint."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    measured = [(record.step, record.agreement) for record in history if record.agreement]
    panels = 2 if measured else 1
    figure = Figure(figsize=(FIGURE_WIDTH, 0.5 + panels * PANEL_HEIGHT), layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    for panel in axes:
        panel.axvline(kept.step, color=INK, linewidth=1, linestyle=(0, (2, 2)))
        plain_axes(panel)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    _line(axes[0], [(record.step, record.loss) for record in history], INK, "o")
    axes[0].set_ylabel("loss", color=INK, size=9)
    axes[0].set_ylim(bottom=0)
    side = "right" if kept.step > np.mean([history[0].step, history[-1].step]) else "left"
    axes[0].annotate(
        "kept " if side == "right" else " kept",
        (kept.step, 1),
        xycoords=("data", "axes fraction"),
        ha=side,
        va="top",
        color=INK,
        size=9,
    )
    if measured:
        _agreements(axes[1], measured)
    axes[-1].set_xlabel("step", color=INK, size=9)
    return figure


def learning_in_words(history: Sequence[CheckpointRecord], kept: CheckpointRecord) -> str:
    """What `learning_curves` shows, for those who do not see it."""
    first, last = history[0], history[-1]
    text = f"Loss from {first.loss:.3g} at step {first.step} to {last.loss:.3g} at the end"
    if first.agreement and kept.agreement:
        begun, ended = (decibel(agreement.augmented) for agreement in (first.agreement, kept.agreement))
        text += f"; altered scans held out from {begun} to {ended}"
    return f"{text}; weights of step {kept.step} kept."


def _agreements(panel: Axes, measured: Sequence[tuple[int, HeldOutAgreement]]) -> None:
    unaltered = [(step, agreement.unaltered) for step, agreement in measured]
    augmented = [(step, agreement.augmented) for step, agreement in measured]
    _line(panel, unaltered, ORANGE, "s", "unaltered, harmonized")
    _line(panel, augmented, BLUE, "o", "altered, harmonized")
    rescaled = measured[0][1].rescaled
    panel.axhline(rescaled, color=FAINT, linewidth=1.2, linestyle="--", label="altered, rescaled")
    panel.set_ylabel("agreement, dB", color=INK, size=9)
    panel.margins(y=0.12)
    legend_above(panel, columns=3, size=8)


def _line(
    panel: Axes, points: Sequence[tuple[int, float]], colour: str, marker: str, label: str | None = None
) -> None:
    steps, values = zip(*points, strict=True)
    panel.plot(steps, values, color=colour, marker=marker, markersize=3.5, linewidth=1.5, label=label)
