"""Names, metadata, links and models that somebody else chose, and not with good intentions."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import nibabel as nib
import pytest
import torch

from bids_harmonize.model.bilateral_grid import KNOTS
from bids_harmonize.report.components.page import asset
from tests.helpers.group_results import SITES, intensities, record, write_group, write_sidecar
from tests.helpers.html_page import Page
from tests.helpers.toy_datasets import (
    COMMON,
    FOR_ONE,
    ROOT,
    Result,
    counts,
    expected_files,
    files,
    harmonize,
    harmonize_image,
    head,
    image_of,
    output_of,
    scan_files,
    sha256,
    sidecar_of,
    snapshot,
    write_dataset,
    write_scan,
)

NAME = "sub-01_T1w.nii.gz"


def one_line(result: Result, code: int, *words: str) -> None:
    """It ended with a code and one sentence that has these words, and wrote no traceback."""
    assert (result.code, result.err.count("\n")) == (code, 1), result.err
    assert "Traceback" not in result.err + result.out
    for word in words:
        assert word in result.err


# Names of folders and files

FOLDERS = ("with spaces", "new\nline", "Übung 中文", "-dash", "{braces} {}", "100%20 #1?", "<b>'quotes'\"&")


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_may_be_called_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Counter[str], name: str
) -> None:
    """Any folder may be dataset and output: images, sidecars and pages are there, and find each other."""
    monkeypatch.chdir(tmp_path)
    raw, out = write_dataset(tmp_path / name / "raw"), tmp_path / name / "out"
    write_scan(raw, NAME)
    before = snapshot(raw)
    # On a command line, a name with a leading dash is an option unless it follows `./`.
    start = Path(f"./{name}") if name.startswith("-") else Path(name)
    given = (f"{'./' if name.startswith('-') else ''}{start / folder}" for folder in ("raw", "out"))
    result = harmonize(*given, "participant")
    tally["hostile names"] += 1
    assert result.code == 0, result.err
    assert harmonize(raw, out, "group").code == 0
    alone = harmonize_image(raw / "sub-01/anat" / NAME, tmp_path / name / "alone.nii.gz")
    assert alone.code == 0, alone.err
    assert sha256(tmp_path / name / "alone.nii.gz") == sha256(output_of(out, NAME))
    pictures = Page((out / "sub-01.html").read_text(encoding="utf-8")).all("img")
    assert len(pictures) == 9
    assert all((out / unquote(str(picture["src"]))).is_file() for picture in pictures)
    assert scan_files(out) == expected_files(NAME) | {"group_T1w.tsv", "group_T1w.json"}
    assert set(os.listdir(tmp_path)) == {name}
    assert snapshot(raw) == before


LEGIBLE = ("é中", "a b", "'\"&", "%2e", "{x}", "--x", "<svg onload=hacked()>", "$(x);`x`")
ILLEGIBLE = ("a\nb", "\x1b[31mred", "\N{RIGHT-TO-LEFT OVERRIDE}gnp", "\udcff", "tab\tbed")


def test_labels_may_be_anything_that_can_be_printed(tmp_path: Path, tally: Counter[str]) -> None:
    """Others fail by themselves, told in one line each that a terminal shows as it is, and by the group."""
    raw, out = write_dataset(tmp_path / "raw"), tmp_path / "out"
    for label in (*LEGIBLE, *ILLEGIBLE):
        write_scan(raw, f"sub-{label}_T1w.nii.gz")
    before = snapshot(raw)
    dry = harmonize(raw, out, "participant", "--dry-run")
    assert (dry.code, dry.out.count("would fail")) == (0, len(ILLEGIBLE))
    result = harmonize(raw, out, "participant")
    tally["hostile names"] += len(LEGIBLE) + len(ILLEGIBLE)
    assert result.code == 65
    assert counts(result) == {"harmonized": len(LEGIBLE), "failed": len(ILLEGIBLE)}
    for text in (result.err, result.out, dry.out):
        assert all(line.isprintable() for line in text.split("\n"))
    assert result.err.count("cannot be printed; rename it") == len(ILLEGIBLE)
    assert scan_files(out) == expected_files(*(f"sub-{label}_T1w.nii.gz" for label in LEGIBLE))
    assert {path.stem for path in out.glob("*.html")} == {f"sub-{label}" for label in LEGIBLE}
    assert harmonize(raw, out, "group").code == 0
    page = Page((out / "group_T1w.html").read_text(encoding="utf-8"))
    assert page.text.count("cannot be printed; rename it") == 2 * len(ILLEGIBLE)
    assert snapshot(raw) == before


# Options of pybids in the folder where the program is started


@pytest.mark.parametrize(("content", "code"), [("{", 64), ('{"config_paths": {"bids": "/nowhere"}}', 0)])
def test_options_of_pybids_that_lie_about_are_not_followed(
    one_scan: Path, tmp_path: Path, tally: Counter[str], content: str, code: int
) -> None:
    """A ``pybids_config.json`` in the current folder changes nothing, or is named where it stops pybids."""
    (tmp_path / "pybids_config.json").write_text(content)
    command = [
        sys.executable,
        str(ROOT / "run.py"),
        str(one_scan),
        str(tmp_path / "out"),
        "participant",
        "--dry-run",
    ]
    done = subprocess.run([*command, *COMMON], capture_output=True, text=True, check=False, cwd=tmp_path)
    tally["hostile names"] += 1
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if code:
        assert (done.stderr.count("\n"), "pybids_config.json" in done.stderr) == (1, True)
    else:
        assert "sub-01/anat/sub-01_T1w.nii.gz would be harmonized" in done.stdout


# Pages

ATTACKS = (
    "<script>hacked()</script>",
    "</title></style></script><script>hacked()</script>",
    "<img src=x onerror=hacked()>",
    "\" onmouseover='hacked()' autofocus onfocus='hacked()' x=\"",
    "javascript:hacked()",
    "]]><svg/onload=hacked()>",
)
HOSTILE = " ".join(ATTACKS)
# An attack that fits into a label, which has neither a slash nor an underscore.
LABEL = "<img src=x onerror=hacked()>"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, untrained_model: Path) -> list[Path]:
    """Pages about a participant and about a group, both of hostile names and metadata only."""
    folder = tmp_path_factory.mktemp("pages")
    return [_person(folder, untrained_model), _group(folder / "group")]


def _person(folder: Path, weights: Path) -> Path:
    raw = write_dataset(folder / "raw")
    described = {"Name": HOSTILE, "BIDSVersion": "1.10.0", "Authors": [HOSTILE], "License": HOSTILE}
    (raw / "dataset_description.json").write_text(json.dumps(described))
    texts = ("Manufacturer", "ManufacturersModelName", "InstitutionName", "SequenceName", "BodyPartDetails")
    write_scan(raw, f"sub-{LABEL}_T1w.nii.gz", sidecar=dict.fromkeys(texts, HOSTILE))
    model = folder / "model.safetensors"
    shutil.copy(weights, model)
    told = {
        "Name": HOSTILE,
        "Created": HOSTILE,
        "OutputScale": {"Unit": 1000.0, "Description": HOSTILE},
        "Data": {"Name": HOSTILE, "ReferencesAndLinks": [HOSTILE], "ReferenceGroup": [HOSTILE]},
    }
    card = json.loads(weights.with_suffix(".json").read_text()) | told
    model.with_suffix(".json").write_text(json.dumps(card))
    result = harmonize(raw, folder / "out", "participant", "--model", model)
    assert result.code == 0, result.err
    return folder / "out" / f"sub-{LABEL}.html"


def _group(folder: Path) -> Path:
    raw, out = write_dataset(folder / "raw"), folder / "out"
    (raw / "sub-0000").mkdir()
    shutil.move(write_group(raw, 18, sites=dict(zip(ATTACKS, SITES.values(), strict=False))), out)
    person = next(iter(SITES.values()))
    hostile = record(intensities(person, person, 1), Model=HOSTILE, Warnings=[HOSTILE])
    write_sidecar(out, f"sub-{LABEL}_T1w", hostile, InstitutionName=HOSTILE, Manufacturer=HOSTILE)
    # The table links to the participant's page, if there is one.
    (out / f"sub-{LABEL}.html").write_text("")
    with (raw / "participants.tsv").open("a", encoding="utf-8") as table:
        table.write(f"sub-{LABEL}\t{HOSTILE}\n../../{HOSTILE}\t{HOSTILE}\n")
    (out / "logs").mkdir()
    (out / "logs" / "crash_1.txt").write_text(f"sub-9/anat/sub-9_acq-{LABEL}_T1w.nii.gz\n\n{HOSTILE}\n")
    result = harmonize(raw, out, "group")
    assert result.code == 0, result.err
    return out / "group_T1w.html"


def test_metadata_are_text_on_every_page(pages: list[Path], tally: Counter[str]) -> None:
    """Reports run no scripts from data: what is hostile is there, as text; the only script is the page's."""
    for path, own in zip(pages, (asset("participant.js"), asset("group.js")), strict=True):
        text = path.read_text(encoding="utf-8")
        page = Page(text)
        tally["hostile pages"] += 1
        assert len(page.all("script")) == 1
        assert text.count(own) == 1
        assert page.text.count("hacked()") > 5
        for tag, attributes in page.tags:
            assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
            for name in ("href", "src"):
                address = str(attributes.get(name) or "")
                if address.startswith(("data:image/png;base64,", "#")):
                    continue
                assert ":" not in address, (tag, address)
                target = (path.parent / unquote(address)).resolve()
                assert target.is_relative_to(path.parent.resolve()), (tag, address)
        assert not {tag for tag, _ in page.tags} & {"iframe", "object", "embed", "base", "form", "link"}


