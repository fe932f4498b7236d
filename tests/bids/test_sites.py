"""Where scans come from: participants.tsv, else the sidecars, else nowhere in particular."""

from __future__ import annotations

from pathlib import Path

import pytest

from bids_harmonize.bids.sites import EVERYWHERE, assign_sites
from bids_harmonize.errors import BadData, UsageError

PEOPLE = ["sub-01", "sub-01", "sub-02", "sub-03"]
TRIO = {
    "Manufacturer": "Siemens",
    "ManufacturersModelName": "TrioTim",
    "MagneticFieldStrength": 3,
    "RepetitionTime": 2.53,
    "EchoTime": 0.00166,
}
SIDECARS = [
    TRIO,
    TRIO | {"RepetitionTime": 2.5301},
    TRIO | {"Manufacturer": "SIEMENS"},
    TRIO | {"EchoTime": 0.003},
]
NOTHING = [{}] * 4


@pytest.fixture
def table(tmp_path: Path):
    def write(*lines: str, encoding: str = "utf-8") -> Path:
        (tmp_path / "participants.tsv").write_text("".join(f"{line}\n" for line in lines), encoding=encoding)
        return tmp_path

    return write


@pytest.mark.parametrize("name", ["site", "Site", "SITE_ID", "scanner", "centre"])
def test_the_usual_columns_are_found(table, name: str) -> None:
    folder = table(f"participant_id\tage\t{name}", "sub-01\t20\tA", "sub-02\t30\tB", "sub-03\t40\tA")
    found = assign_sites(PEOPLE, SIDECARS, folder)
    assert found.labels == ("A", "A", "B", "A")
    assert (found.rule, found.remarks) == (f"the column “{name}” of participants.tsv", ())


def test_site_comes_before_scanner_and_a_named_column_before_both(table) -> None:
    folder = table(
        "participant_id\tscanner\tsite\thospital", "sub-01\ts\tA\th", "sub-02\ts\tB\th", "sub-03\ts\tC\ti"
    )
    assert assign_sites(PEOPLE, NOTHING, folder).labels == ("A", "A", "B", "C")
    assert assign_sites(PEOPLE, NOTHING, folder, "hospital").labels == ("h", "h", "h", "i")


def test_people_without_a_site_are_named_and_of_none(table) -> None:
    folder = table("participant_id\tsite", "sub-01\tA", "sub-02\tn/a")
    found = assign_sites(PEOPLE, SIDECARS, folder)
    assert found.labels == ("A", "A", None, None)
    assert "names no site for 2 of the participants (sub-02, sub-03)" in found.remarks[0]


def test_what_spreadsheets_and_people_do_to_a_table_is_forgiven(table) -> None:
    folder = table(
        "participant_id\tsite", "", "01\t A", "sub-02\tB", "sub-02\tB", "03\tC", encoding="utf-8-sig"
    )
    assert assign_sites(PEOPLE, NOTHING, folder).labels == ("A", "A", "B", "C")


WRONG = {
    "no id": (["name\tsite", "sub-01\tA"], "participant_id"),
    "twice a column": (["participant_id\tsite\tsite", "sub-01\tA\tB"], "unique column names"),
    "ragged": (["participant_id\tsite", "sub-01\tA\tB"], "3 instead of 2 columns in line 2"),
    "spaces": (["participant_id site", "sub-01 A"], "participant_id"),
    "two sites": (["participant_id\tsite", "sub-01\tA", "sub-01\tB"], "different lines for sub-01"),
    "nobody": (["participant_id\tsite"], "lists no participant"),
    "empty": ([], "participant_id"),
    "no site": (["participant_id\tsite", "sub-01\tn/a"], "names no site for any"),
    "others": (["participant_id\tsite", "sub-77\tA"], "names no site for any"),
}


@pytest.mark.parametrize(("lines", "said"), WRONG.values(), ids=WRONG)
def test_a_malformed_table_is_told_and_the_sidecars_are_asked(table, lines: list[str], said: str) -> None:
    found = assign_sites(PEOPLE, SIDECARS, table(*lines))
    assert len(found.remarks) == 1 and said in found.remarks[0]
    assert "sidecars" in found.rule


@pytest.mark.parametrize(("lines", "said"), WRONG.values(), ids=WRONG)
def test_a_malformed_table_is_an_error_where_its_column_is_asked_for(
    table, lines: list[str], said: str
) -> None:
    with pytest.raises((BadData, UsageError), match=said):
        assign_sites(PEOPLE, SIDECARS, table(*lines), "site")


def test_latin_1_is_told(table) -> None:
    folder = table("participant_id\tsite", "sub-01\tKöln", encoding="latin-1")
    assert "not UTF-8" in assign_sites(PEOPLE, NOTHING, folder).remarks[0]


def test_a_link_that_was_not_fetched_is_told(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").symlink_to(tmp_path / "annex")
    assert "cannot be read" in assign_sites(PEOPLE, NOTHING, tmp_path).remarks[0]


def test_a_column_that_is_not_there_is_an_error_with_those_that_are(table, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"participants\.tsv does not exist"):
        assign_sites(PEOPLE, SIDECARS, tmp_path, "hospital")
    with pytest.raises(UsageError, match="no column 'hospital', but participant_id, site"):
        assign_sites(PEOPLE, SIDECARS, table("participant_id\tsite", "sub-01\tA"), "hospital")


def test_scanner_and_protocol_without_a_table(tmp_path: Path) -> None:
    found = assign_sites(PEOPLE, SIDECARS, tmp_path)
    trio = "Siemens, TrioTim, 3 T, TR 2.53 s, TE 1.66 ms"
    # Neither rounding nor capitals make another site.
    assert found.labels == (trio, trio, trio, "Siemens, TrioTim, 3 T, TR 2.53 s, TE 3 ms")
    assert found.remarks == ()


def test_an_institution_is_a_site(tmp_path: Path) -> None:
    sidecars = [TRIO | {"InstitutionName": name} for name in ("North", "North", "South", " n/a ")]
    labels = assign_sites(PEOPLE, sidecars, tmp_path).labels
    assert len(set(labels)) == 3 and labels[0] == labels[1]


def test_a_table_without_such_a_column_says_nothing(table) -> None:
    found = assign_sites(PEOPLE, SIDECARS, table("participant_id\tage", "sub-01\t20"))
    assert (found.remarks, len(set(found.labels))) == ((), 2)


def test_scans_of_which_nothing_is_known(tmp_path: Path) -> None:
    found = assign_sites(PEOPLE, [TRIO, {}, {"Manufacturer": 3}, TRIO], tmp_path)
    assert found.labels[1:3] == (None, None)
    assert "2 scans say nothing" in found.remarks[0]
    nothing = assign_sites(PEOPLE, NOTHING, tmp_path)
    assert set(nothing.labels) == {EVERYWHERE} and nothing.rule.startswith("nothing")
