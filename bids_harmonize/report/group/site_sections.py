"""The parts of the group's page that compare sites: panels and matrices of the largest sites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bids_harmonize.measures.scan_intensities import BEFORE_AND_AFTER, TISSUES
from bids_harmonize.measures.types import Array
from bids_harmonize.report.components.numbers import digits, percent, pluralize
from bids_harmonize.report.components.panels import Panel, PanelGrid, PanelRow, density_panel, dots_panel
from bids_harmonize.results.group_analysis import Group
from bids_harmonize.results.site_summaries import (
    GroupIntensities,
    group_intensities,
    known_median,
    members_of_largest_sites,
    output_unit,
    round_up,
)

Members = Mapping[str, Sequence[int]]

# Pages show at most this many sites; the table (.tsv) has all of them.
MAX_SITES = 20
# Percent of a page's colour in the cell of the largest distance; text must stay legible on it.
MAX_SHADE = 40
# Height of a panel over the highest mean density of a site.
HEADROOM = 1.15
# Empty margin left and right of the outermost ratios, as a share of their range.
RATIO_MARGIN = 0.05
TISSUE_LABELS = dict(zip(TISSUES, ("White matter", "Grey matter", "CSF"), strict=True))
TISSUE_COLOURS = dict(zip(TISSUES, ("blue", "orange", "faint"), strict=True))


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Distances of all pairs of sites, in the images before or after.

    Attributes
    ----------
    rows
        Per site, the shade and the distance of each other; the distance of a site to itself is 0.
    """

    when: str
    sites: Sequence[str]
    rows: Sequence[Sequence[tuple[float, float]]]


@dataclass(frozen=True, kw_only=True)
class TissueSection:
    """Medians of tissues and their ratio, and how many scans have none."""

    unmeasured: int
    medians: PanelGrid
    ratios: PanelGrid


def compared_members(group: Group) -> Members:
    """Scans of the largest sites, as places in ``group.compared``."""
    return members_of_largest_sites([group.sites.labels[n] for n in group.compared], MAX_SITES)


def intensity_panels(group: Group) -> PanelGrid | None:
    """How often each intensity occurs in every site, before and after; None where no site is compared."""
    members = compared_members(group)
    if not members:
        return None
    spread = {when: group_intensities(group, when, members) for when in BEFORE_AND_AFTER}
    highest = {
        when: HEADROOM * max(float(site.densities.mean(axis=0).max()) for site in images.sites.values())
        for when, images in spread.items()
    }
    rows = [
        PanelRow(
            name=name,
            note=pluralize(len(own), "scan"),
            panels=[_density(spread[when], name, when, highest[when]) for when in BEFORE_AND_AFTER],
        )
        for name, own in members.items()
    ]
    return PanelGrid(
        heads=_panel_heads(group),
        rows=rows,
        axes=[("0", digits(spread[when].top)) for when in BEFORE_AND_AFTER],
    )


def _density(images: GroupIntensities, name: str, when: str, highest: float) -> Panel:
    site = images.sites[name]
    description = (
        f"{name}, {when.lower()}: median {site.median:.3g}, distance to all scans {percent(site.distance)}"
    )
    return density_panel(site.densities, images.mean, highest, description)


def distance_matrices(group: Group) -> list[Matrix]:
    """Distances of all pairs of sites, before and after; empty where there are no two sites."""
    if not group.compared or len(group.comparisons["Before"].sites) < 2:
        return []
    sites = group.comparisons["Before"].sites
    places = [sites.index(name) for name in compared_members(group)]
    largest = max(float(group.comparisons[when].between.max()) for when in BEFORE_AND_AFTER) or 1.0
    matrices = []
    for when in BEFORE_AND_AFTER:
        distances = group.comparisons[when].between[np.ix_(places, places)]
        rows = [[(MAX_SHADE * value / largest, value) for value in row] for row in distances.tolist()]
        matrices.append(Matrix(when=when, sites=[sites[place] for place in places], rows=rows))
    return matrices


def tissue_section(group: Group) -> TissueSection | None:
    """Medians of the tissues of every scan and their ratio; None where no scan has any."""
    known = np.isfinite(group.ratios("After"))
    if not known.any():
        return None
    measured = [result.after is not None for result in group.results]
    members = members_of_largest_sites(group.sites.labels, MAX_SITES)
    members = {name: own for name, own in members.items() if known[own].any()}
    return TissueSection(
        unmeasured=int(np.sum(~known[measured])),
        medians=_median_panels(group, members, known),
        ratios=_ratio_panels(group, members),
    )


def _median_panels(group: Group, members: Members, known: NDArray[np.bool_]) -> PanelGrid:
    values = {when: {t: group.medians(t, when) for t in TISSUES} for when in BEFORE_AND_AFTER}
    tops = {when: round_up(_largest(list(tissues.values()))) for when, tissues in values.items()}
    rows = [
        PanelRow(
            name=name,
            note=pluralize(int(known[own].sum()), "scan"),
            panels=[
                _tissue_dots({t: v[own] for t, v in values[when].items()}, name, when, tops[when])
                for when in BEFORE_AND_AFTER
            ],
        )
        for name, own in members.items()
    ]
    axes = [("0", digits(tops[when])) for when in BEFORE_AND_AFTER]
    return PanelGrid(heads=_panel_heads(group), rows=rows, axes=axes)


def _tissue_dots(values: Mapping[str, Array], name: str, when: str, top: float) -> Panel:
    medians = ", ".join(f"{TISSUE_LABELS[t]} {digits(known_median(own))}" for t, own in values.items())
    rows = [(own, TISSUE_COLOURS[tissue]) for tissue, own in values.items()]
    return dots_panel(rows, (0.0, top), f"{name}, {when.lower()}: {medians}")


def _ratio_panels(group: Group, members: Members) -> PanelGrid:
    ratios = {when: group.ratios(when) for when in BEFORE_AND_AFTER}
    every = np.concatenate(list(ratios.values()))
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    margin = RATIO_MARGIN * (high - low or 1.0)
    limits = (low - margin, high + margin)
    rows = []
    for name, own in members.items():
        medians = {when: digits(known_median(ratios[when][own])) for when in BEFORE_AND_AFTER}
        panels = [
            dots_panel(
                [(ratios[when][own], "blue")], limits, f"{name}, {when.lower()}: median ratio {medians[when]}"
            )
            for when in BEFORE_AND_AFTER
        ]
        rows.append(PanelRow(name=name, note=" → ".join(medians.values()), panels=panels))
    axes = [(digits(limits[0]), digits(limits[1]))] * 2
    return PanelGrid(heads=("Site, medians", "Before", "After"), rows=rows, axes=axes)


def _panel_heads(group: Group) -> tuple[str, str, str]:
    unit = output_unit(group)
    after = "in the model's unit" if unit is None else f"{unit:g} = reference intensity"
    return "Site", "Before, × p99", f"After, {after}"


def _largest(values: Sequence[Array]) -> float:
    return max((float(np.nanmax(one)) for one in values if np.isfinite(one).any()), default=1.0) or 1.0