def test_nothing_hostile_runs_in_a_browser(
    pages: list[Path], chromium: Any, tally: Counter[str], tmp_path: Path
) -> None:
    """Reports run no scripts from data, not even those of figures that somebody changed, and ask nobody."""
    figures = pages[0].parent / f"sub-{LABEL}" / "figures"
    changed = tmp_path / "out"
    shutil.copytree(pages[0].parent, changed)
    for drawing in (changed / figures.relative_to(pages[0].parent)).glob("*.svg"):
        attack = (
            "<script>hacked()</script><g onclick='hacked()'><image href='x' onerror='hacked()'/></g></svg>"
        )
        drawing.write_text(drawing.read_text().replace("</svg>", attack))
    raw = pages[0].parents[1] / "raw"
    again = harmonize(raw, changed, "participant", "--reports-only")
    assert again.code == 0, again.err
    assert "onerror='hacked()'" in (changed / pages[0].name).read_text()
    for path in (*pages, changed / pages[0].name):
        ran, asked, failed = [], [], []
        context = chromium.new_context()
        tab = context.new_page()
        tab.expose_function("hacked", lambda ran=ran: ran.append(True))
        tab.on("dialog", lambda dialog, ran=ran: ran.append(dialog.message))
        tab.on("request", lambda request, asked=asked: asked.append(request.url))
        tab.on("pageerror", lambda error, failed=failed: failed.append(str(error)))
        tab.goto(path.as_uri())
        tab.evaluate("for (const box of document.querySelectorAll('details')) box.open = true")
        for drawing in tab.query_selector_all("svg, td")[:20]:
            drawing.dispatch_event("click")
            drawing.dispatch_event("mouseover")
        tab.wait_for_timeout(200)
        tally["hostile pages"] += 1
        assert (ran, failed) == ([], [])
        assert {url.split(":")[0] for url in asked} <= {"file", "data"}
        # The page's own script did run.
        assert tab.evaluate("!document.querySelector('.controls, #controls').hidden")
        context.close()


