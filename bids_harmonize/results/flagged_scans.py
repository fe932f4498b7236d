"""Scans that somebody should look at, and why."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bids_harmonize.bids.logs import Crash
from bids_harmonize.results.group_analysis import Group
from bids_harmonize.results.reading import Result

# What is found, in words; the gravest first.
FLAGS = {
    "failed": "failed",
    "passed": "passed through, not harmonized",
    "unlike": "out of distribution for the model",
    "outlier": "unlike the others",
    "warned": "with warnings",
}


@dataclass(frozen=True, kw_only=True)
class FlaggedScan:
    """A scan to look at.

    Attributes
    ----------
    name
        Name of the scan, without ending.
    site
        Site of the scan; None if unknown.
    reasons
        Why it is to be looked at, by `FLAGS`.
    result
        The result of the scan; None if it failed.
    """

    name: str
    site: str | None
    reasons: Mapping[str, str]
    result: Result | None

    @property
    def why(self) -> str:
        """All reasons in one line."""
        texts = (f"failed: {text}" if flag == "failed" else text for flag, text in self.reasons.items())
        return "; ".join(texts)


def flagged_scans(group: Group, failed: Sequence[Crash]) -> list[FlaggedScan]:
    """Find the scans to look at, the gravest first, in the order of `FLAGS`."""
    flagged = [
        FlaggedScan(
            name=scan_name(crash.scan.name), site=None, reasons={"failed": crash.sentence}, result=None
        )
        for crash in failed
    ]
    for result, site, outlying in zip(group.results, group.sites.labels, group.outliers, strict=True):
        if reasons := _reasons(result, outlying):
            flagged.append(
                FlaggedScan(name=scan_name(result.name), site=site, reasons=reasons, result=result)
            )
    order = list(FLAGS)
    return sorted(flagged, key=lambda scan: min(order.index(flag) for flag in scan.reasons))


def failed_scans(suffix: str, results: Iterable[Result], crashes: Iterable[Crash]) -> list[Crash]:
    """Scans of a suffix that failed and have no result since."""
    with_result = {scan_name(result.name) for result in results}
    return [
        crash
        for crash in crashes
        if crash.stem.endswith(f"_{suffix}") and scan_name(crash.scan.name) not in with_result
    ]


def scan_name(name: str) -> str:
    """What the file names of a scan and of its results share."""
    return re.sub("_desc-[^_]+", "", name.split(".")[0])


def _reasons(result: Result, outlying: Sequence[str]) -> dict[str, str]:
    warnings = "; ".join(result.warnings)
    reasons = {}
    if not result.harmonized:
        reasons["passed"] = FLAGS["passed"]
    if result.out_of_distribution:
        reasons["unlike"] = warnings or FLAGS["unlike"]
    if outlying:
        reasons["outlier"] = "; ".join(outlying)
    if warnings and not result.out_of_distribution:
        reasons["warned"] = warnings
    return reasons
