"""Tier D: distribution and tissue contrast across sites.

The distance of a scan is the mean difference of its quantile function (2 to 98 %) inside the head from the
median one of the reference group, over the span of the latter. A skull-stripped scan has only a brain inside
its head; it is compared with the reference group inside the brain. Two distances are stated:

- to the reference group *as it is*, each scan with its white matter at 1000: whether outputs look like what
  the group looks like. Baselines get one linear map each (see `intensities`), ours none.
- to the *harmonized* reference group, both sides from the same method: whether a method makes scans alike,
  whatever they then look like.

Masks are made once, on the raw scans (of tissues after N4). Metrics of tissues are over all scans whose
brain mask is plausible; they are on the mapped scale too, so that those of z-scores have a zero. White-grey
contrast guards them: a method that flattens contrast has a small spread of the ratio.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np

from benchmarks.data import Data
from benchmarks.methods import Method
from benchmarks.result_rows import Row, summarize
from benchmarks.tiers.intensities import (
    Curve,
    Intensities,
    Region,
    as_it_is,
    group_curve,
    harmonized_group,
    measure,
)
from benchmarks.tiers.statistics import bootstrap_error, coefficient_of_variation

TIER = "D"
AS_IT_IS = "distance to the reference group"
HARMONIZED = "distance to the harmonized reference group"


def run(methods: Sequence[Method], data: Data) -> list[Row]:
    """The rows of all methods."""
    raw = [as_it_is(scan) for scan in data.reference]
    return [row for method in methods for row in _method_rows(method, data, raw)]


def distance(curve: Curve, reference: Curve) -> float:
    """Mean difference of two quantile functions over the span of the second."""
    return float(np.abs(curve - reference).mean() / (reference[-1] - reference[0]))


def distance_to(group: Sequence[Intensities]) -> Callable[[Intensities], float]:
    """The distance of a scan to a group, inside the brain where the scan is skull-stripped."""
    curves: dict[Region, Curve] = {region: group_curve(group, region) for region in ("head", "brain")}
    return lambda scan: distance(scan.curves["head"], curves["brain" if scan.stripped else "head"])


def between_sites(scans: Sequence[Intensities], group: Sequence[Intensities]) -> list[float]:
    """Distances of all pairs of sites, by their median quantile functions, over the group's span.

    Inside the brain where one of the two sites is skull-stripped.
    """
    sites = [[scan for scan in scans if scan.site == site] for site in sorted({scan.site for scan in scans})]
    distances = []
    for a, b in combinations(sites, 2):
        region: Region = "brain" if any(scan.stripped for scan in (*a, *b)) else "head"
        reference = group_curve(group, region)
        span = reference[-1] - reference[0]
        distances.append(float(np.abs(group_curve(a, region) - group_curve(b, region)).mean() / span))
    return distances


def _method_rows(method: Method, data: Data, raw: Sequence[Intensities]) -> list[Row]:
    scale, group = harmonized_group(method, data.reference)
    held_out, others = (
        [measure(scan, method.apply(scan)).scaled(scale) for scan in scans]
        for scans in (data.held_out, data.sites)
    )
    rows = []
    for metric, reference in ((AS_IT_IS, raw), (HARMONIZED, group)):
        to_group = distance_to(reference)
        rows += _by_site(method.name, data.modality, metric, [*held_out, *others], to_group)
        rows.append(
            _row(method.name, data.modality, f"{metric}, from within", [to_group(scan) for scan in group])
        )
    pairs = between_sites([*group, *others], group)
    used = len(group) + len(others)
    rows.append(_row(method.name, data.modality, "distance between sites", pairs, scans=used))
    return rows + _tissues(method.name, data.modality, [*group, *held_out, *others])


def _by_site(
    method: str,
    modality: str,
    metric: str,
    scans: Sequence[Intensities],
    to_group: Callable[[Intensities], float],
) -> list[Row]:
    """Mean and spread over the scans of each site, then over the means of the new sites."""
    found: dict[str, list[float]] = {}
    for scan in scans:
        found.setdefault(scan.site, []).append(to_group(scan))
    names = {"reference": "left-out person"}
    rows = [
        _row(method, modality, f"{metric}, {names.get(site, site)}", values) for site, values in found.items()
    ]
    new = {site: values for site, values in found.items() if site not in names}
    used = sum(len(values) for values in new.values())
    means = [float(np.mean(values)) for values in new.values()]
    return [_row(method, modality, f"{metric}, mean of new sites", means, scans=used), *rows]


def _tissues(method: str, modality: str, scans: Sequence[Intensities]) -> list[Row]:
    """Coefficients of variation over all scans; their spread is the bootstrap's standard error."""
    known = [scan for scan in scans if not np.isnan(scan.white)]
    found = np.array([(scan.white, scan.grey / scan.white) for scan in known])
    names = ("white-matter median, CoV", "grey/white ratio, CoV")
    contrasts = [abs(scan.white - scan.grey) / float(np.ptp(scan.curves["brain"])) for scan in known]
    contrast = "white-grey contrast over the brain's range"
    return [
        summarize(TIER, modality, contrast, method, contrasts, better="neither", scans=len(known)),
        *_variations(method, modality, dict(zip(names, found.T, strict=True))),
    ]


def _variations(method: str, modality: str, measured: Mapping[str, Curve]) -> list[Row]:
    return [
        Row(
            tier=TIER,
            modality=modality,
            metric=metric,
            method=method,
            value=coefficient_of_variation(values),
            spread=bootstrap_error(values, coefficient_of_variation),
            n=len(values),
            better="lower",
            scans_used=len(values),
        )
        for metric, values in measured.items()
    ]


def _row(method: str, modality: str, metric: str, values: Sequence[float], scans: int | None = None) -> Row:
    used = len(values) if scans is None else scans
    return summarize(TIER, modality, metric, method, values, better="lower", scans=used)
