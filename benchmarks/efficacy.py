"""Efficacy of harmonization, side by side with what users would use instead, in one table.

    python -m benchmarks.efficacy --out OUT

All methods see the same scans. The table is printed, and written to OUT/efficacy.md; all numbers to
OUT/efficacy.json; a figure to OUT/efficacy.png. Real scans and label maps are read from the folder named in
BIDS_HARMONIZE_SHARED, or ``shared`` beside the checkout. Install what it needs with ``pip install
'.[benchmark]'``.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import splits
from benchmarks.data import PROSTATE, Data
from benchmarks.methods import NAMES, Method, make_methods
from benchmarks.rows import Row, summarize
from benchmarks.scans import shared_folder
from benchmarks.table import draw, markdown, number
from benchmarks.tiers.agreement import ORACLE
from bids_harmonize.card import read_card

#: Module of each tier, in the order of the table.
TIERS = {
    "A": "agreement",
    "B": "repeats",
    "C": "left_out",
    "D": "distribution",
    "E": "radiomics",
    "F": "probe",
    "G": "lesions",
    "H": "invariants",
}
MODALITIES = ("T1w", "T2w", PROSTATE)
#: Of prostates there are neither label maps nor other sites.
PROSTATE_TIERS = ("C", "H")
PACKAGES = ("bids-harmonize", "intensity-normalization", "SimpleITK", "scikit-image", "numpy", "torch")
TIME = "time"
RESOLUTION = {True: "in full resolution", False: "of heads averaged to voxels of up to 2 mm"}


@dataclass(kw_only=True)
class Results:
    """What came out, and how long it took."""

    rows: list[Row] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    options = _parser().parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    models = {_meant_for(read_card(path)): path for path in options.model}
    results = Results()
    for modality in options.modality:
        with tempfile.TemporaryDirectory(prefix="efficacy-") as folder:
            data = Data(
                shared=options.shared,
                modality=modality,
                development=options.development,
                native=options.native,
                pairs=options.pairs,
            )
            model = models.get(modality, modality)
            methods = make_methods(options.methods, modality, data.reference, model, Path(folder))
            # After every tier, so that what is done is there if a later one fails.
            for _ in measure(options.tiers, methods, data, results):
                _write(results, options, models)
    print(report(results, options.methods, native=options.native))
    return 0


def _meant_for(card: Mapping[str, Any]) -> str:
    return PROSTATE if "PROSTATE" in card["BodyParts"] else str(card["Modality"])


def measure(tiers: Sequence[str], methods: Sequence[Method], data: Data, results: Results) -> Iterator[None]:
    """Run the tiers on one modality, adding what they return, at last run times and failures, to the results.

    Yields whenever something was added.
    """
    for tier in tiers:
        if data.modality == PROSTATE and tier not in PROSTATE_TIERS:
            continue
        start = time.perf_counter()
        rows = import_module(f"benchmarks.tiers.{TIERS[tier]}").run(methods, data)
        spent = time.perf_counter() - start
        results.rows += rows
        results.seconds[f"{tier} {data.modality}"] = round(spent, 1)
        if not rows:
            results.empty.append(f"{tier} {data.modality}")
        print(f"tier {tier} {data.modality}: {len(rows)} rows, {spent:.0f} s", file=sys.stderr, flush=True)
        yield
    for method in methods:
        results.rows += _times(method, data.modality)
        if method.failures:
            results.failures[f"{method.name} {data.modality}"] = dict(method.failures)
    yield


def _times(method: Method, modality: str) -> list[Row]:
    """Seconds of processor time per scan, and how often a method failed."""
    kinds = {
        "processor seconds per simulated head": [
            s for n, s in method.seconds.items() if n.startswith("head-")
        ],
        "processor seconds per real scan": [
            s for n, s in method.seconds.items() if not n.startswith("head-")
        ],
        "processor seconds to fit or load": [method.fit_seconds],
    }
    rows = [
        summarize(TIME, modality, figure, method.name, seconds, better="lower", scans=len(seconds))
        for figure, seconds in kinds.items()
        if seconds
    ]
    failed = Row(
        tier=TIME,
        modality=modality,
        figure="failed scans, taken as unchanged",
        method=method.name,
        value=float(len(method.failures)),
        spread=0.0,
        n=len(method.seconds),
        better="lower",
        scans_used=len(method.seconds),
    )
    return [*rows, failed]


def report(results: Results, names: Sequence[str], *, native: bool = False) -> str:
    """The table, and what must be known to read it."""
    bounds = [
        f"- {row.tier} {row.modality}, {row.figure}: {number(row.value)} ±{number(row.spread)} for an oracle "
        "that knows the receive field and the rising curve nearest to the truth."
        for row in results.rows
        if row.method == ORACLE and row.figure.endswith("dB")
    ]
    empty = [f"- Tier {tier}: no such scans here." for tier in results.empty]
    failed = [f"- {name} failed on {len(scans)} scans." for name, scans in results.failures.items()]
    seconds = ", ".join(f"{name} {spent:.0f} s" for name, spent in results.seconds.items())
    notes = [
        "- Mean ± standard deviation over n measurements, unless the tier says otherwise; ↑ higher is "
        "better, ↓ lower is better, bold is the best of a line.",
        "- Other methods get a brain mask, of simulated scans the true one; ours gets none.",
        f"- Real scans: {RESOLUTION[native]}. Seconds per scan are the processor's, at that size.",
        f"- {splits.SITES_NOTE}",
        *bounds,
        *empty,
        *failed,
        f"- Time of the tiers: {seconds}.",
    ]
    return markdown(_compared(results.rows), names) + "\n" + "\n".join(notes) + "\n"


def _compared(rows: Sequence[Row]) -> list[Row]:
    """Those of methods that there are."""
    return [row for row in rows if row.method != ORACLE]


def _write(results: Results, options: argparse.Namespace, models: dict[str, Path]) -> None:
    """All files anew."""
    (options.out / "efficacy.md").write_text(
        report(results, options.methods, native=options.native), encoding="utf-8"
    )
    content: dict[str, Any] = {
        "Heads": list(splits.heads(options.development)),
        "LeftOut": splits.LEFT_OUT,
        "Models": {modality: path.name for modality, path in models.items()} or "bundled",
        "Versions": {name: _version(name) for name in PACKAGES} | {"Python": platform.python_version()},
        "Resolution": RESOLUTION[options.native],
        "SecondsByTier": results.seconds,
        "Failures": results.failures,
        "NoSuchScans": results.empty,
        "Rows": [_plain(row) for row in results.rows],
    }
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    (options.out / "efficacy.json").write_text(text + "\n", encoding="utf-8")
    draw([row for row in _compared(results.rows) if row.tier != TIME], options.out / "efficacy.png")


def _plain(row: Row) -> dict[str, Any]:
    """For JSON, which knows neither infinity nor what is no number."""
    words = {np.inf: "infinite", -np.inf: "-infinite"}
    return {
        key: words.get(value, None if value != value else value) if isinstance(value, float) else value
        for key, value in asdict(row).items()
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.efficacy", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("efficacy"), help="folder of the output")
    parser.add_argument("--shared", type=Path, default=shared_folder(), help="folder of the scans")
    parser.add_argument("--tiers", nargs="+", choices=TIERS, default=list(TIERS))
    parser.add_argument("--modality", nargs="+", choices=MODALITIES, default=list(MODALITIES))
    parser.add_argument("--methods", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--model", nargs="+", type=Path, default=[], help="weights to use for their modality")
    parser.add_argument("--development", action="store_true", help="heads to choose by, not to report on")
    parser.add_argument("--native", action="store_true", help="real scans in full resolution; takes long")
    parser.add_argument("--pairs", type=Path, help="BIDS dataset of people who were scanned twice (tier B)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
