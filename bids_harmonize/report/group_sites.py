"""The sections of the group's page that compare sites: figures, matrices, the site probe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.distribution import TISSUES, WHEN
from bids_harmonize.metrics import Comparison
from bids_harmonize.probe import LEAST_PEOPLE, Probed
from bids_harmonize.report import panels
from bids_harmonize.report.comparison import Group
from bids_harmonize.report.page import SPACE, count, paragraph, scrolled, table

Array = NDArray[np.float64]

NONE = "–"
# More would be a page of matrices; the table has all.
MOST_SITES = 20
# Percent of a page's colour in the cell of the largest distance; text must stay legible on it.
STRONGEST = 40
TISSUE_NAMES = dict(zip(TISSUES, ("White matter", "Grey matter", "CSF"), strict=True))
COLOURS = dict(zip(TISSUES, ("blue", "orange", "faint"), strict=True))

STYLE = (
    panels.STYLE
    + """
.heat td { min-width: 4rem; padding: .35rem .5rem; text-align: right; }
.heat .mark { background: color-mix(in srgb, var(--orange) calc(var(--heat) * 1%), transparent); }
.heat caption { text-align: left; font-weight: 600; padding: .5rem 0 .2rem; }
.heat th { padding-right: .5rem; } .heat thead th { text-align: right; }
"""
)


def distributions(group: Group) -> str:
    """How intensities are spread in every site, before and after."""
    members = _members(group)
    if not members:
        return ""
    limits = {
        when: (0.0, _upwards(float(np.quantile(curves[:, -1], 0.95))))
        for when, curves in group.curves.items()
    }
    spread = {when: panels.densities(curves, limits[when]) for when, curves in group.curves.items()}
    highest = {
        when: 1.15 * max(float(shares[own].mean(axis=0).max()) for own in members.values())
        for when, shares in spread.items()
    }
    rows = [
        (
            name,
            count(len(own), "scan"),
            [
                panels.density_panel(
                    spread[when][own],
                    spread[when].mean(axis=0),
                    highest[when],
                    f"{name}, {when.lower()}: median {np.median(group.curves[when][own]):.3g}, "
                    f"distance to all scans {percent(_site_to_all(group.comparisons[when], own))}",
                )
                for when in WHEN
            ],
        )
        for name, own in members.items()
    ]
    told = (
        f"How often each intensity occurs in {region(group)}. Before, each scan is divided by its own "
        "bright value (99th percentile of the foreground), which any program can do; what differs then is "
        "contrast."
    )
    ends = [("0", digits(limits[when][1])) for when in WHEN]
    grid = panels.panel_grid(("Site", "Before, × bright value", f"After, {_unit(group)}"), rows, ends)
    keys = panels.legend(
        ("area", "all scans"),
        ("line", "this site"),
        ("thin", f"some of its scans, at most {panels.MOST_LINES}"),
    )
    return paragraph(told) + keys + grid + _left_out(group)


def matrices(group: Group) -> str:
    """Distances of all pairs of sites, before and after."""
    if not group.compared or len(group.comparisons["Before"].sites) < 2:
        return ""
    shown = [name for name in _members(group) if name in group.comparisons["Before"].sites]
    largest = max(float(group.comparisons[when].between.max()) for when in WHEN) or 1.0
    told = (
        "Mean difference of the sites' median quantile functions (2 to 98 %), in percent of the range of all "
        "scans together. Neither a unit nor an offset common to all scans has a part in it. The colour is "
        "the same for the same distance before and after."
    )
    tables = "".join(_matrix(group.comparisons[when], shown, largest, when) for when in WHEN)
    return paragraph(told) + tables + _left_out(group)


def _matrix(comparison: Comparison, shown: Sequence[str], largest: float, when: str) -> str:
    places = [comparison.sites.index(name) for name in shown]
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in shown)
    rows = ""
    for name, row in zip(shown, places, strict=True):
        cells = "".join(_cell(float(comparison.between[row, column]), largest) for column in places)
        rows += f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>'
    return scrolled(
        f'<table class="heat"><caption>{when}, %</caption><thead><tr><td></td>{top}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _cell(distance: float, largest: float) -> str:
    # Of a site to itself, there is nothing to tell.
    if distance == 0:
        return f"<td>{NONE}</td>"
    heat = STRONGEST * distance / largest
    return f'<td class="mark" style="--heat:{heat:.0f}">{100 * distance:.1f}</td>'


def probe_of_sites(group: Group) -> str:
    """The site probe before and after, or why it was not asked."""
    if not group.probes:
        counts = Counter(
            site
            for site, _ in {
                (group.sites.labels[n], group.results[n].participant)
                for n in group.compared
                if group.sites.labels[n]
            }
        )
        there = ", ".join(f"{name}: {number}" for name, number in sorted(counts.items())[:MOST_SITES])
        return paragraph(
            f"Not asked: it takes at least two sites with {LEAST_PEOPLE} people each whose scans can be "
            f"compared ({there or 'here there are none'}). With fewer, an accuracy would tell nothing.",
            "warning",
        )
    people = group.probes["After"].people
    told = (
        "A classifier is trained to name the site from a scan's intensities, and asked about people whom it "
        "has not seen; anew before and after. Balanced accuracy: the share of people whose site was found, "
        "averaged over the sites. If harmonization removes the site effect and the people of the sites are "
        "alike, it comes down to chance."
    )
    rows = [
        (
            when,
            percent(probed.accuracy),
            f"{percent(probed.low)} to {percent(probed.high)}",
            chance(probed),
        )
        for when, probed in group.probes.items()
    ]
    who = ", ".join(f"{name} ({number})" for name, number in list(people.items())[:MOST_SITES])
    small = sorted(set(group.comparisons["After"].sites) - set(people))
    asked = f"Asked about {sum(people.values())} people of {len(people)} sites: {who}."
    if small:
        asked += f" Sites with fewer than {LEAST_PEOPLE} people are left out ({len(small)})."
    return (
        paragraph(told)
        + table(("Images", "Balanced accuracy", "95 % interval", "Chance"), rows, whole={0, 1, 2, 3})
        + paragraph(asked, "faint")
        + paragraph(
            "It sees how often each intensity occurs, and nothing else: resolution, noise and shape, which a "
            "tone curve does not change, may still tell a site to a program that looks at images.",
            "faint",
        )
    )


def tissue_medians(group: Group) -> str:
    """Medians of the tissues of every scan and their ratio, before and after."""
    known = np.isfinite(group.ratios("After"))
    if not known.any():
        return paragraph(
            "Not measured: no brain was found in any scan, or the scans are of no head.", "warning"
        )
    missing = int(np.sum(~known[[n for n, result in enumerate(group.results) if result.after]]))
    told = (
        "Medians of the tissues of each scan, by thresholds inside an automatic brain mask; CSF is whatever "
        "is darkest (T1w) or brightest (T2w) there."
    )
    if missing:
        told += f" In {count(missing, 'scan')} no brain was found."
    members = _members(group, range(len(group.results)))
    tissues = [(TISSUE_NAMES[tissue], COLOURS[tissue], tissue) for tissue in TISSUES]
    values = {(tissue, when): group.medians(tissue, when) for tissue in TISSUES for when in WHEN}
    limits = {when: (0.0, _upwards(_largest([values[t, when] for t in TISSUES]))) for when in WHEN}
    rows = [
        (
            name,
            count(int(known[own].sum()), "scan"),
            [
                panels.dots_panel(
                    [(values[tissue, when][own], colour) for _, colour, tissue in tissues],
                    limits[when],
                    f"{name}, {when.lower()}: "
                    + ", ".join(f"{label} {_middle(values[t, when][own])}" for label, _, t in tissues),
                )
                for when in WHEN
            ],
        )
        for name, own in members.items()
        if known[own].any()
    ]
    keys = panels.legend(*((colour, label) for label, colour, _ in tissues), ("middle", "median of the site"))
    ends = [("0", digits(limits[when][1])) for when in WHEN]
    grid = panels.panel_grid(("Site", "Before, × bright value", f"After, {_unit(group)}"), rows, ends)
    return paragraph(told) + keys + grid + _ratio_panels(group, members) + _left_out(group)


def _ratio_panels(group: Group, members: Mapping[str, list[int]]) -> str:
    ratios = {when: group.ratios(when) for when in WHEN}
    every = np.concatenate(list(ratios.values()))
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    margin = 0.05 * (high - low or 1.0)
    limits = (low - margin, high + margin)
    rows = [
        (
            name,
            f"{_middle(ratios['Before'][own])} → {_middle(ratios['After'][own])}",
            [
                panels.dots_panel(
                    [(ratios[when][own], "blue")],
                    limits,
                    f"{name}, {when.lower()}: median ratio {_middle(ratios[when][own])}",
                )
                for when in WHEN
            ],
        )
        for name, own in members.items()
        if np.isfinite(ratios["After"][own]).any()
    ]
    ends = [(digits(limits[0]), digits(limits[1]))] * 2
    return "<h3>Grey/white ratio</h3>" + panels.panel_grid(("Site, medians", "Before", "After"), rows, ends)


def _members(group: Group, scans: Sequence[int] | None = None) -> dict[str, list[int]]:
    """Sites and their scans, as places in `scans` (those compared, if not given); the largest sites only."""
    labels = [group.sites.labels[n] for n in (group.compared if scans is None else scans)]
    counts = Counter(label for label in labels if label)
    largest = sorted(name for name, _ in counts.most_common(MOST_SITES))
    return {name: [n for n, label in enumerate(labels) if label == name] for name in largest}


def _left_out(group: Group) -> str:
    more = len({label for label in group.sites.labels if label}) - MOST_SITES
    return (
        paragraph(f"The {MOST_SITES} sites with most scans; {more} more are left out.", "faint")
        if more > 0
        else ""
    )


def region(group: Group) -> str:
    """Where scans are compared."""
    return "the brain" if group.in_brain else "all but the air"


def _unit(group: Group) -> str:
    """What an intensity of the harmonized images is measured in."""
    scales = (result.record.get("OutputScale") for result in group.results if result.harmonized)
    units = {scale["Unit"] for scale in scales if isinstance(scale, Mapping) and "Unit" in scale}
    return f"{units.pop():g} = reference level" if len(units) == 1 else "in the model's unit"


def _site_to_all(comparison: Comparison, own: Sequence[int]) -> float:
    return float(np.mean(comparison.to_pooled[own]))


def _largest(values: Sequence[Array]) -> float:
    return max((float(np.nanmax(one)) for one in values if np.isfinite(one).any()), default=1.0) or 1.0


def _upwards(value: float) -> float:
    """The next number of two digits."""
    if value <= 0:
        return 1.0
    step = 10.0 ** (np.floor(np.log10(value)) - 1)
    return float(np.ceil(value / step) * step)


def _middle(values: Array) -> str:
    known = values[np.isfinite(values)]
    return digits(float(np.median(known))) if known.size else NONE


def chance(probed: Probed) -> str:
    """What guessing finds."""
    return f"{percent(probed.chance_low)} to {percent(probed.chance_high)}"


def digits(value: float) -> str:
    """Three digits or all before the point; `NONE` for what is no number."""
    if not np.isfinite(value):
        return NONE
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def percent(value: float) -> str:
    """A share in percent, of two or three digits."""
    return f"{100 * value:.3g}{SPACE}%" if abs(value) >= 0.1 else f"{100 * value:.2g}{SPACE}%"
