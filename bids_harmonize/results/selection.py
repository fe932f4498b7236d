"""Which results a user wants a report on, and what of it there is none of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from bids_harmonize.bids.filters import Filters, accepts, labels, sessions_of
from bids_harmonize.bids.run import HARMONIZED, MODALITY_OF_SUFFIX, UNHARMONIZED, Run, parse_name
from bids_harmonize.results.reading import Result


def wants(filters: Filters, scan: PurePosixPath) -> bool:
    """Whether the filters want a scan, given by its path in the dataset.

    A scan whose name is not BIDS any more is wanted: nothing is left out of a report without a reason.
    """
    run = _run(scan)
    if run is None:
        return True
    requested = labels(filters.participants, "sub")
    named = not requested or run.subject in requested
    return named and run.subject not in labels(filters.excluded, "sub") and accepts(filters, run)


def source_path(result: Result) -> PurePosixPath:
    """The path in the dataset of the scan that a result was made from."""
    for uri in result.sources:
        # As `bids.derivatives.source_uri` writes it: bids:NAME:PATH.
        return PurePosixPath(unquote(uri.split(":", 2)[-1]))
    return PurePosixPath(result.sidecar.name)


def labels_without_result(derivatives: Path, filters: Filters) -> list[str]:
    """Requested participants and sessions that no result is of, as in ``sub-01`` and ``ses-2``."""
    if not filters.participants and not filters.sessions:
        return []
    runs = [run for path in _outputs(derivatives, "json") if (run := _run(path)) is not None]
    participants = {run.subject for run in runs}
    sessions = {session for run in runs for session in sessions_of(run)}
    missing = [f"sub-{label}" for label in labels(filters.participants, "sub") if label not in participants]
    return missing + [f"ses-{label}" for label in labels(filters.sessions, "ses") if label not in sessions]


def images_without_sidecar(derivatives: Path, filters: Filters) -> Sequence[Path]:
    """Harmonized images that nothing is known of, because their JSON file is gone."""
    with_sidecar = {path.with_suffix("") for path in _outputs(derivatives, "json")}
    images = (path for path in _outputs(derivatives, "nii.gz") if wants(filters, path))
    return sorted(
        derivatives / path for path in images if path.with_suffix("").with_suffix("") not in with_sidecar
    )


def _outputs(derivatives: Path, ending: str) -> Iterator[PurePosixPath]:
    """Paths in the derivatives of results with an ending."""
    for description in (HARMONIZED, UNHARMONIZED):
        for path in derivatives.glob(f"sub-*/**/sub-*_desc-{description}_*.{ending}"):
            yield PurePosixPath(path.relative_to(derivatives).as_posix())


def _run(scan: PurePosixPath) -> Run | None:
    parsed = parse_name(scan.name)
    if parsed is None or "sub" not in parsed[0] or parsed[1] not in MODALITY_OF_SUFFIX:
        return None
    root = Path("/")
    return Run(
        dataset=root,
        path=root / scan,
        entities=parsed[0],
        suffix=parsed[1],
        modality=MODALITY_OF_SUFFIX[parsed[1]],
    )
