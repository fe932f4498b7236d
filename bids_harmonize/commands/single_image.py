"""One file outside of any dataset: the same model, checks, sidecar and messages as in a dataset."""

from __future__ import annotations

import glob
import logging
import os
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bids_harmonize.bids.output_paths import sidecar_path, transform_path
from bids_harmonize.commands.harmonize_scan import as_user_error, harmonize_scan
from bids_harmonize.commands.pools import given_pools
from bids_harmonize.commands.scan_plan import NoMatchingModel, ScanPlan, model_for
from bids_harmonize.errors import BadData, UsageError
from bids_harmonize.execution.progress import STATUS, TRACE, start_logging
from bids_harmonize.files.atomic import remove_stale_temp_files
from bids_harmonize.files.checksum import file_sha256
from bids_harmonize.files.json_object import read_object
from bids_harmonize.imaging.nifti import open_image
from bids_harmonize.model.card import ModelInfo, known_models
from bids_harmonize.model.harmonizer import Model
from bids_harmonize.options import ImageOptions
from bids_harmonize.results.pool import PoolOfScan, as_named, pool_of
from bids_harmonize.results.provenance import is_own_sidecar

log = logging.getLogger("bids_harmonize")


def run(options: ImageOptions) -> int:
    """Harmonize the file and return the exit code.

    Raises
    ------
    UsageError
        The output would overwrite an input, or a file of another program.
    HarmonizeError
        As `harmonize_scan` and `open_image` do.
    """
    start_logging(options.verbosity)
    torch.set_num_threads(options.omp_nthreads or 1)
    log.info("harmonizing %s", options.source, extra=STATUS)
    try:
        plan = _plan(options)
        for path in plan.files:
            remove_stale_temp_files(path.parent, glob.escape(path.name))
        done = "harmonized" if harmonize_scan(plan).result.harmonized else "passed through"
    except Exception as error:
        log.log(TRACE, "%s", "".join(traceback.format_exception(error)).rstrip())
        shown = as_user_error(options.source, error)
        if shown is error:
            raise
        raise shown from error
    finally:
        log.info("", extra=STATUS)
    log.info("%s is %s, into %s", options.source, done, options.output)
    return 0


def _plan(options: ImageOptions) -> ScanPlan[Model]:
    # The image is opened first, so that a missing or damaged file is reported before anything else.
    open_image(options.source)
    beside = sidecar_path(options.source)
    _check_output(options, beside)
    metadata = read_object(beside) if os.path.lexists(beside) else {}
    known = known_models(options.models)[: len(options.models) or None]
    modality = options.modality or known[0].card.modality
    model = Model.load(_model(options, modality, metadata, known).weights, options.device)
    return ScanPlan(
        path=options.source,
        name=str(options.source),
        suffix=modality,
        source=options.source.as_uri(),
        metadata=metadata,
        model=model,
        input_sha256=file_sha256(options.source),
        output=options.output,
        unharmonized=options.output,
        options=options,
        pool=None if options.pool is None else _pool(options, modality, model),
    )


def _pool(options: ImageOptions, modality: str, model: Model) -> PoolOfScan:
    path = Path(str(options.pool))
    pools = given_pools(path, known_models(options.models))
    scan = as_named(options.source.name, pools)
    pool = pool_of(scan, modality, model.sha256, pools, for_all=not path.is_dir())
    if pool is None:
        raise BadData(
            f"{options.source} belongs to no pool in {path}; name the file of a pool of {modality} scans"
        )
    return pool.of_scan(scan)


def _model(
    options: ImageOptions, modality: str, metadata: Mapping[str, Any], models: Sequence[ModelInfo]
) -> ModelInfo:
    try:
        return model_for(modality, metadata, models)
    except NoMatchingModel as reason:
        if not options.models:
            raise BadData(f"{options.source}: {reason}") from reason
        right_modality = modality == models[0].card.modality
        correct = "BodyPart in the sidecar" if right_modality else "--modality"
        raise BadData(
            f"{options.source} is {reason.what}, and the model {models[0].name} is not meant for that; "
            f"give another --model, or correct {correct}"
        ) from reason


def _check_output(options: ImageOptions, beside: Path) -> None:
    """Refuse to overwrite what was read and, unless forced, what this program did not write."""
    output = options.output
    sidecar = sidecar_path(output)
    written = (output, sidecar, transform_path(output))
    weights = [Path(model) for model in options.models]
    read = (options.source, beside, *weights, *(path.with_suffix(".json") for path in weights))
    for path in written:
        for source in read:
            if _is_same_file(path, source):
                raise UsageError(f"{path} is an input, and would be overwritten; name another output")
    if options.force or is_own_sidecar(sidecar):
        return
    for path in written:
        if os.path.lexists(path):
            raise UsageError(
                f"{path} already exists and was not written by this program; "
                "name another output, or give --force"
            )


def _is_same_file(path: Path, other: Path) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False