# Paths that lead elsewhere


def test_labels_of_filters_and_tables_lead_nowhere(
    one_scan: Path, tmp_path: Path, tally: Counter[str]
) -> None:
    """``../`` in a filter, a label or participants.tsv is a label that nobody has, and no path."""
    before = snapshot(one_scan)
    filters = tmp_path / "filters.json"
    for entity in ("subject", "session", "acquisition", "datatype", "extension", "suffix"):
        filters.write_text(json.dumps({"t1w": {entity: "../../../etc/passwd"}}))
        one_line(harmonize(one_scan, tmp_path / "out", "participant", "--bids-filter-file", filters), 18)
        tally["paths that lead elsewhere"] += 1
    for option in ("--participant-label", "--session-label", "--exclude-participant-label"):
        one_line(
            harmonize(one_scan, tmp_path / "out", "participant", option, "../../x"), 64, "is not a label"
        )
        tally["paths that lead elsewhere"] += 1
    assert not (tmp_path / "out").exists()
    rows = ("participant_id\tsite", "sub-01\t../../x", "../../x\tA", "sub-../../x\tB", "/etc/passwd\tC")
    (one_scan / "participants.tsv").write_text("\n".join(rows) + "\n")
    assert harmonize(one_scan, tmp_path / "out", "participant").code == 0
    assert harmonize(one_scan, tmp_path / "out", "group").code == 0
    tally["paths that lead elsewhere"] += len(rows)
    assert scan_files(tmp_path / "out") == expected_files(NAME) | {"group_T1w.tsv", "group_T1w.json"}
    assert set(os.listdir(tmp_path)) == {"data", "out", "filters.json"}
    assert set(snapshot(one_scan)) - set(before) == {"participants.tsv"}


