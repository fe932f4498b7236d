"""Small panels, such as a row per site with before and after side by side.

They are drawn by hand as stretched SVG, in which a thousand scans take few bytes; all text stays outside, in
HTML.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.measures.overall_curve import OverallCurve
from bids_harmonize.measures.shared_curve import SharedCurve
from bids_harmonize.measures.types import Array

# A site with more scans shows this many of them, spread over all of its scans.
MAX_LINES = 12
# Lengths are in units of the SVG.
WIDTH, HEIGHT, TALL, ROW = 300, 60, 150, 16

Polyline = tuple[Array, Array]


@dataclass(frozen=True, kw_only=True)
class SvgPath:
    """A path of a panel: its class in the style sheet, and its SVG data."""

    kind: str
    data: str


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A drawing of `WIDTH` and some height, and what is seen in it, for those who do not see it."""

    paths: Sequence[SvgPath]
    height: int
    description: str
    width: int = WIDTH


@dataclass(frozen=True, kw_only=True)
class PanelRow:
    """A site, what is said of it, and its panels."""

    name: str
    note: str
    panels: Sequence[Panel]


@dataclass(frozen=True, kw_only=True)
class PanelGrid:
    """A table of panels.

    Attributes
    ----------
    heads
        Heads of the columns, the first of which holds the names.
    axes
        Left and right end of each column of panels.
    """

    heads: Sequence[str]
    rows: Sequence[PanelRow]
    axes: Sequence[tuple[str, str]]


def density_panel(site: Array, mean: Array, highest: float, description: str) -> Panel:
    """The densities of a site's scans and their mean, before the mean of all scans.

    Parameters
    ----------
    site
        Densities of the site's scans, ``(scans, bins)``.
    mean
        Mean density of all scans, ``(bins,)``.
    highest
        Density that reaches the top of the panel.
    """
    some = site[_some(len(site))]
    return Panel(
        paths=[
            SvgPath(kind="all", data=f"{_line(mean, highest)}L{WIDTH} {HEIGHT}L0 {HEIGHT}Z"),
            *(SvgPath(kind="scan", data=_line(scan, highest)) for scan in some),
            SvgPath(kind="site", data=_line(site.mean(axis=0), highest)),
        ],
        height=HEIGHT,
        description=description,
    )


def dots_panel(rows: Sequence[tuple[Array, str]], limits: tuple[float, float], description: str) -> Panel:
    """A dot per scan and a tick at the median, in rows.

    Parameters
    ----------
    rows
        Values and colour, a class of the style sheet; values that are not finite are left out.
    limits
        Left and right end.
    """
    paths = []
    for n, (values, colour) in enumerate(rows):
        known = values[np.isfinite(values)]
        if not known.size:
            continue
        across = np.clip((known - limits[0]) / (limits[1] - limits[0]), 0, 1) * WIDTH
        # Equal values are drawn side by side, so that their number can be seen.
        upwards = ROW * (n + 0.3 + 0.4 * (np.arange(known.size) * 0.618 % 1))
        # Lines of no length with round ends stay round, however the panel is stretched.
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in zip(across, upwards, strict=True))
        middle = f"M{np.median(across):.1f} {ROW * (n + 0.05):.1f}V{ROW * (n + 0.95):.1f}"
        paths += [SvgPath(kind=f"dots {colour}", data=dots), SvgPath(kind="middle", data=middle)]
    return Panel(paths=paths, height=ROW * len(rows), description=description)


def curves_panel(shared: Polyline, own: Sequence[Polyline], description: str) -> Panel:
    """A curve and those that it was made of, from intensity before to intensity after.

    Parameters
    ----------
    shared, own
        Places along both axes, not negative.
    """
    some = [own[n] for n in _some(len(own))]
    right, top = (max(float(line[axis].max()) for line in (shared, *some)) or 1.0 for axis in (0, 1))

    def path(kind: str, line: Polyline) -> SvgPath:
        across, upwards = line[0] / right * WIDTH, TALL * (1 - line[1] / top)
        points = (f"{x:.0f} {y:.1f}" for x, y in zip(across, upwards, strict=True))
        return SvgPath(kind=kind, data=f"M{'L'.join(points)}")

    paths = [*(path("scan", line) for line in some), path("site", shared)]
    return Panel(paths=paths, height=TALL, description=description)


def pool_panel(shared: SharedCurve, own: list[OverallCurve], description: str) -> Panel:
    """The shared curve over scans' own curves, each times its gain."""
    return curves_panel(
        _intensities(shared.curve, 0.0),
        [_intensities(curve, shared.log_gain(curve)) for curve in own],
        description,
    )


def _some(count: int) -> NDArray[np.intp]:
    """At most `MAX_LINES` of so many places, spread over all of them."""
    return np.unique(np.linspace(0, count - 1, min(count, MAX_LINES)).round().astype(np.intp))


def _intensities(curve: OverallCurve, gain: float) -> Polyline:
    return np.exp(np.array(curve.inputs) + gain), np.exp(np.array(curve.outputs))


def _line(densities: Array, highest: float) -> str:
    across = (np.arange(densities.size) + 0.5) / densities.size * WIDTH
    upwards = HEIGHT * (1 - np.clip(densities / highest, 0, 1))
    points = (f"{x:.0f} {y:.1f}" for x, y in zip(across, upwards, strict=True))
    return f"M{'L'.join(points)}"
