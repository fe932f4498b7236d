"""Small panels for many sites: a row per site, before and after side by side.

Drawn by hand as stretched SVG, in which a thousand scans take few bytes; all text stays outside, in HTML.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from bids_harmonize.reference import QUANTILES

Array = NDArray[np.float64]
Limits = tuple[float, float]

BINS = 72
# Bins; the steps of quantile functions must not be seen.
BLUR = 1.2
# Of a site with more scans, some are drawn, from all over the site.
MOST_LINES = 12
WIDTH, HEIGHT, ROW = 300, 60, 16

STYLE = """
.panels { table-layout: fixed; }
.panels th:first-child { width: 24%; padding-right: .5rem; }
.panels th small { display: block; font-weight: 400; }
.panels td { min-width: 0; padding: .35rem 1.2rem .35rem 0; }
.panels svg { display: block; width: 100%; }
.panels path { vector-effect: non-scaling-stroke; fill: none; stroke-width: 1.5; }
.panels .all { fill: var(--faint); fill-opacity: .25; stroke: none; }
.panels .scan { stroke: var(--blue); stroke-width: .6; opacity: .45; }
.panels .site { stroke: var(--blue); stroke-width: 2; }
.panels .dots { stroke-width: 7; stroke-linecap: round; opacity: .6; }
.panels .middle { stroke: var(--ink); stroke-width: 2; }
.panels .blue { stroke: var(--blue); } .panels .orange { stroke: var(--orange); }
.panels .faint { stroke: var(--faint); }
.axis { display: flex; justify-content: space-between; color: var(--faint);
  font-variant-numeric: tabular-nums; }
.legend { color: var(--faint); display: flex; flex-wrap: wrap; gap: 0 1em; }
.key { display: inline-block; width: 1.2em; height: .7em; margin-right: .35em; }
.key.line { height: .2em; vertical-align: .25em; background: var(--blue); }
.key.thin { height: .1em; vertical-align: .3em; background: var(--blue); opacity: .6; }
.key.area { background: var(--faint); opacity: .3; }
.key.blue { width: .7em; border-radius: 50%; background: var(--blue); }
.key.orange { width: .7em; border-radius: 50%; background: var(--orange); }
.key.faint { width: .7em; border-radius: 50%; background: var(--faint); }
.key.middle { width: .2em; height: .9em; background: var(--ink); }
"""


def densities(curves: Array, limits: Limits) -> Array:
    """How intensities are spread, from quantile functions at `QUANTILES`.

    Parameters
    ----------
    curves
        ``(scans, levels)``, rising.
    limits
        Lowest and highest intensity.

    Returns
    -------
    Array
        ``(scans, BINS)``: share of the voxels in equal bins between the limits, smoothed.
    """
    edges = np.linspace(*limits, BINS + 1)
    shares = np.array([np.diff(np.interp(edges, curve, QUANTILES)) for curve in curves])
    return np.asarray(ndimage.gaussian_filter1d(shares, BLUR, axis=1, mode="nearest"))


def density_panel(site: Array, everybody: Array, highest: float, described: str) -> str:
    """The densities of a site's scans and their mean, before the mean of all scans.

    Parameters
    ----------
    site
        ``(scans, BINS)``, from `densities`.
    everybody
        ``(BINS,)``.
    highest
        Share that reaches the top of the panel.
    described
        What is seen, for those who do not see it.
    """
    some = site[np.unique(np.linspace(0, len(site) - 1, MOST_LINES).round().astype(int))]
    area = f"{_line(everybody, highest)}L{WIDTH} {HEIGHT}L0 {HEIGHT}Z"
    lines = "".join(f'<path class="scan" d="{_line(scan, highest)}"/>' for scan in some)
    mean = f'<path class="site" d="{_line(site.mean(axis=0), highest)}"/>'
    return _svg(f'<path class="all" d="{area}"/>{lines}{mean}', HEIGHT, described)


def dots_panel(rows: Sequence[tuple[Array, str]], limits: Limits, described: str) -> str:
    """A dot per scan and a tick at the median, in rows.

    Parameters
    ----------
    rows
        Values and colour, a class of `STYLE`; values that are not finite are left out.
    limits
        Left and right end.
    described
        What is seen, for those who do not see it.
    """
    paths = []
    for n, (values, colour) in enumerate(rows):
        known = values[np.isfinite(values)]
        if not known.size:
            continue
        across = np.clip((known - limits[0]) / (limits[1] - limits[0]), 0, 1) * WIDTH
        # Side by side, so that equal values are seen as many.
        upwards = ROW * (n + 0.3 + 0.4 * (np.arange(known.size) * 0.618 % 1))
        # Lines of no length with round ends stay round, however the panel is stretched.
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in zip(across, upwards, strict=True))
        middle = f"M{np.median(across):.1f} {ROW * (n + 0.05):.1f}V{ROW * (n + 0.95):.1f}"
        paths.append(f'<path class="dots {colour}" d="{dots}"/><path class="middle" d="{middle}"/>')
    return _svg("".join(paths), ROW * len(rows), described)


def panel_grid(
    heads: Sequence[str], rows: Iterable[tuple[str, str, Sequence[str]]], axes: Sequence[tuple[str, str]]
) -> str:
    """A table of panels.

    Parameters
    ----------
    heads
        Of the columns.
    rows
        Name of the site, what is said of it, and its panels, HTML.
    axes
        Left and right end of each column of panels.
    """
    top = "".join(f'<th scope="col">{escape(head)}</th>' for head in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(name)}<small>{escape(said)}</small></th>'
        + "".join(f"<td>{panel}</td>" for panel in panels)
        + "</tr>"
        for name, said, panels in rows
    )
    ends = "".join(
        f'<td><div class="axis"><span>{escape(left)}</span><span>{escape(right)}</span></div></td>'
        for left, right in axes
    )
    return (
        f'<table class="panels"><thead><tr>{top}</tr></thead><tbody>{body}'
        f'<tr><th scope="row"><small>from, to</small></th>{ends}</tr></tbody></table>'
    )


def legend(*entries: tuple[str, str]) -> str:
    """What marks mean: kind, a class of `STYLE`, and text."""
    told = " ".join(f'<span><i class="key {kind}"></i>{escape(text)}</span>' for kind, text in entries)
    return f'<p class="legend">{told}</p>'


def _line(shares: Array, highest: float) -> str:
    across = (np.arange(BINS) + 0.5) / BINS * WIDTH
    upwards = HEIGHT * (1 - np.clip(shares / highest, 0, 1))
    points = (f"{x:.0f} {y:.1f}" for x, y in zip(across, upwards, strict=True))
    return f"M{'L'.join(points)}"


def _svg(content: str, height: float, described: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" height="{height:g}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(described)}">{content}</svg>'
    )
