"""``--dry-run``: what the participant level would do, without the libraries that do it."""

from __future__ import annotations

from collections.abc import Sequence

from bids_harmonize.bids import derivatives
from bids_harmonize.bids.selection import Run, conflicts
from bids_harmonize.card import Carded, bundled_models, find_model
from bids_harmonize.errors import HarmonizeError, printable
from bids_harmonize.options import Options
from bids_harmonize.plan import PassedOver, Plan, plan_run


def tell_runs(options: Options, runs: Sequence[Run]) -> int:
    """Print what would be done with the runs, do nothing, and return the exit code."""
    derivatives.refuse_foreign(options.output_dir)
    models = [find_model(model)[1] for model in (*options.models, *bundled_models())]
    if options.device not in ("auto", "cpu"):
        # Whether it is there, only torch knows.
        from bids_harmonize.model import torch_device

        torch_device(options.device)
    print("about the dataset, where missing or out of date:")
    for name in (*derivatives.DATASET_FILES, "logs/run_*.json"):
        print(f"    {options.output_dir / name}")
    conflicting = conflicts(runs)
    for run in runs:
        try:
            plan = plan_run(options, run, models, conflicting)
        except PassedOver as reason:
            print(reason)
        except HarmonizeError as error:
            print(f"{printable(str(run.relative))} would fail: {error}")
        else:
            _tell(options, plan)
    print("a report of each person who has results then, with figures where missing or out of date:")
    for subject in dict.fromkeys(run.subject for run in runs):
        print(f"    {printable(str(derivatives.report_path(options.output_dir, subject)))}")
    return 0


def _tell(options: Options, plan: Plan[Carded]) -> None:
    if plan.complete and not options.force:
        print(f"{plan.name} is done already")
        return
    print(f"{plan.name} would be harmonized with the model {plan.model.name}, into")
    for path in plan.files:
        print(f"    {path}")
    if options.out_of_distribution == "skip" and plan.model.card.get("Recognizer") is not None:
        print(f"  or, if it is unlike what the model is meant for, unchanged into\n    {plan.unharmonized}")
