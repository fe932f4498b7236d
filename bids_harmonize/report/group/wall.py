"""The wall of pictures: all scans of a group before and after, site by site."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bids_harmonize.report.components.pictures import data_uri
from bids_harmonize.report.components.thumbnails import figure_pattern, thumbnail_path
from bids_harmonize.results.flagged_scans import FlaggedScan, scan_name
from bids_harmonize.results.group_analysis import Group
from bids_harmonize.results.reading import Result

# With more pictures the page would be slow; those of scans to look at come first then.
MAX_PICTURES = 2000


@dataclass(frozen=True, kw_only=True)
class WallPicture:
    """A scan on the wall.

    Attributes
    ----------
    source
        The picture as a data URI; None where there is none.
    link
        The page about the participant; None where there is none.
    why
        Why the scan is to be looked at; empty for most.
    """

    name: str
    source: str | None
    link: str | None
    why: str


@dataclass(frozen=True, kw_only=True)
class Wall:
    """The pictures by site, sites in the order of their names and scans without a site last.

    Attributes
    ----------
    hidden
        How many scans are left out, because there are too many.
    """

    sites: Mapping[str, Sequence[WallPicture]]
    hidden: int


def picture_wall(group: Group, flagged: Sequence[FlaggedScan], links: Sequence[str | None]) -> Wall:
    """The pictures of a group.

    Parameters
    ----------
    flagged
        The scans to look at.
    links
        For each result of the group, the page about its participant.
    """
    why = {scan.name: scan.why for scan in flagged}
    shown = _shown(group.results, why)
    by_site: defaultdict[str | None, list[WallPicture]] = defaultdict(list)
    for n in shown:
        result, name = group.results[n], scan_name(group.results[n].name)
        picture = WallPicture(name=name, source=_source(result), link=links[n], why=why.get(name, ""))
        by_site[group.sites.labels[n]].append(picture)
    order = sorted(by_site, key=lambda site: (site is None, site or ""))
    return Wall(
        sites={site or "unknown site": by_site[site] for site in order},
        hidden=len(group.results) - len(shown),
    )


def _shown(results: Sequence[Result], why: Mapping[str, str]) -> list[int]:
    """The scans that are shown, in their order."""
    flagged_first = sorted(range(len(results)), key=lambda n: scan_name(results[n].name) not in why)
    return sorted(flagged_first[:MAX_PICTURES])


def _source(result: Result) -> str | None:
    folder = result.participant_folder
    if folder is None:
        return None
    try:
        picture = thumbnail_path(figure_pattern(result.sidecar, folder / "figures")).read_bytes()
    except OSError:
        return None
    return data_uri(picture, "webp")
