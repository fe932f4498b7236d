"""The group level as one page per suffix: is the site effect gone, and which scans are to be looked at?

The page needs nothing but itself. It is read without scripts; a script adds sorting and filtering.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from bids_harmonize.bids.logs import Crash
from bids_harmonize.measures import site_classifier
from bids_harmonize.measures.scan_intensities import BEFORE_AND_AFTER, TISSUES
from bids_harmonize.report.components.page import render_page
from bids_harmonize.report.components.panels import MAX_LINES
from bids_harmonize.report.components.thumbnails import HEIGHT
from bids_harmonize.report.group.pool_section import pool_section
from bids_harmonize.report.group.site_sections import (
    MAX_SITES,
    TISSUE_COLOURS,
    TISSUE_LABELS,
    distance_matrices,
    intensity_panels,
    tissue_section,
)
from bids_harmonize.report.group.wall import picture_wall
from bids_harmonize.results.flagged_scans import FLAGS, FlaggedScan, flagged_scans, scan_name
from bids_harmonize.results.group_analysis import MIN_SCANS, OUTLIER_Z, Group
from bids_harmonize.results.reading import Result
from bids_harmonize.results.site_summaries import (
    between_sites,
    participants_per_site,
    ratio_variation,
    within_site,
)
from bids_harmonize.version import version

# The list of scans to look at has at most this many rows; the table of all scans has the rest.
MAX_LISTED = 100


@dataclass(frozen=True, kw_only=True)
class ScanRow:
    """A scan in the table of all scans.

    Attributes
    ----------
    link
        Its page; None where there is none.
    values
        Values of the columns of numbers; NaN where there is none.
    flagged
        The reasons to look at it; None for most.
    """

    name: str
    link: str | None
    site: str | None
    state: str
    values: Sequence[float]
    flagged: FlaggedScan | None


def group_page(suffix: str, group: Group, failed: Sequence[Crash]) -> str:
    """The page, HTML.

    Parameters
    ----------
    suffix
        Suffix of the scans, such as ``T1w``.
    group
        The scans.
    failed
        Scans of the same suffix without a result.
    """
    flagged = flagged_scans(group, failed)
    links = [_link(result) for result in group.results]
    counts = Counter(flag for scan in flagged for flag in scan.reasons)
    return render_page(
        "group",
        script=True,
        title=f"{suffix}: is the site effect gone?",
        version=version(),
        suffix=suffix,
        group=group,
        scans=len(group.results),
        participants=len({result.participant for result in group.results}),
        **_answer(group),
        flagged=[(scan, _link(scan.result)) for scan in flagged[:MAX_LISTED]],
        flagged_scans=len(flagged),
        flags=FLAGS,
        flag_counts={flag: counts[flag] for flag in FLAGS if counts[flag]},
        max_listed=MAX_LISTED,
        thumbnail_height=HEIGHT,
        wall=picture_wall(group, flagged, links),
        intensities=intensity_panels(group),
        matrices=distance_matrices(group),
        pools=pool_section(group),
        classified=_classified(group),
        tissues=tissue_section(group),
        sites_left_out=len({label for label in group.sites.labels if label}) - MAX_SITES,
        max_sites=MAX_SITES,
        max_lines=MAX_LINES,
        tissue_columns=list(TISSUE_LABELS.values()),
        tissue_legend=[(TISSUE_COLOURS[tissue], label) for tissue, label in TISSUE_LABELS.items()],
        rows=_rows(group, flagged, links),
        site_names=sorted({label for label in group.sites.labels if label}),
        outlier_z=OUTLIER_Z,
        min_scans=MIN_SCANS,
        classifier=site_classifier,
    )


def _answer(group: Group) -> dict[str, Any]:
    """What all scans say together, before and after; None where it cannot be told."""
    compared = group.comparisons
    several = bool(compared) and len(compared["Before"].sites) > 1
    return {
        "typical": {when: float(np.median(found.to_pooled)) for when, found in compared.items()},
        "between": {when: between_sites(found) for when, found in compared.items()} if several else None,
        "within": {when: within_site(found) for when, found in compared.items()},
        "ratio_variation": ratio_variation(group),
    }


def _classified(group: Group) -> dict[str, Any]:
    """Which sites the classifier was asked about, or why it was not."""
    if not group.classifications:
        return {"too_few": dict(list(participants_per_site(group).items())[:MAX_SITES])}
    participants = group.classifications["After"].participants
    return {
        "participants": sum(participants.values()),
        "sites": len(participants),
        "listed": dict(list(participants.items())[:MAX_SITES]),
        "small_sites": len(set(group.comparisons["After"].sites) - set(participants)),
    }


def _rows(group: Group, flagged: Sequence[FlaggedScan], links: Sequence[str | None]) -> list[ScanRow]:
    by_name = {scan.name: scan for scan in flagged}
    columns = [
        *(group.medians(tissue, "After") for tissue in TISSUES),
        *(group.ratios(when) for when in BEFORE_AND_AFTER),
        *(100 * group.distances[when] for when in BEFORE_AND_AFTER),
    ]
    rows = [
        ScanRow(
            name=scan_name(result.name),
            link=link,
            site=site,
            state="harmonized" if result.harmonized else "passed through",
            values=values,
            flagged=by_name.get(scan_name(result.name)),
        )
        for result, link, site, values in zip(
            group.results, links, group.sites.labels, np.transpose(columns).tolist(), strict=True
        )
    ]
    without_values = [float("nan")] * len(columns)
    return rows + [
        ScanRow(name=scan.name, link=None, site=None, state="failed", values=without_values, flagged=scan)
        for scan in flagged
        if scan.result is None
    ]


def _link(result: Result | None) -> str | None:
    """The page about the participant, if there is one."""
    folder = None if result is None else result.participant_folder
    if folder is None:
        return None
    name = f"{folder.name}.html"
    return quote(name) if folder.with_name(name).is_file() else None
