"""The group level: tables and pages of the sidecars that are there."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bids_harmonize.bids.filters import Filters
from bids_harmonize.bids.grouping import Grouping
from bids_harmonize.bids.logs import read_crashes
from bids_harmonize.bids.run import MODALITY_OF_SUFFIX
from bids_harmonize.bids.sites import assign_sites
from bids_harmonize.commands.pools import form_and_write, measured_results
from bids_harmonize.files.atomic import remove_stale_temp_files, write_text
from bids_harmonize.report.group.page import group_page
from bids_harmonize.results.flagged_scans import failed_scans
from bids_harmonize.results.group_analysis import Group
from bids_harmonize.results.group_table import write_table
from bids_harmonize.results.pool import FOLDER, read_pools
from bids_harmonize.results.reading import Result, read_results
from bids_harmonize.results.selection import (
    images_without_sidecar,
    labels_without_result,
    source_path,
    wants,
)

log = logging.getLogger("bids_harmonize")

EVERYTHING = Filters(modalities=tuple(MODALITY_OF_SUFFIX))


@dataclass(frozen=True, kw_only=True)
class Report:
    """A table and a page of the scans of one suffix, how many they are, and where these come from."""

    table: Path
    page: Path
    scans: int
    sites: Grouping


def write_group_reports(
    derivatives: Path,
    dataset: Path,
    *,
    filters: Filters = EVERYTHING,
    column: str | None = None,
    pool_by: str | None = None,
    write: bool = True,
) -> list[Report]:
    """Write ``group_<suffix>.tsv``, its data dictionary and ``group_<suffix>.html``, for every suffix.

    Only sidecars and logs of the derivatives are read, and ``participants.tsv`` of the dataset.

    Parameters
    ----------
    derivatives, dataset
        Folders of the outputs and of the input.
    filters
        The scans to report on.
    column
        The column of ``participants.tsv`` that names the site; None for the usual names.
    pool_by
        What scans that share an edit have in common, see `form_pools`; pools are written then.
    write
        Whether to write; otherwise only what would be written is returned.

    Raises
    ------
    UsageError
        There is no such column, of sites or of pools.
    BadData
        A sidecar, or the table in which the column was asked for, cannot be read.
    CannotCreate, InputOutputError
        As `write_text` does.
    """
    if write:
        remove_stale_temp_files(derivatives)
    found_results = read_results(derivatives)
    if pool_by is not None and write:
        _write_pools(pool_by, found_results, filters, dataset, derivatives)
    pools = read_pools(derivatives / FOLDER) if (derivatives / FOLDER).is_dir() else []
    crashes = [crash for crash in read_crashes(derivatives) if wants(filters, crash.scan)]
    reports = []
    for suffix, found in found_results.items():
        results = [result for result in found if wants(filters, source_path(result))]
        if not results:
            continue
        sites = assign_sites(
            [result.participant for result in results],
            [result.metadata for result in results],
            dataset,
            column,
        )
        path = derivatives / f"group_{suffix}.tsv"
        report = Report(table=path, page=path.with_suffix(".html"), scans=len(results), sites=sites)
        if write:
            own_pools = [pool for pool in pools if pool.suffix == suffix]
            group = Group(results=results, sites=sites, pools=own_pools)
            write_table(report.table, group)
            write_text(report.page, group_page(suffix, group, failed_scans(suffix, found, crashes)))
        reports.append(report)
    return reports


def _write_pools(
    rule: str, results: Mapping[str, Sequence[Result]], filters: Filters, dataset: Path, derivatives: Path
) -> None:
    seen = [result for found in results.values() for result in found if wants(filters, source_path(result))]
    wanted = [result for result in seen if result.harmonized]
    measured = list(measured_results(wanted))
    if len(measured) < len(wanted):
        log.warning(
            "%d of %d sidecars in %s do not say what was done to a scan as a whole, as in older releases; "
            "they are in no pool; harmonize them again",
            len(wanted) - len(measured),
            len(wanted),
            derivatives,
        )
    form_and_write(rule, measured, [source_path(result) for result in seen], dataset, derivatives)


def unreported(derivatives: Path, filters: Filters) -> Iterator[str]:
    """Tell of what was asked for, or lies there, and is in no report: one sentence each."""
    for label in labels_without_result(derivatives, filters):
        yield f"{label} has no result in {derivatives}; run the participant level on it first"
    for image in images_without_sidecar(derivatives, filters):
        yield f"{image} has no sidecar and is in no report; run the participant level again"
