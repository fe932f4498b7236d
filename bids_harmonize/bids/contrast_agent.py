"""Contrast agents: whether a scan was made with one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bids_harmonize.bids.run import label_in_name

# BIDS names the first; the second is DICOM's free text, which some converters copy.
INGREDIENT_KEYS = ("ContrastBolusIngredient", "ContrastBolusAgent")

# What is written, but for letters and digits, where no agent was given.
_NO_AGENT = frozenset(
    {
        "",
        "0",
        "FALSE",
        "NA",
        "NAN",
        "NO",
        "NOCONTRAST",
        "NONCONTRAST",
        "NONE",
        "NOTAPPLICABLE",
        "NULL",
        "WITHOUT",
    }
)


def contrast_agent_stated_by(name: str, metadata: Mapping[str, Any]) -> str | None:
    """What says that a contrast agent was given; None where nothing does.

    Parameters
    ----------
    name
        The scan's file name, where ``ce-`` stands for an agent.
    metadata
        Its metadata.
    """
    if _names_agent(label_in_name(name, "ce")):
        return "ce- in its name"
    return next((f"{key} in its sidecar" for key in INGREDIENT_KEYS if _names_agent(metadata.get(key))), None)


def _names_agent(value: object) -> bool:
    """Whether a value, or one of a list, names an agent; ``UNKNOWN`` is an agent that nobody named."""
    if isinstance(value, list):
        return any(map(_names_agent, value))
    return isinstance(value, str) and re.sub(r"[\W_]", "", value).upper() not in _NO_AGENT
