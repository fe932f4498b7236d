"""Body parts, by DICOM's terms, and which of them show a brain."""

from __future__ import annotations

import re
from collections.abc import Iterable

# DICOM's terms for body parts that show a brain; a model of the head is meant for all of them.
HEAD_TERMS = ("HEAD", "BRAIN", "SKULL", "HEADNECK")

_SYNONYMS = {"HEADANDNECK": "HEADNECK"}


def body_part_term(text: str) -> str:
    """A body part as DICOM spells its terms: capitals without spaces, hyphens or underscores."""
    term = re.sub(r"[\W_]", "", text).upper()
    return _SYNONYMS.get(term, term)


def shows_brain(body_parts: Iterable[str]) -> bool:
    """Whether one of the body parts is a term for the head."""
    return any(body_part_term(part) in HEAD_TERMS for part in body_parts)
