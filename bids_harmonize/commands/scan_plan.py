"""What is done with a scan: which model, which files, and whether it was done before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from bids_harmonize.bids.body_part import body_part_of
from bids_harmonize.bids.derivatives import source_uri
from bids_harmonize.bids.input_metadata import read_metadata
from bids_harmonize.bids.output_paths import (
    check_inside,
    output_path,
    sidecar_path,
    transform_path,
    unharmonized_path,
)
from bids_harmonize.bids.run import Run
from bids_harmonize.bids.spatial_reference import with_own_spatial_reference
from bids_harmonize.errors import BadData
from bids_harmonize.files.checksum import file_sha256
from bids_harmonize.imaging.body_part import body_part_term
from bids_harmonize.model.card import WEIGHTS, ModelInfo, bundled_models, read_card
from bids_harmonize.options import Options, ScanOptions
from bids_harmonize.results.pool import PoolOfScan
from bids_harmonize.results.provenance import ProvenanceOptions
from bids_harmonize.results.resume import is_up_to_date, remove_output

ModelT = TypeVar("ModelT", bound=ModelInfo)


class NoMatchingModel(BadData):
    """No model serves a kind of scan.

    Attributes
    ----------
    what
        The kind, in words.
    """

    def __init__(self, modality: str, body_part: str | None, models: Sequence[ModelInfo]) -> None:
        self.what = f"{modality} of {body_part}" if body_part else modality
        tried = dict.fromkeys(
            f"{model.name} is for {', '.join(model.card.body_parts)}"
            for model in models
            if model.card.modality == modality
        )
        others = f" ({'; '.join(tried)})" if tried else ""
        # No option overrules a sidecar.
        correct = ", or correct BodyPart in the sidecar" if body_part else ""
        super().__init__(f"no model for {self.what}{others}; give one with --model{correct}")


class RunSkipped(Exception):
    """There is no model for a run, which is no failure."""


@dataclass(frozen=True, kw_only=True)
class ScanPlan(Generic[ModelT]):
    """A scan, its metadata, the model for it, and where the result goes.

    Attributes
    ----------
    name
        The scan as messages name it.
    suffix, source
        The scan's BIDS suffix, and its URI.
    model
        The model, with its weights if the plan is to be carried out; otherwise its card is enough.
    output, unharmonized
        The image if it is harmonized, and if it is passed through.
    pool
        The pool that the scan shares its edit with, or None.
    """

    path: Path
    name: str
    suffix: str
    source: str
    metadata: Mapping[str, Any]
    model: ModelT
    input_sha256: str
    output: Path
    unharmonized: Path
    options: ScanOptions
    pool: PoolOfScan | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of a harmonized scan."""
        transform = [transform_path(self.output)] if self.options.save_transform else []
        return (self.output, *transform, sidecar_path(self.output))

    @property
    def complete(self) -> bool:
        """Whether the result exists already, made from the same input, model and options."""
        if self._is_done(self.unharmonized, in_distribution=False):
            return True
        return all(path.is_file() for path in self.files) and any(
            self._is_done(self.output, in_distribution=known) for known in (True, False)
        )

    def relevant_options(self, *, in_distribution: bool) -> ProvenanceOptions:
        """The options that decide what is written, fewer if the model is meant for the scan."""
        return ProvenanceOptions(
            save_transform=self.options.save_transform,
            seed=self.options.seed,
            out_of_distribution=None if in_distribution else self.options.out_of_distribution,
            pool=None if self.pool is None else self.pool.sha256,
        )

    def clear(self) -> None:
        """Remove what an earlier run left, sidecars first; a run that is stopped then is done again."""
        remove_output(self.output)
        remove_output(self.unharmonized)

    def _is_done(self, output: Path, *, in_distribution: bool) -> bool:
        return is_up_to_date(
            output,
            input_sha256=self.input_sha256,
            model_sha256=self.model.sha256,
            options_sha256=self.relevant_options(in_distribution=in_distribution).sha256,
        )


def plan_run(
    options: Options,
    run: Run,
    models: Sequence[ModelT],
    conflicting: Mapping[Path, str],
    pool: PoolOfScan | None = None,
) -> ScanPlan[ModelT]:
    """Decide what to do with a run of a dataset.

    Parameters
    ----------
    conflicting
        For the path of each run that must not be harmonized, such as one whose result would overwrite
        another's, a sentence that says so.
    pool
        The pool of the run, or None.

    Raises
    ------
    RunSkipped
        There is no model for it.
    HarmonizeError
        It cannot be read, or nothing be written for it.
    """
    if run.path in conflicting:
        raise BadData(conflicting[run.path])
    output = output_path(options.output_dir, run)
    check_inside(output.parent, options.output_dir)
    metadata = read_metadata(run)
    try:
        model = model_for(run.modality, metadata, models)
    except NoMatchingModel as reason:
        raise RunSkipped(f"{run.relative} skipped: {reason}") from reason
    return ScanPlan(
        path=run.path,
        name=str(run.relative),
        suffix=run.suffix,
        source=source_uri(run),
        metadata=with_own_spatial_reference(metadata, run.dataset),
        model=model,
        input_sha256=file_sha256(run.path),
        output=output,
        unharmonized=unharmonized_path(options.output_dir, run),
        options=options,
        pool=pool,
    )


def model_for(modality: str, metadata: Mapping[str, Any], models: Sequence[ModelT]) -> ModelT:
    """The first model that serves a modality and the body part that a sidecar states.

    Raises
    ------
    NoMatchingModel
        There is none.
    """
    part = body_part_of(metadata)
    for model in models:
        if serves(model, modality, part):
            return model
    raise NoMatchingModel(modality, part, models)


def serves(model: ModelInfo, modality: str, body_part: str | None) -> bool:
    """Whether a model is meant for a modality and a body part, however its card spells that.

    Parameters
    ----------
    body_part
        DICOM's term (`body_part_term`); None where it is not known.
    """
    spelled = (part for part in model.card.body_parts if body_part_term(part) == body_part)
    return model.serves(modality, next(spelled, body_part))


def other_models(model: ModelInfo, metadata: Mapping[str, Any]) -> list[str]:
    """Bundled models, by their names for ``--model``, that a scan of this metadata could get instead."""
    weights = [WEIGHTS / f"{name}.safetensors" for name in bundled_models()]
    part = body_part_of(metadata)
    bundled = [ModelInfo(weights=path, card=read_card(path)) for path in weights]
    return [
        other.weights.stem
        for other in bundled
        if other.sha256 != model.sha256 and serves(other, model.card.modality, part)
    ]
