"""Checkpoints of a training, from which it resumes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bids_harmonize.files.atomic import remove_stale_temp_files, write_atomically
from bids_harmonize.model.card_entries import CheckpointRecord
from bids_harmonize.model.network import EDIT_ERROR, CurveNetwork
from bids_harmonize.training.schedule import Schedule
from bids_harmonize.training.sources import ReferenceExample, SimulatedHead, Source

CHECKPOINT = "checkpoint.pt"
PROGRESS = ("step", "seconds", "best")


@dataclass
class TrainingState:
    """Everything that a checkpoint holds."""

    network: CurveNetwork
    averaged: CurveNetwork
    optimizer: torch.optim.Optimizer
    step: int
    seconds: float
    history: list[CheckpointRecord]
    # Averaged weights of the checkpoint at which agreement on held-out scans was best.
    best: dict[str, Tensor]


def fingerprint(sources: Sequence[Source]) -> str:
    """Checksum of the sources: a checkpoint of another group must not be resumed."""
    digest = hashlib.sha256()
    for source in sources:
        content = source.head.fractions if isinstance(source, SimulatedHead) else source.inside
        digest.update(content.tobytes())
        if isinstance(source, ReferenceExample):
            digest.update(source.volume.tobytes())
    return digest.hexdigest()


def _fresh(schedule: Schedule, start: CurveNetwork | None, device: torch.device | str) -> TrainingState:
    torch.manual_seed(schedule.seed)
    now = {"whole_volume": False, "edit_error": EDIT_ERROR}
    config = schedule.effort.network if start is None else start.config | now
    network, averaged = (CurveNetwork(**config).to(device) for _ in range(2))
    # The averaged network is the one that is used, with its edits restrained.
    averaged.eval()
    if start is not None:
        network.load_state_dict(start.state_dict())
    averaged.load_state_dict(network.state_dict())
    optimizer = torch.optim.AdamW(network.parameters(), lr=schedule.learning_rate, weight_decay=1e-4)
    return TrainingState(network, averaged, optimizer, 0, 0.0, [], {})


def resume_training(
    folder: Path,
    schedule: Schedule,
    key: dict[str, Any],
    start: CurveNetwork | None,
    device: torch.device | str,
) -> TrainingState:
    """The state in the folder's checkpoint if its key is this one, else that before the first step."""
    state = _fresh(schedule, start, device)
    path = folder / CHECKPOINT
    if not path.exists():
        return state
    saved = torch.load(path, weights_only=True, map_location=device)
    if saved.get("key") != key:
        return state
    for name in ("network", "averaged", "optimizer"):
        getattr(state, name).load_state_dict(saved[name])
    for name in PROGRESS:
        setattr(state, name, saved[name])
    state.history = [CheckpointRecord.from_json(entry, path) for entry in saved["history"]]
    return state


def save_checkpoint(folder: Path, key: dict[str, Any], state: TrainingState) -> None:
    """Write the state, with the key of what is trained.

    Raises
    ------
    CannotCreate, InputOutputError
        As `write_atomically` does.
    """
    content = {name: getattr(state, name).state_dict() for name in ("network", "averaged", "optimizer")}
    content |= {name: getattr(state, name) for name in PROGRESS}
    content |= {"history": [record.to_json() for record in state.history], "key": key}
    # A training that was killed while it wrote one left megabytes behind.
    remove_stale_temp_files(folder, CHECKPOINT)
    with write_atomically(folder / CHECKPOINT) as temporary:
        torch.save(content, temporary)