SECRET = "secret.nii.gz"


@pytest.mark.parametrize(
    "source",
    [
        f"bids:raw:../{SECRET}",
        f"bids:raw:sub-01/../../{SECRET}",
        f"bids:raw:%2e%2e/{SECRET}",
        "bids:raw:{absolute}",
        "file://{absolute}",
        "{absolute}",
    ],
)
def test_sources_do_not_leave_the_dataset(
    one_scan: Path, tmp_path: Path, tally: Counter[str], source: str
) -> None:
    """A sidecar from elsewhere cannot have the report show a file outside of the dataset."""
    secret = tmp_path / SECRET
    nib.save(image_of(head(5)), secret)
    out = tmp_path / "out"
    assert harmonize(one_scan, out, "participant").code == 0
    before = [name for name in files(out) if "_desc-before" in name]
    assert len(before) == 3
    for name in files(out / "sub-01/figures"):
        (out / "sub-01/figures" / name).unlink()
    sidecar = output_of(out, NAME).with_name("sub-01_desc-harmonized_T1w.json")
    content = sidecar_of(output_of(out, NAME))
    content["Sources"] = [source.format(absolute=secret)]
    content["BidsHarmonize"]["InputSHA256"] = sha256(secret)
    sidecar.write_text(json.dumps(content))
    result = harmonize(one_scan, out, "participant", "--reports-only")
    tally["paths that lead elsewhere"] += 1
    assert result.code == 0, result.err
    page = Page((out / "sub-01.html").read_text(encoding="utf-8"))
    assert f"would lie outside of {one_scan}" in page.text
    assert not [name for name in files(out) if "_desc-before" in name or "_desc-edit" in name]


def test_a_result_in_another_persons_folder_has_no_page(tmp_path: Path, tally: Counter[str]) -> None:
    """A misplaced sidecar is in the table of the group, whoever's folder it lies in."""
    raw, out = write_dataset(tmp_path / "raw"), tmp_path / "out"
    (raw / "sub-01").mkdir()
    person = next(iter(SITES.values()))
    path = write_sidecar(out, "sub-01_T1w", record(intensities(person, person, 1)))
    path.rename(path.with_name("sub-02_desc-harmonized_T1w.json"))
    result = harmonize(raw, out, "group")
    tally["paths that lead elsewhere"] += 1
    assert result.code == 0, result.err
    assert "sub-02" in (out / "group_T1w.tsv").read_text()


# Links


def test_a_scan_that_is_a_link_out_of_the_dataset_is_read_and_never_written(
    one_scan: Path, tmp_path: Path, tally: Counter[str]
) -> None:
    """As fMRIPrep's users are used to: a dataset of links to files elsewhere works, report included."""
    scan, elsewhere = one_scan / "sub-01/anat" / NAME, tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(scan, elsewhere / "content.nii.gz")
    scan.symlink_to(elsewhere / "content.nii.gz")
    before = snapshot(elsewhere)
    assert harmonize(one_scan, tmp_path / "out", "participant").code == 0
    assert harmonize(one_scan, tmp_path / "out", "participant", "--force").code == 0
    tally["links"] += 1
    assert not output_of(tmp_path / "out", NAME).is_symlink()
    assert len([name for name in files(tmp_path / "out") if "_desc-before" in name]) == 3
    alone = harmonize_image(scan, elsewhere / "content.nii.gz", "--force")
    one_line(alone, 64, "is an input, and would be overwritten")
    assert snapshot(elsewhere) == before


