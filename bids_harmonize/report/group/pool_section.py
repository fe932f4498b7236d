"""The part of the group's page about pools: the curve that scans share, over those of each by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bids_harmonize.measures.overall_curve import OverallCurve
from bids_harmonize.report.components.numbers import digits, pluralize
from bids_harmonize.report.components.panels import PanelGrid, PanelRow, pool_panel
from bids_harmonize.results.group_analysis import Group
from bids_harmonize.results.pool import Pool
from bids_harmonize.results.selection import source_path

# The page shows at most this many pools, the largest; `pools.tsv` has all of them.
MAX_POOLS = 20


@dataclass(frozen=True, kw_only=True)
class PoolSection:
    """Pools, the scans that do not fit theirs, and how many pools are not shown."""

    rule: str
    grid: PanelGrid
    left_out: list[tuple[str, str, float]]
    hidden: int


def pool_section(group: Group) -> PoolSection | None:
    """What there is to say of pools; None where there are none."""
    if not group.pools:
        return None
    shown = sorted(group.pools, key=lambda pool: (-len(pool.members), pool.label))[:MAX_POOLS]
    own = {
        str(source_path(result)): result.provenance.overall_curve
        for result in group.results
        if result.provenance.overall_curve.known
    }
    rows = [_row(pool, own) for pool in shown]
    return PoolSection(
        rule=shown[0].rule,
        grid=PanelGrid(
            heads=["Pool", "Intensity after, by intensity before"], rows=rows, axes=[("0", "brightest")]
        ),
        left_out=[(name, pool.label, far) for pool in group.pools for name, far in pool.left_out.items()],
        hidden=len(group.pools) - len(shown),
    )


def _row(pool: Pool, own: dict[str, OverallCurve]) -> PanelRow:
    members = [own[name] for name in pool.members if name in own]
    far = [pool.shared.distance(curve) for curve in members]
    note = pluralize(len(pool.members), "scan")
    if far:
        note += f"; their own curves differ from the shared one by {digits(100 * float(np.median(far)))} %"
    return PanelRow(
        name=pool.label, note=note, panels=[pool_panel(pool.shared, members, f"{pool.label}: {note}")]
    )
