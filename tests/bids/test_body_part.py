from __future__ import annotations

import pytest

from bids_harmonize.bids.body_part import BODY_PART_KEYS, body_part_field, body_part_of, body_parts_disagree


@pytest.mark.parametrize("key", BODY_PART_KEYS)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("HEAD", "HEAD"),
        (" knee ", "KNEE"),
        ("Head_Neck", "HEADNECK"),
        ("HEAD-NECK", "HEADNECK"),
        ("head & neck", "HEADNECK"),
        ("Head and Neck", "HEADNECK"),
        ("", None),
        (" ", None),
        ("n/a", None),
        ("Unknown", None),
        (None, None),
        (3, None),
        (["HEAD"], None),
    ],
)
def test_the_body_part_of_a_sidecar(key: str, value: object, expected: str | None) -> None:
    assert body_part_of({key: value}) == expected


def test_a_sidecar_without_body_part() -> None:
    assert body_part_of({}) is body_part_field({}) is None


@pytest.mark.parametrize("nothing", ["", " ", "unknown", None, 3])
def test_the_other_key_counts_where_one_states_nothing(nothing: object) -> None:
    for key, other in (BODY_PART_KEYS, BODY_PART_KEYS[::-1]):
        metadata = {key: nothing, other: "Prostate"}
        assert (body_part_of(metadata), body_part_field(metadata)) == ("PROSTATE", "Prostate")
        assert body_parts_disagree(metadata) is None


def test_the_key_of_bids_is_believed_and_disagreement_is_told() -> None:
    metadata = {"BodyPartExamined": "Prostate", "BodyPart": "head"}
    assert body_part_of(metadata) == "HEAD"
    told = body_parts_disagree(metadata)
    assert told is not None and "BodyPart HEAD, but BodyPartExamined PROSTATE" in told


@pytest.mark.parametrize("parts", [("HEAD", "Brain"), ("Skull", "head neck"), ("PROSTATE", "prostate")])
def test_two_words_for_one_thing_do_not_disagree(parts: tuple[str, str]) -> None:
    assert body_parts_disagree(dict(zip(BODY_PART_KEYS, parts, strict=True))) is None
