"""The rows of a benchmark as a Markdown table and as a figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.formatting import markdown_table, number
from benchmarks.one_scan import OURS
from benchmarks.result_rows import Row

ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}
OURS_COLOUR, OTHER_COLOUR, NONE_COLOUR = "#c1272d", "#7a8794", "#111111"
#: Values farther from the best than this many times the distance of the worst quartile are drawn at the edge.
MAX_DISTANCE = 2.5
ROW_INCHES = 0.32

Line = tuple[str, str, str]


def lines(rows: Iterable[Row]) -> dict[Line, dict[str, Row]]:
    """Rows by tier, modality and metric, in the order they came, and by method."""
    found: dict[Line, dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row.tier, row.modality, row.metric), {})[row.method] = row
    return found


def best(methods: Mapping[str, Row]) -> list[str]:
    """Names of the methods whose value, as it is shown, is the best.

    There are none where neither way is better, or where there is one method only.
    """
    known = {name: row for name, row in methods.items() if not np.isnan(row.value)}
    if len(known) < 2:
        return []
    better = next(iter(known.values())).better
    if better == "neither":
        return []
    pick = max if better == "higher" else min
    value = pick(row.value for row in known.values())
    return [name for name, row in known.items() if number(row.value) == number(value)]


def markdown(rows: Sequence[Row], names: Sequence[str]) -> str:
    """One table: a line for every metric, a column for every method; the best of a line is bold."""
    body = []
    for (tier, modality, metric), methods in lines(rows).items():
        first = next(iter(methods.values()))
        bold = best(methods)
        cells = [cell(methods.get(name), bold=name in bold) for name in names]
        body.append((f"{tier} {modality}", f"{metric} {ARROWS[first.better]}", str(first.n), *cells))
    return markdown_table(("tier", "figure", "n", *names), body) + "\n"


def cell(row: Row | None, *, bold: bool) -> str:
    """Value and spread."""
    if row is None or np.isnan(row.value):
        return "-"
    value = number(row.value)
    spread = f" ±{number(row.spread)}" if row.n > 1 and np.isfinite(row.value) else ""
    return f"**{value}**{spread}" if bold else value + spread


def draw(rows: Sequence[Row], path: Path) -> None:
    """Dot plot, one panel for every tier and modality: right is better, every line on its own scale."""
    panels: dict[tuple[str, str], dict[str, dict[str, Row]]] = {}
    for (tier, modality, label), methods in lines(rows).items():
        if best(methods):
            panels.setdefault((tier, modality), {})[label] = methods
    if not panels:
        return
    sizes = [len(panel) + 2 for panel in panels.values()]
    figure = Figure(figsize=(13, ROW_INCHES * sum(sizes) + 1), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=sizes)[:, 0]
    for axis, ((tier, modality), panel) in zip(axes, panels.items(), strict=True):
        axis.set_title(f"Tier {tier}, {modality}", loc="left", fontsize=10, fontweight="bold")
        _draw_panel(axis, panel)
    figure.suptitle(
        "Right is better; every line on its own scale, its ends at the right and left of the values there\n"
        "red: ours; black ring: no harmonization; grey: other methods (the best one named)",
        fontsize=9,
    )
    figure.savefig(path, dpi=110)


def _draw_panel(axis: Axes, panel: Mapping[str, Mapping[str, Row]]) -> None:
    for height, methods in enumerate(panel.values()):
        low, high = line_ends(list(methods.values()))
        for name, row in methods.items():
            if not np.isnan(row.value):
                _dot(axis, (row.value - low) / (high - low), height, name)
        _name_best(axis, methods, low, high, height)
        axis.text(-0.03, height, number(low), ha="right", va="center", fontsize=7, color=OTHER_COLOUR)
        axis.text(1.03, height, number(high), ha="left", va="center", fontsize=7, color=OTHER_COLOUR)
        axis.axhline(height, color="#e6e9ec", linewidth=0.8, zorder=0)
    axis.set_yticks(range(len(panel)), list(panel), fontsize=8)
    axis.set_xlim(-0.12, 1.5)
    axis.set_ylim(len(panel) - 0.4, -0.6)
    axis.set_xticks([])
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)


def line_ends(rows: Sequence[Row]) -> tuple[float, float]:
    """Worst and best value of a line; far outliers, and what is infinite, lie at its ends, ours never."""
    values = np.array([row.value for row in rows if np.isfinite(row.value)])
    if values.size == 0 or number(values.min()) == number(values.max()):
        top = values.max() if values.size else 1.0
        return top - 1, top
    sign = 1 if rows[0].better == "higher" else -1
    goodness = sign * values
    top = goodness.max()
    limit = top - MAX_DISTANCE * (top - np.percentile(goodness, 25))
    ours = [sign * row.value for row in rows if row.method == OURS and np.isfinite(row.value)]
    bottom = max(goodness.min(), min([limit, *ours])) if limit < top else goodness.min()
    return sign * bottom, sign * top


def _dot(axis: Axes, position: float, height: float, name: str) -> None:
    position = float(np.clip(position, 0, 1))
    if name == OURS:
        axis.plot(position, height, "o", color=OURS_COLOUR, markersize=9, zorder=4)
    elif name == "none":
        axis.plot(position, height, "o", mfc="none", mec=NONE_COLOUR, markersize=8, zorder=3)
    else:
        axis.plot(position, height, "o", color=OTHER_COLOUR, alpha=0.55, markersize=6, zorder=2)


def _name_best(axis: Axes, methods: Mapping[str, Row], low: float, high: float, height: float) -> None:
    names = best(methods)
    label = "best: " + (", ".join(names) if len(names) < 3 else f"{len(names)} methods")
    weight = "bold" if OURS in names else "normal"
    axis.text(1.12, height, label, ha="left", va="center", fontsize=7, fontweight=weight)
