"""``--dry-run``: print what the participant level would do, without loading the libraries that do it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bids_harmonize.bids.dataset_files import DATASET_FILES, require_own_dataset
from bids_harmonize.bids.output_paths import report_path
from bids_harmonize.bids.run import Run, conflicts
from bids_harmonize.commands.pools import assign, check_pooling, given_pools
from bids_harmonize.commands.scan_plan import RunSkipped, ScanPlan, plan_run
from bids_harmonize.errors import HarmonizeError, escape_unprintable
from bids_harmonize.model.card import ModelInfo, known_models
from bids_harmonize.options import Options
from bids_harmonize.results.pool import FOLDER, PoolOfScan


def print_plan(options: Options, runs: Sequence[Run]) -> int:
    """Print what would be done with the runs, do nothing, and return the exit code."""
    require_own_dataset(options.output_dir)
    models = known_models(options.models)
    assigned: Mapping[Path, PoolOfScan | None] = {}
    if options.pool is not None:
        assigned = assign(runs, given_pools(options.pool, models), models, options.pool)
    if options.pool_by is not None:
        check_pooling(options.pool_by, runs, options.bids_dir, options.output_dir)
    if options.device not in ("auto", "cpu"):
        # Only torch knows whether the device exists.
        from bids_harmonize.model.loading import torch_device

        torch_device(options.device)
    print("files of the dataset, if missing or out of date:")
    for name in (*DATASET_FILES, "logs/run_*.json"):
        print(f"    {options.output_dir / name}")
    conflicting = conflicts(runs)
    for run in runs:
        try:
            plan = plan_run(options, run, models, conflicting, assigned.get(run.path))
        except RunSkipped as reason:
            print(reason)
        except HarmonizeError as error:
            print(f"{escape_unprintable(str(run.relative))} would fail: {error}")
        else:
            _plan_line(options, plan)
    if options.pool_by is not None:
        print(f"the pools of scans of one {options.pool_by}, which share an edit:")
        print(f"    {options.output_dir / FOLDER}")
    print("a report of each participant with results, with figures if missing or out of date:")
    for subject in dict.fromkeys(run.subject for run in runs):
        print(f"    {escape_unprintable(str(report_path(options.output_dir, subject)))}")
    return 0


def _plan_line(options: Options, plan: ScanPlan[ModelInfo]) -> None:
    if plan.complete and not options.force:
        print(f"{plan.name} is up to date")
        return
    unless = "" if options.pool_by is None else ", unless neither it nor its pool has changed"
    print(f"{plan.name} would be harmonized with model {plan.model.name}{unless}, into")
    for path in plan.files:
        print(f"    {path}")
    if options.out_of_distribution == "skip" and plan.model.card.ood_detector is not None:
        print(f"  or, if it looks out of distribution, unchanged into\n    {plan.unharmonized}")