def test_outputs_that_are_links_are_replaced_and_not_followed(
    one_scan: Path, tmp_path: Path, tally: Counter[str]
) -> None:
    """Whatever an output file links to, the input among it, stays as it was."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    assert harmonize(one_scan, out, "participant", "--save-transform").code == 0
    assert harmonize(one_scan, out, "group").code == 0
    names = sorted(name for name in files(out) if not name.startswith("logs/"))
    for number, name in enumerate(names):
        target = elsewhere / str(number)
        target.parent.mkdir(exist_ok=True)
        shutil.move(out / name, target)
        (out / name).symlink_to(target)
    (out / "sub-01/anat/sub-01_desc-harmonized_T1w.nii.gz").unlink()
    (out / "sub-01/anat/sub-01_desc-harmonized_T1w.nii.gz").symlink_to(one_scan / "sub-01/anat" / NAME)
    before = snapshot(elsewhere), snapshot(one_scan)
    assert harmonize(one_scan, out, "participant", "--save-transform", "--force", "--seed", "5").code == 0
    assert harmonize(one_scan, out, "group").code == 0
    tally["links"] += len(names)
    assert (snapshot(elsewhere), snapshot(one_scan)) == before
    written = expected_files(NAME, curves=True) | {"group_T1w.html", "group_T1w.tsv", "sub-01.html"}
    assert not [name for name in written if (out / name).is_symlink()]
    alone = tmp_path / "alone.nii.gz"
    alone.symlink_to(elsewhere / "0")
    one_line(harmonize_image(one_scan / "sub-01/anat" / NAME, alone), 64, "was not written by this program")
    assert harmonize_image(one_scan / "sub-01/anat" / NAME, alone, "--force").code == 0
    assert (alone.is_symlink(), snapshot(elsewhere)) == (False, before[0])


@pytest.mark.parametrize("folder", ["sub-01", "sub-01/anat", "sub-01/figures", "logs"])
def test_folders_of_the_output_that_lead_elsewhere_are_refused(
    one_scan: Path, tmp_path: Path, tally: Counter[str], folder: str
) -> None:
    """BIDS_DIR is never written to, also where a folder of the output is a link to one of it."""
    write_scan(one_scan, "sub-02_T1w.nii.gz")
    out, before = tmp_path / "out", snapshot(one_scan)
    (out / folder).parent.mkdir(parents=True)
    (out / folder).symlink_to(one_scan / "sub-01" / ("anat" if "/" in folder else ""))
    result = harmonize(one_scan, out, "participant")
    tally["links"] += 1
    assert result.code == 73
    assert f"{out / folder}" in result.err
    assert "leads out of the output folder" in result.err
    assert "Traceback" not in result.err + result.out
    assert snapshot(one_scan) == before
    # One link stops one participant at most, unless it stands for the records of all.
    assert output_of(out, "sub-02_T1w.nii.gz").is_file() == (folder != "logs")


# Models


@pytest.fixture
def copied(tmp_path: Path, untrained_model: Path) -> Path:
    """A model of the user's own, to be changed."""
    for path in (untrained_model, untrained_model.with_suffix(".json")):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path / untrained_model.name


