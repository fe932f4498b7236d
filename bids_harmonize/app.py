"""The three levels of analysis.

Each imports for itself what it needs: a task of one participant shall not wait for what trains models.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from bids_harmonize.bids import derivatives
from bids_harmonize.bids.selection import Filters, Run, check_dataset, select_runs
from bids_harmonize.errors import NothingSelected
from bids_harmonize.options import Options
from bids_harmonize.terminal import start_logging

if TYPE_CHECKING:
    from bids_harmonize.report.group import Report

log = logging.getLogger("bids_harmonize")


def run(options: Options) -> int:
    """Run the level that the options ask for and return the exit code."""
    start_logging(options.verbosity)
    for warning in check_dataset(options.bids_dir, options.skip_validation):
        log.warning(warning)
    derivatives.check_locations(
        options.output_dir, options.bids_dir, work_dir=options.work_dir, database_dir=options.database_dir
    )
    levels = {"participant": _participant, "group": _group, "train": _train}
    return levels[options.level](options)


def _participant(options: Options) -> int:
    if options.reports_only:
        from bids_harmonize.participant import report_on_people

        with derivatives.staying(options.output_dir):
            return report_on_people(options)
    runs = _select(options)
    if options.dry_run:
        from bids_harmonize.dry_run import tell_runs

        return tell_runs(options, runs)
    from bids_harmonize.participant import harmonize_runs

    return harmonize_runs(options, runs)


def _group(options: Options) -> int:
    """Tables and pages of the sidecars that are there."""
    from bids_harmonize.report.group import write_group_reports

    with derivatives.staying(options.output_dir):
        reports = write_group_reports(
            options.output_dir, options.bids_dir, column=options.site_column, write=not options.dry_run
        )
    if not reports:
        raise NothingSelected(
            f"{options.output_dir} holds no harmonized scan; run the participant level first"
        )
    for report in reports:
        for remark in report.sites.remarks:
            log.warning(remark)
    if options.verbosity >= 0:
        print(*(line for report in reports for line in _told(report)), sep="\n")
    return 0


def _told(report: Report) -> Iterator[str]:
    known = len({label for label in report.sites.labels if label is not None})
    yield f"{report.table}: {report.scans} scans"
    yield f"{report.page}: {known} site{'' if known == 1 else 's'}, told by {report.sites.rule}"


def _train(options: Options) -> int:
    """Learn a model from the scans of the dataset as the reference group."""
    runs = _select(options)
    if options.dry_run:
        print(*(f"{run.relative} -> reference candidate" for run in runs), sep="\n")
        return 0
    import torch

    from bids_harmonize.learn import body_part_of, learn
    from bids_harmonize.model import Model

    torch.set_num_threads(options.omp_nthreads or options.n_cpus)
    derivatives.prepare_output(options.output_dir, options.bids_dir, work_dir=options.work_dir)
    models = [Model.load(model, "cpu") for model in options.models]
    kinds = [(run.modality, body_part_of(run)) for run in runs]
    for modality, body_part in dict.fromkeys(kinds):
        weights = learn(
            [run for run, kind in zip(runs, kinds, strict=True) if kind == (modality, body_part)],
            modality,
            options.output_dir,
            size=options.reference_size,
            steps=options.steps,
            seed=options.seed,
            progress=log.info,
            body_part=body_part,
            start=next((model for model in models if model.serves(modality, body_part)), None),
            label_maps=options.label_maps,
            device=options.device,
        )
        if options.verbosity >= 0:
            print(f"model for {modality} of {body_part}: {weights}")
    return 0


def _select(options: Options) -> list[Run]:
    filters = Filters(
        participants=options.participants,
        excluded=options.excluded,
        sessions=options.sessions,
        modalities=options.modalities,
        bids_filters=options.bids_filters,
    )
    database = options.database_dir
    if options.dry_run and database is not None and not database.is_dir():
        # One would be made.
        database = None
    return select_runs(options.bids_dir, filters, database)
