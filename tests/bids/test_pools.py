"""Which scans share an edit: those of one scanner and protocol, of a site, a participant, or a column."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from bids_harmonize.bids.pools import Acquired, form_pools
from bids_harmonize.errors import BadData, UsageError

TRIO = {
    "Manufacturer": "Siemens",
    "ManufacturersModelName": "TrioTim",
    "MagneticFieldStrength": 3,
    "RepetitionTime": 2.53,
    "EchoTime": 0.00166,
    "InversionTime": 0.9,
    "FlipAngle": 9,
}
ISOTROPIC = (1.0, 1.0, 1.0)


def scan(participant: str, metadata: dict, zooms=ISOTROPIC, session: str = "") -> Acquired:
    folder = f"sub-{participant}/" + (f"ses-{session}/" if session else "")
    name = f"sub-{participant}_" + (f"ses-{session}_" if session else "")
    return Acquired(path=PurePosixPath(f"{folder}anat/{name}T1w.nii.gz"), metadata=metadata, zooms=zooms)


def pools(rule: str, *scans: Acquired, dataset: Path = Path("/nowhere")) -> tuple[str | None, ...]:
    return form_pools(rule, scans, dataset).labels


@pytest.mark.parametrize(
    "like",
    [
        {},
        {"RepetitionTime": 2.5301},
        {"EchoTime": 0.00169},
        {"Manufacturer": "SIEMENS"},
        {"MagneticFieldStrength": 2.89362},
        {"FlipAngle": 9.0},
        {"AcquisitionDateTime": "2020-02-02"},
    ],
)
def test_what_differs_within_a_protocol(like: dict) -> None:
    one, other = pools("protocol", scan("01", TRIO), scan("02", TRIO | like))
    assert one is not None
    assert one == other


@pytest.mark.parametrize(
    "unlike",
    [
        {"RepetitionTime": 2.3},
        {"EchoTime": 0.003},
        {"InversionTime": 1.1},
        {"FlipAngle": 7},
        {"ManufacturersModelName": "Prisma"},
        {"MagneticFieldStrength": 1.5},
        {"ScanningSequence": ["GR", "IR"]},
        {"DeviceSerialNumber": "17"},
        {"EchoTime": None},
    ],
)
def test_what_tells_protocols_apart(unlike: dict) -> None:
    one, other = pools("protocol", scan("01", TRIO), scan("02", TRIO | unlike))
    assert one != other


def test_voxels_tell_protocols_apart_in_whatever_order_of_axes() -> None:
    labels = pools(
        "protocol",
        scan("01", TRIO, (1, 1, 1.2)),
        scan("02", TRIO, (1.2, 1.001, 1)),
        scan("03", TRIO, (1, 1, 3)),
    )
    assert labels[0] == labels[1] != labels[2]


def test_nothing_stated_is_no_pool_and_told() -> None:
    found = form_pools("protocol", [scan("01", {}), scan("02", TRIO)], Path("/nowhere"))
    assert found.labels[0] is None
    assert found.labels[1] is not None
    (remark,) = found.remarks
    assert "sub-01_T1w.nii.gz" in remark


def test_sessions_of_a_participant_by_protocol() -> None:
    labels = pools(
        "session",
        scan("01", TRIO, session="a"),
        scan("01", TRIO, session="b"),
        scan("01", TRIO | {"EchoTime": 0.004}, session="c"),
        scan("02", TRIO, session="a"),
    )
    assert labels[0] == labels[1]
    assert len(set(labels)) == 3


def test_sites_as_the_group_level_finds_them(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").write_text("participant_id\tsite\nsub-01\tA\nsub-02\tB\n")
    assert pools("site", scan("01", TRIO), scan("02", TRIO), dataset=tmp_path) == ("A", "B")


def test_a_column_of_participants(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").write_text("participant_id\tcoil\nsub-01\thead\nsub-02\tn/a\n")
    found = form_pools("coil", [scan("01", {}), scan("02", {})], tmp_path)
    assert found.labels == ("head", None)
    assert found.rule == "the column “coil” of participants.tsv"
    assert "sub-02_T1w.nii.gz" in found.remarks[0]


def test_a_column_of_scans(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-01\t20\n")
    for session, coil in (("a", "old"), ("b", "new")):
        folder = tmp_path / f"sub-01/ses-{session}"
        folder.mkdir(parents=True)
        (folder / f"sub-01_ses-{session}_scans.tsv").write_text(
            f"filename\tcoil\nanat/sub-01_ses-{session}_T1w.nii.gz\t{coil}\n"
        )
    labels = pools("coil", scan("01", {}, session="a"), scan("01", {}, session="b"), dataset=tmp_path)
    assert labels == ("old", "new")


def test_a_column_that_is_nowhere_names_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").write_text("participant_id\tage\nsub-01\t20\n")
    with pytest.raises(UsageError, match="participant_id, age"):
        form_pools("ward", [scan("01", {})], tmp_path)
    with pytest.raises(UsageError, match="there are no such tables"):
        form_pools("ward", [scan("01", {})], tmp_path / "empty")


def test_a_malformed_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").write_text("name\tcoil\nsub-01\tA\n")
    with pytest.raises(BadData, match=r"participants\.tsv"):
        form_pools("coil", [scan("01", {})], tmp_path)
