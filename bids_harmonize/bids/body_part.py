"""The body parts that sidecars state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bids_harmonize.imaging.body_part import HEAD_TERMS, body_part_term

# The key of BIDS comes first: it is what a curator corrects, while dcm2niix copies the other from the header,
# where many a scanner is left on its default.
BODY_PART_KEYS = ("BodyPart", "BodyPartExamined")

_NOT_STATED = frozenset({"", "NA", "NAN", "NONE", "NULL", "UNKNOWN"})


def body_part_of(metadata: Mapping[str, Any]) -> str | None:
    """The body part that a sidecar states, as DICOM's term; None where it states none.

    ``BodyPart`` is believed before ``BodyPartExamined``.
    """
    return next(iter(_stated(metadata).values()), None)


def body_part_field(metadata: Mapping[str, Any]) -> str | None:
    """The body part in the words of a sidecar, under whichever key it is; None where it states none."""
    return next((metadata[key] for key in _stated(metadata)), None)


def body_parts_disagree(metadata: Mapping[str, Any]) -> str | None:
    """A sentence that says so where both keys are there and name different parts, else None."""
    stated = _stated(metadata)
    if len(set(stated.values())) < 2 or all(part in HEAD_TERMS for part in stated.values()):
        return None
    (first, believed), (second, other) = stated.items()
    return (
        f"its sidecar says {first} {believed}, but {second} {other}; {first} was believed, "
        "correct it if it is wrong"
    )


def _stated(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The keys that state a body part, in the order in which they are believed, with its terms."""
    terms = {
        key: body_part_term(metadata[key]) for key in BODY_PART_KEYS if isinstance(metadata.get(key), str)
    }
    return {key: term for key, term in terms.items() if term not in _NOT_STATED}