def resign(weights: Path, **changes: object) -> None:
    """Change the model card, and have it fit the weights."""
    path = weights.with_suffix(".json")
    fresh = {"SHA256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    path.write_text(json.dumps(json.loads(path.read_text()) | fresh | changes))


class Trap:
    """What leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("ending", [".pt", ".pth", ".pkl", ".bin", ".safetensors"])
@pytest.mark.parametrize("zipped", [False, True])
def test_pickles_are_no_models_and_never_opened(
    one_scan: Path, tmp_path: Path, copied: Path, tally: Counter[str], ending: str, zipped: bool
) -> None:
    """Weights are safetensors only, whatever a file is called: no code of a pickle ever runs."""
    opened, path = tmp_path / "opened", copied.with_suffix(ending)
    if zipped:
        torch.save({"state_dict": Trap(opened)}, path)
    else:
        path.write_bytes(pickle.dumps(Trap(opened)))
    resign(path)
    code = 65 if ending == ".safetensors" else 64
    for result in (
        harmonize(one_scan, tmp_path / "out", "participant", "--model", path),
        harmonize_image(one_scan / "sub-01/anat" / NAME, tmp_path / "out.nii.gz", "--model", path),
    ):
        one_line(result, code, str(path), "safetensors")
        tally["tampered models"] += 1
    assert not opened.exists()
    # The trap works.
    pickle.loads(pickle.dumps(Trap(opened)))
    assert opened.exists()
    assert not (tmp_path / "out").exists()


PART = {"Mean": [0.5] * 2 * KNOTS, "StandardDeviation": [1.0] * 2 * KNOTS}
IMPOSSIBLE: dict[str, dict[str, object]] = {
    "Unit 0": {"OutputScale": {"Unit": 0}},
    "Unit negative": {"OutputScale": {"Unit": -1000}},
    "Unit NaN": {"OutputScale": {"Unit": float("nan")}},
    "Unit infinite": {"OutputScale": {"Unit": float("inf")}},
    "Unit huge": {"OutputScale": {"Unit": 10**400}},
    "Unit text": {"OutputScale": {"Unit": "1000"}},
    "Unit yes": {"OutputScale": {"Unit": True}},
    "scale text": {"OutputScale": "1000"},
    "parts text": {"BodyParts": "HEAD"},
    "parts none": {"BodyParts": []},
    "parts numbers": {"BodyParts": [1]},
    "modality list": {"Modality": ["T1w"]},
    "modality empty": {"Modality": ""},
    "name missing": {"Name": None},
    "distribution short": {"InputDistribution": {"Mean": [0.5], "StandardDeviation": [1.0]}},
    "distribution NaN": {"InputDistribution": PART | {"Mean": [float("nan")] * 2 * KNOTS}},
    "distribution negative": {"InputDistribution": PART | {"StandardDeviation": [-1.0] * 2 * KNOTS}},
    "distribution text": {"InputDistribution": PART | {"Mean": ["x"] * 2 * KNOTS}},
    "distribution list": {"InputDistribution": [1, 2]},
    "recognizer empty": {"Recognizer": {}},
    "recognizer text": {"Recognizer": "none"},
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_a_model_card_that_says_what_cannot_be_is_refused(
    one_scan: Path, tmp_path: Path, copied: Path, tally: Counter[str], what: str
) -> None:
    """Before any scan is touched, in one sentence that names the file."""
    resign(copied, **IMPOSSIBLE[what])
    result = harmonize(one_scan, tmp_path / "out", "participant", "--model", copied)
    tally["tampered models"] += 1
    one_line(result, 65, str(copied.with_suffix("")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("threshold", [-1, 2, float("nan"), "x"])
def test_a_recognizer_that_never_or_always_flags_is_refused(
    one_scan: Path, tmp_path: Path, copied: Path, tally: Counter[str], threshold: object
) -> None:
    """Else, scans that a model is not meant for would pass unseen."""
    bundled = json.loads((ROOT / "bids_harmonize/weights/prostate-T2w.json").read_text())["Recognizer"]
    resign(copied, Recognizer=bundled)
    assert harmonize(one_scan, tmp_path / "good", "participant", "--model", copied).code == 0
    resign(copied, Recognizer=bundled | {"Threshold": threshold})
    tally["tampered models"] += 1
    one_line(harmonize(one_scan, tmp_path / "out", "participant", "--model", copied), 65, str(copied))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("contrast", ["PDw", None, ["T1w"], {"T1w": 1}])
def test_a_recognizer_of_an_unknown_contrast_is_refused(
    one_scan: Path, tmp_path: Path, copied: Path, tally: Counter[str], contrast: object
) -> None:
    """Nothing is known of how its tissues look."""
    resign(copied, Recognizer={"TissueOrder": contrast})
    tally["tampered models"] += 1
    one_line(harmonize(one_scan, tmp_path / "out", "participant", "--model", copied), 65, str(copied))
    assert not (tmp_path / "out").exists()


def test_a_deeply_nested_card_is_one_sentence(
    one_scan: Path, tmp_path: Path, copied: Path, tally: Counter[str]
) -> None:
    """A card that no reader of JSON gets to the end of is as unreadable as one with an error."""
    copied.with_suffix(".json").write_text("[" * 100_000)
    tally["tampered models"] += 1
    result = harmonize(one_scan, tmp_path / "out", "participant", "--model", copied)
    one_line(result, 65, "model card")


def test_one_changed_byte_of_a_bundled_model_is_found(
    one_scan: Path, tmp_path: Path, tally: Counter[str]
) -> None:
    """Bundled weights are checked by their SHA-256 at every start, before anything is done."""
    package = tmp_path / "package"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "bids_harmonize", package / "bids_harmonize", ignore=ignored)
    for name in ("run.py", "version"):
        shutil.copy(ROOT / name, package)
    weights = package / "bids_harmonize/weights/T1w.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    scan = one_scan / "sub-01/anat" / NAME
    commands = {
        "bids-harmonize": [
            str(package / "run.py"),
            str(one_scan),
            str(tmp_path / "out"),
            "participant",
            "--n-cpus",
            "1",
        ],
        "bids-harmonize-image": ["-m", "bids_harmonize.cli.image", str(scan), str(tmp_path / "out.nii.gz")],
    }
    for name, arguments in commands.items():
        done = subprocess.run(
            [sys.executable, *arguments, *FOR_ONE], capture_output=True, text=True, check=False, cwd=package
        )
        tally["tampered models"] += 1
        result = Result(code=done.returncode, out=done.stdout, err=done.stderr)
        one_line(result, 65, f"{name}: error: {weights}", "SHA-256 differs")
    assert set(os.listdir(tmp_path)) == {"package", "data"}
