"""The three levels of analysis.

Each level imports its modules when it runs, so that the participant level does not wait for the trainer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from bids_harmonize.bids.dataset_files import output_must_survive
from bids_harmonize.bids.filters import Filters
from bids_harmonize.bids.output_paths import check_locations, prepare_output
from bids_harmonize.bids.query import check_dataset, select_runs
from bids_harmonize.bids.run import Run
from bids_harmonize.bids.skipped import FILTERED, Skipped, find_skipped
from bids_harmonize.errors import NothingSelected, UsageError
from bids_harmonize.execution.progress import start_logging
from bids_harmonize.imaging.body_part import HEAD_TERMS
from bids_harmonize.options import Options

if TYPE_CHECKING:
    from bids_harmonize.commands.group import Report


log = logging.getLogger("bids_harmonize")


def run(options: Options) -> int:
    """Run the level that the options ask for and return the exit code."""
    start_logging(options.verbosity)
    for warning in check_dataset(options.bids_dir, options.skip_validation):
        log.warning(warning)
    check_locations(
        options.output_dir, options.bids_dir, work_dir=options.work_dir, database_dir=options.database_dir
    )
    levels = {"participant": _participant, "group": _group, "train": _train}
    return levels[options.level](options)


def _participant(options: Options) -> int:
    if options.reports_only:
        from bids_harmonize.commands.participant import write_reports_only

        with output_must_survive(options.output_dir):
            return write_reports_only(options)
    try:
        runs = _select(options)
    except NothingSelected:
        # The error itself says that nothing matches the filters.
        _warn(one for one in find_skipped(options.bids_dir, _filters(options), []) if one.reason != FILTERED)
        raise
    skipped = find_skipped(options.bids_dir, _filters(options), runs)
    _warn(skipped)
    if options.dry_run:
        from bids_harmonize.commands.dry_run import print_plan

        return print_plan(options, runs)
    from bids_harmonize.commands.participant import harmonize_runs

    return harmonize_runs(options, runs, len(skipped))


def _group(options: Options) -> int:
    """Write tables and pages from the sidecars in the output folder."""
    from bids_harmonize.commands.group import unreported, write_group_reports

    filters = _filters(options)
    with output_must_survive(options.output_dir):
        reports = write_group_reports(
            options.output_dir,
            options.bids_dir,
            filters=filters,
            column=options.site_column,
            pool_by=options.pool_by,
            write=not options.dry_run,
        )
        for sentence in unreported(options.output_dir, filters):
            log.warning(sentence)
    if not reports:
        raise NothingSelected(
            f"{options.output_dir} holds no result of the scans that were asked for; "
            "run the participant level first"
        )
    for report in reports:
        for remark in report.sites.remarks:
            log.warning(remark)
    if options.verbosity >= 0:
        print(*(line for report in reports for line in _report_lines(report)), sep="\n")
    return 0


def _report_lines(report: Report) -> Iterator[str]:
    n_sites = len({label for label in report.sites.labels if label is not None})
    yield f"{report.table}: {report.scans} scan{'' if report.scans == 1 else 's'}"
    yield f"{report.page}: {n_sites} site{'' if n_sites == 1 else 's'}, identified by {report.sites.rule}"


def _train(options: Options) -> int:
    """Train models, for each modality and body part one, with scans of the dataset as the reference group."""
    runs = _select(options)
    if options.dry_run:
        print(*(f"{run.relative} -> reference candidate" for run in runs), sep="\n")
        return 0
    import torch

    from bids_harmonize.commands.scan_plan import serves
    from bids_harmonize.commands.train import train_model
    from bids_harmonize.model.harmonizer import Model
    from bids_harmonize.simulation.protocols import REFERENCE_PROTOCOLS
    from bids_harmonize.training.candidates import trained_body_part
    from bids_harmonize.training.run import TrainRequest

    torch.set_num_threads(options.omp_nthreads or options.n_cpus)
    prepare_output(options.output_dir, options.bids_dir, work_dir=options.work_dir)
    models = [Model.load(model, "cpu") for model in options.models]
    kinds = [(run.modality, trained_body_part(run)) for run in runs]
    if options.echo_times and any(kind != ("T2w", HEAD_TERMS[0]) for kind in kinds):
        raise UsageError("--echo-times is for T2w scans of heads; select these alone with --modalities T2w")
    requests = [
        TrainRequest(
            runs=[run for run, kind in zip(runs, kinds, strict=True) if kind == (modality, body_part)],
            modality=modality,
            body_part=body_part,
            reference_size=options.reference_size,
            steps=options.steps,
            seed=options.seed,
            start=next((model for model in models if serves(model, modality, body_part)), None),
            label_maps=options.label_maps,
            echo_times=options.echo_times,
            device=options.device,
        )
        for modality, body_part in dict.fromkeys(kinds)
    ]
    if options.label_maps and not any(request.is_simulated for request in requests):
        known = ", ".join(REFERENCE_PROTOCOLS)
        raise UsageError(f"--label-maps is for scans of heads, of {known}; leave it out")
    for request in requests:
        weights = train_model(request, options.output_dir, log.info)
        if options.verbosity >= 0:
            print(f"model for {request.modality} of {request.body_part}: {weights}")
    return 0


def _warn(skipped: Iterable[Skipped]) -> None:
    for one in skipped:
        log.warning(one)


def _filters(options: Options) -> Filters:
    return Filters(
        participants=options.participants,
        excluded=options.excluded,
        sessions=options.sessions,
        modalities=options.modalities,
        bids_filters=options.bids_filters,
    )


def _select(options: Options) -> list[Run]:
    database = options.database_dir
    if options.dry_run and database is not None and not database.is_dir():
        # pybids would create the database.
        database = None
    return select_runs(options.bids_dir, _filters(options), database)
