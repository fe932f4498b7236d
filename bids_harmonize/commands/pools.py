"""The pools of scans that share an edit: formed, read, and told of."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from bids_harmonize.bids.input_metadata import read_metadata
from bids_harmonize.bids.output_paths import check_inside
from bids_harmonize.bids.pools import PROTOCOL, SESSION, SITE, Acquired, form_pools
from bids_harmonize.bids.run import Run
from bids_harmonize.commands.scan_plan import model_for
from bids_harmonize.errors import BadData, HarmonizeError, UsageError
from bids_harmonize.measures.overall_curve import OverallCurve
from bids_harmonize.measures.shared_curve import MAX_DISTANCE, share_of_pool
from bids_harmonize.model.card import ModelInfo
from bids_harmonize.results.pool import (
    FOLDER,
    Measured,
    Pool,
    PoolOfScan,
    pool_of,
    pool_scans,
    read_pools,
    write_pools,
)
from bids_harmonize.results.provenance import PoolRecord
from bids_harmonize.results.reading import Result
from bids_harmonize.results.selection import source_path

log = logging.getLogger("bids_harmonize")

BY_ITSELF = "it was harmonized by itself"


def pool_record(pool: PoolOfScan | None, own: OverallCurve) -> PoolRecord:
    """What a scan has to do with its pool."""
    if pool is None or not own.known:
        return PoolRecord()
    fits = not pool.left_out and pool.shared.fits(own)
    return PoolRecord(
        label=pool.label,
        rule=pool.rule,
        sha256=pool.sha256,
        others=pool.others,
        share=share_of_pool(pool.others) if fits else 0.0,
        gain=float(f"{math.exp(pool.shared.log_gain(own)):.6g}"),
        distance=round(pool.shared.distance(own), 4),
        fits=fits,
        curve=pool.shared.curve,
    )


def pool_warnings(pool: PoolOfScan | None, record: PoolRecord) -> list[str]:
    """What a user should know of a scan that does not share the edit of its pool."""
    if pool is None or record.fits:
        return []
    if record.fits is None:
        return [f"it has too little tissue to be compared with the pool {pool.label}; {BY_ITSELF}"]
    return [
        f"it does not fit the pool {pool.label}, and may be of another contrast under the same name (its own "
        f"curve is {record.distance:.2f} from the shared one; up to {MAX_DISTANCE} fits); {BY_ITSELF}"
    ]


def measured_results(results: Iterable[Result]) -> Iterator[Measured]:
    """The scans whose own curve their sidecar says."""
    for result in results:
        provenance = result.provenance
        if result.harmonized and provenance.overall_curve.known and provenance.voxel_sizes:
            yield Measured(
                acquired=Acquired(
                    path=source_path(result),
                    metadata=result.metadata,
                    zooms=provenance.voxel_sizes,
                ),
                suffix=result.suffix,
                model=str(provenance.model),
                model_sha256=str(provenance.model_sha256),
                own=provenance.overall_curve,
            )


def check_pooling(rule: str, runs: Sequence[Run], dataset: Path, derivatives: Path) -> None:
    """Refuse to form pools in vain, or without scans that pools are formed of already.

    Raises
    ------
    UsageError
        There is no such column; or pools that were written before hold scans that are not selected.
    """
    if rule not in (PROTOCOL, SITE, SESSION):
        form_pools(rule, [Acquired(path=run.relative, metadata={}, zooms=()) for run in runs], dataset)
    selected = {str(run.relative) for run in runs}
    left = sorted(
        scan
        for pool in _pools_before(derivatives / FOLDER)
        for scan in pool.names
        if scan not in selected and (dataset / scan).is_file()
    )
    if left:
        raise UsageError(
            f"--pool-by {rule}: the pools in {derivatives / FOLDER} are also of scans that are not selected "
            f"({len(left)}, such as {left[0]}), and would be formed without these; select all scans, or give "
            f"--pool {derivatives / FOLDER} to leave the pools as they are"
        )


def _pools_before(folder: Path) -> list[Pool]:
    try:
        return read_pools(folder)
    except HarmonizeError:
        # What is damaged is formed again.
        return []


def form_and_write(
    rule: str,
    measured: Iterable[Measured | None],
    seen: Iterable[PurePosixPath],
    dataset: Path,
    derivatives: Path,
) -> list[Pool]:
    """Form the pools of scans, say what they are, and write them beside the results.

    Parameters
    ----------
    seen
        Paths of all scans, those that can be in no pool too.

    Raises
    ------
    UsageError, BadData
        As `form_pools` does.
    CannotCreate, InputOutputError
        As `write_pools` does.
    """
    scans = sorted((scan for scan in measured if scan is not None), key=lambda scan: str(scan.acquired.path))
    if not scans:
        return []
    formed = form_pools(rule, [scan.acquired for scan in scans], dataset)
    for remark in formed.remarks:
        log.warning(remark)
    pools = pool_scans(scans, formed)
    check_inside(derivatives / FOLDER, derivatives)
    named = {scan for pool in pools for scan in pool.names}
    alone = [scan for scan in seen if str(scan) not in named]
    write_pools(pools, derivatives / FOLDER, alone)
    for pool in pools:
        log.info("pool %s, %s: %s", pool.label, pool.suffix, _in_words(pool))
    return pools


def _in_words(pool: Pool) -> str:
    count = len(pool.members)
    left_out = f"; {len(pool.left_out)} that do not fit: {', '.join(pool.left_out)}" if pool.left_out else ""
    return f"{count} scan{'' if count == 1 else 's'}{left_out}"


def given_pools(path: Path, models: Sequence[ModelInfo]) -> list[Pool]:
    """Read pools that were formed before.

    Raises
    ------
    NoInput
        There is none.
    BadData
        One is damaged, or of a model that is not used here.
    """
    pools = read_pools(path)
    known = {model.sha256 for model in models}
    for pool in pools:
        if pool.model_sha256 not in known:
            raise BadData(
                f"{path} holds a pool of another model (other weights of {pool.model} than those used "
                "here); give that --model, or form the pool again"
            )
    return pools


def assign(
    runs: Sequence[Run], pools: Sequence[Pool], models: Sequence[ModelInfo], given: Path | None = None
) -> Mapping[Path, PoolOfScan | None]:
    """The pool of every run, by its path; None where it is in none. What cannot be read is left out.

    Parameters
    ----------
    given
        What `--pool` names: the file of a pool is for all scans, a folder for those that its pools name.
    """
    for_all = given is not None and not given.is_dir()
    assigned: dict[Path, PoolOfScan | None] = {}
    for run in runs:
        try:
            model = model_for(run.modality, read_metadata(run), models)
        except HarmonizeError:
            # What is wrong with it is said when its turn comes.
            continue
        pool = pool_of(run.relative, run.suffix, model.sha256, pools, for_all=for_all)
        assigned[run.path] = None if pool is None else pool.of_scan(run.relative)
    return assigned
