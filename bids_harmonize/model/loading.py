"""Loading of networks onto devices."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from bids_harmonize.errors import BadData, UsageError, is_out_of_memory
from bids_harmonize.files.schema import is_positive, list_of
from bids_harmonize.model.bilateral_grid import KNOTS
from bids_harmonize.model.card import ModelCard
from bids_harmonize.model.contrast_detector import TISSUE_ORDER, ContrastDetector
from bids_harmonize.model.network import CurveNetwork
from bids_harmonize.model.ood_detector import OODDetector

log = logging.getLogger("bids_harmonize")

# No network errs by more than this: with it, hardly any edit would be left.
MAX_EDIT_ERROR = 10.0


def torch_device(name: str) -> torch.device:
    """The device of a name; ``auto`` is CUDA where there is one, else the CPU.

    Raises
    ------
    UsageError
        There is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"there is no device {name!r}; use --device cpu, cuda or auto") from error
    known = device.type == "cpu" or (
        device.type == "cuda" and (device.index or 0) < torch.cuda.device_count()
    )
    if not known:
        raise UsageError(f"there is no device {name} here; use --device cpu or auto")
    # Convolutions in TF32, and their autotuning, would change voxels from GPU to GPU and from run to run.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return device


def check_features(path: Path, card: ModelCard) -> None:
    """Refuse a card that describes other features than the network has."""
    known = card.input_distribution
    if {len(known.mean), len(known.standard_deviation)} != {2 * KNOTS}:
        raise BadData(
            f"{path.with_suffix('.json')}: InputDistribution must hold {2 * KNOTS} numbers of each kind"
        )


def load_network(path: Path) -> CurveNetwork:
    """Build the network of a weight file, on the CPU.

    Raises
    ------
    BadData
        The file holds no weights of such a network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            config = json.loads((file.metadata() or {})["config"])
        weights = load_file(path)
        if not all(torch.isfinite(tensor).all() for tensor in weights.values()):
            raise ValueError("weights that are not finite")
        network = _network(config, weights)
        network.load_state_dict(weights)
    except (SafetensorError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        raise BadData(
            f"{path} holds no weights of this network; restore it, or train the model again"
        ) from error
    return network


def to_device_or_cpu(network: CurveNetwork, device: torch.device) -> tuple[CurveNetwork, torch.device]:
    """The network on the device, or on the CPU where that has no memory left."""
    try:
        return network.to(device), device
    except RuntimeError as error:
        if device.type == "cpu" or not is_out_of_memory(error):
            raise
    log.warning("the device %s has no memory left; the CPU is used instead", device)
    return network.to("cpu"), torch.device("cpu")


def _network(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> CurveNetwork:
    """The network of a file; a `ValueError`, before it takes any memory, if the weights do not fit in."""
    widths, context = config["widths"], config["context"]
    # Version 0.1.0 did not write these.
    whole_volume, edit_error = bool(config.get("whole_volume", True)), float(config.get("edit_error", 0))
    if not 0 <= edit_error <= MAX_EDIT_ERROR:
        raise ValueError(f"an edit error of {edit_error}")
    # Every level has weights of its own.
    if not list_of(is_positive)(widths) or not 0 < len(widths) <= len(weights):
        raise ValueError(f"widths {widths}")
    with torch.device("meta"):
        wanted = CurveNetwork(widths=tuple(widths), context=context).state_dict()
    if {name: tensor.shape for name, tensor in wanted.items()} != {
        name: tensor.shape for name, tensor in weights.items()
    }:
        raise ValueError("weights of other shapes")
    return CurveNetwork(
        widths=tuple(widths), context=context, whole_volume=whole_volume, edit_error=edit_error
    )


def load_ood_detector(card: ModelCard, path: Path) -> OODDetector | ContrastDetector | None:
    """The detector that a card holds; None if the card has none, as cards of older models."""
    if card.ood_detector is None:
        return None
    try:
        detector = ContrastDetector if TISSUE_ORDER in card.ood_detector else OODDetector
        return detector.of_card(card.ood_detector)
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise BadData(
            f"the model card of {path} holds a damaged out-of-distribution detector "
            "(Recognizer); restore the card"
        ) from error
