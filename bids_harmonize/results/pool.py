"""Pools of scans that share an edit: formed of the sidecars, kept in small files, found again by scans."""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Self

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from bids_harmonize.bids.grouping import Grouping
from bids_harmonize.bids.participants import read_table
from bids_harmonize.bids.pools import Acquired
from bids_harmonize.errors import BadData, NoInput
from bids_harmonize.files.atomic import output_error, write_atomically, write_text
from bids_harmonize.files.fetched import require_fetched
from bids_harmonize.measures.overall_curve import OverallCurve
from bids_harmonize.measures.shared_curve import SharedCurve, share_curve

FOLDER, TABLE, ENDING = "pools", "pools.tsv", ".safetensors"
# Longest part of a file's name that is made of the label.
MAX_SLUG = 60
COLUMNS = ("pool", "suffix", "model", "scan", "included", "distance", "file")
NONE = "n/a"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A scan whose own edit is known.

    Attributes
    ----------
    acquired
        The scan and how it was made.
    suffix, model, model_sha256
        Its BIDS suffix, and the model that it was harmonized by.
    own
        Its own overall curve.
    """

    acquired: Acquired
    suffix: str
    model: str
    model_sha256: str
    own: OverallCurve


@dataclass(frozen=True, kw_only=True)
class PoolOfScan:
    """What a scan needs to know of its pool.

    Attributes
    ----------
    label, rule, sha256
        Of the pool, see `Pool`.
    others
        How many other scans share the curve.
    left_out
        Whether the scan does not fit.
    """

    label: str
    rule: str
    sha256: str
    shared: SharedCurve
    others: int
    left_out: bool


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The curve that scans of one scanner and protocol share, and what a file says of it.

    Attributes
    ----------
    label, rule
        What the scans have in common, and how that was found.
    suffix, model, model_sha256
        BIDS suffix of the scans, and the model that they are harmonized by.
    members
        Paths of the scans in their dataset.
    left_out
        For each scan that does not fit, how far its own curve is from the shared one.
    """

    label: str
    rule: str
    suffix: str
    model: str
    model_sha256: str
    shared: SharedCurve
    members: Sequence[str]
    left_out: Mapping[str, float]

    @property
    def file_name(self) -> str:
        """Name of its file, the same whenever the pool is formed again."""
        key = json.dumps([self.label, self.suffix, self.model_sha256])
        slug = "-".join(re.findall(r"[a-zA-Z0-9.]+", self.label))[:MAX_SLUG].strip("-.")
        return f"{slug}-{hashlib.sha256(key.encode()).hexdigest()[:8]}_{self.suffix}{ENDING}"

    @cached_property
    def names(self) -> frozenset[str]:
        """Paths of all its scans, those that do not fit too; to look one up among many takes no time."""
        return frozenset((*self.members, *self.left_out))

    def of_scan(self, scan: PurePosixPath) -> PoolOfScan:
        """What a scan, given by its path in its dataset, needs to know."""
        return PoolOfScan(
            label=self.label,
            rule=self.rule,
            sha256=self.sha256,
            shared=self.shared,
            others=self.shared.scans - (str(scan) in self.names and str(scan) not in self.left_out),
            left_out=str(scan) in self.left_out,
        )

    def content(self) -> bytes:
        """What its file holds; the same pool always has the same."""
        curve = self.shared.curve
        description = {
            "label": self.label,
            "rule": self.rule,
            "suffix": self.suffix,
            "model": self.model,
            "model_sha256": self.model_sha256,
            "scans": self.shared.scans,
            "members": list(self.members),
            "left_out": dict(self.left_out),
        }
        # There is one entry because safetensors writes several in random order.
        return save(
            {"curve": np.array([curve.inputs, curve.outputs])}, metadata={"pool": json.dumps(description)}
        )

    @cached_property
    def sha256(self) -> str:
        """Checksum of its file."""
        return hashlib.sha256(self.content()).hexdigest()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a pool that was written before.

        Raises
        ------
        NoInput
            There is no such file.
        BadData
            It is no pool.
        """
        require_fetched(path)
        try:
            content = path.read_bytes()
            size = int.from_bytes(content[:8], "little")
            description = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["pool"])
            inputs, outputs = load(content)["curve"]
            curve = OverallCurve.from_json(
                {"LogInputs": inputs.tolist(), "LogOutputs": outputs.tolist()}, path
            )
            members, scans = description["members"], description["scans"]
            if not (curve.known and isinstance(scans, int) and scans == len(members)):
                raise ValueError("a curve of nothing")
            texts = {
                key: str(description[key]) for key in ("label", "rule", "suffix", "model", "model_sha256")
            }
            return cls(
                **texts,
                shared=SharedCurve(curve=curve, scans=scans),
                members=[str(member) for member in members],
                left_out={str(name): float(far) for name, far in description["left_out"].items()},
            )
        except FileNotFoundError as error:
            raise NoInput(f"the pool {path} does not exist") from error
        except (
            SafetensorError,
            LookupError,
            TypeError,
            ArithmeticError,
            ValueError,
            AttributeError,
            RecursionError,
            OSError,
            BadData,
        ) as error:
            raise BadData(f"{path} is no pool, or is damaged; make it again with group --pool-by") from error


def pool_scans(scans: Sequence[Measured], formed: Grouping) -> list[Pool]:
    """The pools of scans that belong together, of one suffix and model each, in the order of their names.

    The order of the scans makes no difference.
    """
    together: defaultdict[tuple[str, str, str, str], dict[str, OverallCurve]] = defaultdict(dict)
    for scan, label in zip(scans, formed.labels, strict=True):
        if label is not None and scan.own.known:
            key = (label, scan.suffix, scan.model, scan.model_sha256)
            together[key][str(scan.acquired.path)] = scan.own
    pools = []
    for (label, suffix, model, sha256), curves in sorted(together.items()):
        shared, left_out = share_curve(curves)
        pools.append(
            Pool(
                label=label,
                rule=formed.rule,
                suffix=suffix,
                model=model,
                model_sha256=sha256,
                shared=shared,
                members=[name for name in sorted(curves) if name not in left_out],
                left_out={name: round(far, 4) for name, far in sorted(left_out.items())},
            )
        )
    return pools


def write_pools(pools: Sequence[Pool], folder: Path, alone: Iterable[PurePosixPath] = ()) -> list[Path]:
    """Write every pool and a table of all scans in them; the paths, the table's last.

    Files of pools that are no more are removed, as a scan would be found in two.

    Parameters
    ----------
    alone
        Scans that were seen and are in no pool.

    Raises
    ------
    CannotCreate, InputOutputError
        A file cannot be written or removed.
    """
    paths = [folder / pool.file_name for pool in pools]
    for path in sorted({*folder.glob(f"*{ENDING}")} - {*paths}):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise output_error(path, error) from error
    for pool, path in zip(pools, paths, strict=True):
        with write_atomically(path) as temporary:
            temporary.write_bytes(pool.content())
    lines = ["\t".join(COLUMNS)]
    for pool in pools:
        both = [(name, True) for name in pool.members] + [(name, False) for name in pool.left_out]
        for name, included in sorted(both):
            far = NONE if included else f"{pool.left_out[name]:g}"
            cells = (pool.label, pool.suffix, pool.model, name, str(included).lower(), far, pool.file_name)
            lines.append("\t".join(cells))
    for scan in sorted(alone):
        suffix = scan.name.split(".")[0].rsplit("_", 1)[-1]
        lines.append("\t".join((NONE, suffix, NONE, str(scan), NONE, NONE, NONE)))
    write_text(folder / TABLE, "\n".join(lines) + "\n")
    return [*paths, folder / TABLE]


def read_pools(path: Path) -> list[Pool]:
    """Read a pool, or all pools of a folder.

    Raises
    ------
    NoInput, BadData
        There is none, or one is damaged.
    """
    if not path.is_dir():
        return [Pool.read(path)]
    pools = [Pool.read(file) for file in sorted(path.glob(f"*{ENDING}"))]
    if not pools and not (path / TABLE).is_file():
        raise NoInput(
            f"{path} holds no pool; make them with group --pool-by, which writes the folder {FOLDER}"
        )
    return pools


def scans_alone(folder: Path) -> frozenset[str]:
    """Paths of the scans that were seen when the pools of a folder were formed, and are in none.

    Raises
    ------
    BadData
        The table of the pools is malformed.
    """
    table = folder / TABLE
    rows = read_table(table, "scan") if table.is_file() else []
    return frozenset(row["scan"] for row in rows if row.get("pool") == NONE)


def pool_of(
    scan: PurePosixPath, suffix: str, model_sha256: str, pools: Sequence[Pool], *, for_all: bool = False
) -> Pool | None:
    """The pool that names a scan, of its suffix and model; None where there is none.

    Parameters
    ----------
    for_all
        Whether a pool that does not name the scan will do, as one that was given for a new scan.
    """
    alike = [pool for pool in pools if (pool.suffix, pool.model_sha256) == (suffix, model_sha256)]
    naming = [pool for pool in alike if str(scan) in pool.names]
    return next(iter(naming or (alike if for_all else [])), None)


def as_named(file_name: str, pools: Sequence[Pool]) -> PurePosixPath:
    """The path by which pools name a scan that is given by its file alone; or its name, if none does."""
    paths = (PurePosixPath(scan) for pool in pools for scan in sorted(pool.names))
    return next((path for path in paths if path.name == file_name), PurePosixPath(file_name))
