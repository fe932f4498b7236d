"""What is done with a scan: which model, which files, and whether that was done before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from bids_harmonize.bids import derivatives
from bids_harmonize.bids.selection import Run
from bids_harmonize.bids.sidecars import read_metadata
from bids_harmonize.card import Carded
from bids_harmonize.errors import BadData
from bids_harmonize.options import Options, ScanOptions

Known = TypeVar("Known", bound=Carded)


class NoModel(BadData):
    """No model serves a scan; `what` says what kind of scan it is."""

    def __init__(self, what: str) -> None:
        super().__init__(f"there is no model for {what}; give one with --model")
        self.what = what


class PassedOver(Exception):
    """There is no model for a run; not a failure."""


@dataclass(frozen=True, kw_only=True)
class Plan(Generic[Known]):
    """A scan, what its sidecars say, the model for it, and where the result goes.

    Attributes
    ----------
    name
        What messages call the scan.
    suffix, source
        The scan's BIDS suffix, and its URI.
    model
        A loaded one if the plan is to be carried out, else what its card tells.
    output, unharmonized
        The image if it is harmonized, and if it is passed through.
    """

    path: Path
    name: str
    suffix: str
    source: str
    metadata: Mapping[str, Any]
    model: Known
    input_sha256: str
    output: Path
    unharmonized: Path
    options: ScanOptions

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of a harmonized scan."""
        transform = [derivatives.transform_path(self.output)] if self.options.save_transform else []
        return (self.output, *transform, derivatives.sidecar_path(self.output))

    @property
    def complete(self) -> bool:
        """Whether the result is there already, from the same input, model and options."""
        if self._done(self.unharmonized, familiar=False):
            return True
        there = all(path.is_file() for path in self.files)
        return there and any(self._done(self.output, familiar=familiar) for familiar in (True, False))

    def relevant_options(self, *, familiar: bool) -> dict[str, Any]:
        """The options that decide what is written: of a scan that the model is meant for, or another."""
        options = self.options
        relevant: dict[str, Any] = {"SaveTransform": options.save_transform, "Seed": options.seed}
        return relevant if familiar else relevant | {"OutOfDistribution": options.out_of_distribution}

    def options_sha256(self, *, familiar: bool) -> str:
        """Hash of the options that matter."""
        return derivatives.options_hash(self.relevant_options(familiar=familiar))

    def clear(self) -> None:
        """Remove what an earlier run left, sidecars first; a run that is stopped then is done again."""
        derivatives.remove_output(self.output)
        derivatives.remove_output(self.unharmonized)

    def _done(self, output: Path, *, familiar: bool) -> bool:
        return derivatives.completed(
            output,
            input_sha256=self.input_sha256,
            model_sha256=self.model.sha256,
            options_hash=self.options_sha256(familiar=familiar),
        )


def plan_run(
    options: Options, run: Run, models: Sequence[Known], conflicting: Mapping[Path, str]
) -> Plan[Known]:
    """Decide what to do with a run of a dataset.

    Parameters
    ----------
    conflicting
        What is wrong with runs whose results would overwrite each other's.

    Raises
    ------
    PassedOver
        There is no model for it.
    HarmonizeError
        It cannot be read, or nothing be written for it.
    """
    if run.path in conflicting:
        raise BadData(conflicting[run.path])
    output = derivatives.output_path(options.output_dir, run)
    derivatives.check_inside(output.parent, options.output_dir)
    metadata = read_metadata(run)
    try:
        model = model_for(run.modality, metadata, models)
    except NoModel as reason:
        raise PassedOver(f"{run.relative} is passed over: {reason}") from reason
    return Plan(
        path=run.path,
        name=str(run.relative),
        suffix=run.suffix,
        source=derivatives.source_uri(run),
        metadata=metadata,
        model=model,
        input_sha256=derivatives.file_sha256(run.path),
        output=output,
        unharmonized=derivatives.unharmonized_path(options.output_dir, run),
        options=options,
    )


def model_for(modality: str, metadata: Mapping[str, Any], models: Sequence[Known]) -> Known:
    """The first model that serves a modality and the body part that a sidecar states.

    Raises
    ------
    NoModel
        There is none.
    """
    part = metadata.get("BodyPart")
    part = part.strip() if isinstance(part, str) and part.strip() else None
    for model in models:
        if model.serves(modality, part):
            return model
    raise NoModel(f"{modality} of {part}" if part else modality)
