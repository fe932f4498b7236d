"""One file outside of any dataset: the same model, checks, sidecar and messages as in a dataset."""

from __future__ import annotations

import glob
import logging
import os
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bids_harmonize.bids import derivatives
from bids_harmonize.bids.jsonfile import read_object
from bids_harmonize.card import bundled_models
from bids_harmonize.errors import BadData, UsageError
from bids_harmonize.image import open_image
from bids_harmonize.model import Model
from bids_harmonize.options import ImageOptions
from bids_harmonize.plan import NoModel, Plan, model_for
from bids_harmonize.scan import explained, process
from bids_harmonize.terminal import STATUS, TRACE, start_logging

log = logging.getLogger("bids_harmonize")


def run(options: ImageOptions) -> int:
    """Harmonize the file and return the exit code.

    Raises
    ------
    UsageError
        The output would overwrite an input, or a file of another program.
    HarmonizeError
        As `scan.process` and `image.open_image` do.
    """
    start_logging(options.verbosity)
    torch.set_num_threads(options.omp_nthreads or 1)
    log.info("harmonizing %s", options.source, extra=STATUS)
    try:
        plan = _plan(options)
        for path in plan.files:
            derivatives.remove_abandoned(path.parent, glob.escape(path.name))
        done = "harmonized" if process(plan) else "left unharmonized"
    except Exception as error:
        log.log(TRACE, "%s", "".join(traceback.format_exception(error)).rstrip())
        told = explained(options.source, error)
        if told is error:
            raise
        raise told from error
    finally:
        log.info("", extra=STATUS)
    log.info("%s is %s, into %s", options.source, done, options.output)
    return 0


def _plan(options: ImageOptions) -> Plan[Model]:
    # Before anything else is said of it: whether it is there, and an image.
    open_image(options.source)
    beside = derivatives.sidecar_path(options.source)
    _check_output(options, beside)
    metadata = read_object(beside) if os.path.lexists(beside) else {}
    models = [Model.load(model, options.device) for model in options.models or bundled_models()]
    modality = options.modality or str(models[0].card["Modality"])
    return Plan(
        path=options.source,
        name=str(options.source),
        suffix=modality,
        source=options.source.as_uri(),
        metadata=metadata,
        model=_model(options, modality, metadata, models),
        input_sha256=derivatives.file_sha256(options.source),
        output=options.output,
        unharmonized=options.output,
        options=options,
    )


def _model(options: ImageOptions, modality: str, metadata: Mapping[str, Any], models: list[Model]) -> Model:
    try:
        return model_for(modality, metadata, models)
    except NoModel as reason:
        if not options.models:
            raise BadData(f"{options.source}: {reason}") from reason
        raise BadData(
            f"{options.source} is {reason.what}, and the model {models[0].name} is not meant for that; "
            "give another --model, or correct --modality"
        ) from reason


def _check_output(options: ImageOptions, beside: Path) -> None:
    """Refuse to overwrite what was read and, unless forced, what this program did not write."""
    output = options.output
    sidecar = derivatives.sidecar_path(output)
    written = (output, sidecar, derivatives.transform_path(output))
    weights = [Path(model) for model in options.models]
    read = (options.source, beside, *weights, *(path.with_suffix(".json") for path in weights))
    for path in written:
        for source in read:
            if _same(path, source):
                raise UsageError(f"{path} is an input, and would be overwritten; name another output")
    if options.force or _is_own(sidecar):
        return
    for path in written:
        if os.path.lexists(path):
            raise UsageError(
                f"{path} is there, and was not written by this program; name another output, or give --force"
            )


def _is_own(sidecar: Path) -> bool:
    try:
        return "BidsHarmonize" in read_object(sidecar)
    except BadData:
        return False


def _same(path: Path, other: Path) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False
