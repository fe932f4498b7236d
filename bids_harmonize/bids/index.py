"""The images of a dataset, found with pybids.

What follows is done without it, for these reasons (pybids 0.22, seconds of the processor, 2,500 participants
with 10,000 images and as many sidecars; in larger datasets they grow with the number of participants):

- The participants are the ``sub-*`` folders, whose listing takes 0.05 s. pybids knows them when all is
  indexed (22 s) and asked for its subjects (30 s more), and cuts labels at the first character that is not
  BIDS.
- Only the participants that were asked for are indexed (0.5 s for one), and no metadata: one sidecar that is
  not JSON would stop all. `input_metadata` reads those of a run when its turn comes.
- File names are asked for (0.6 s) and not the objects of pybids with their entities (12 s), which have
  neither the order nor the spelling of the name, and none that pybids does not know; `run.parse_name` has.
- What pybids cannot list is looked for besides (1 s), so that it is reported and not missed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from bids_harmonize.bids.run import MODALITY_OF_SUFFIX, Run, natural_key, parse_name
from bids_harmonize.errors import CannotCreate, InvalidBIDS, NoInput, UsageError, is_out_of_memory
from bids_harmonize.files.atomic import locked_temp_folder, remove_stale_temp_files

if TYPE_CHECKING:
    from bids import BIDSLayout


_DATABASE = "layout_index.sqlite"
# Bytes of a name that are not UTF-8 are surrogates in Python, which no database takes.
_NO_UTF8 = r"\ud800-\udfff"
_IMAGE = rf"sub-[^/{_NO_UTF8}]+_(?:{'|'.join(MODALITY_OF_SUFFIX)})\.nii(?:\.gz)?"
_NAMED = re.compile(rf"sub-.+_(?:{'|'.join(MODALITY_OF_SUFFIX)})\.nii(?:\.gz)?", re.DOTALL)


def participants(dataset: Path) -> tuple[str, ...]:
    """Labels of the ``sub-*`` folders, in natural order.

    Raises
    ------
    NoInput
        If the dataset cannot be read.
    """
    try:
        with os.scandir(dataset) as entries:
            names = [entry.name for entry in entries if entry.name.startswith("sub-") and entry.is_dir()]
    except OSError as error:
        raise NoInput(f"{dataset} cannot be read: {error.strerror}") from error
    names.sort(key=lambda name: natural_key(PurePosixPath(name)))
    return tuple(name.removeprefix("sub-") for name in names)


def images(dataset: Path, wanted: Sequence[str], database_dir: Path | None) -> list[Run]:
    """List the images with a suffix of interest in the ``anat`` folders of the wanted participants.

    Parameters
    ----------
    dataset
        The dataset's folder, absolute.
    wanted
        Labels of participants.
    database_dir
        A pybids index to open, or to make if there is none; it holds all participants. None: only the wanted
        participants are looked at, and nothing is left behind.

    Raises
    ------
    InvalidBIDS, UsageError, CannotCreate
        If pybids cannot read the dataset; if the index is of another dataset or damaged; if it cannot be
        made.
    """
    allowed = _allowed([label for label in wanted if not re.search(f"[{_NO_UTF8}]", label)])
    everywhere = _index_all(dataset, database_dir) if database_dir else _open(dataset, allowed)
    found = everywhere.get(datatype="anat", suffix=list(MODALITY_OF_SUFFIX), return_type="filename")
    everywhere.session.close()
    relative = [PurePosixPath(name).relative_to(everywhere.root) for name in found]
    # An index made by another program may hold anything, such as derivatives.
    listed = [path for path in relative if allowed.search(f"/{path}")]
    return list(_runs(dataset, [*listed, *_unlisted(dataset, wanted)]))


def _unlisted(dataset: Path, wanted: Sequence[str]) -> list[PurePosixPath]:
    """Images that pybids does not list: names that no database takes, and folders named like images."""
    found = list[Path]()
    for label in wanted:
        participant = dataset / f"sub-{label}"
        for folder in (participant / "anat", *participant.glob("ses-*/anat")):
            found += folder.glob("sub-*.nii*")
    relative = [PurePosixPath(path.relative_to(dataset).as_posix()) for path in found]
    return [
        path
        for path in relative
        if _NAMED.fullmatch(path.name)
        and (re.search(f"[{_NO_UTF8}]", str(path)) or (dataset / path).is_dir())
    ]


def _runs(dataset: Path, paths: Iterable[PurePosixPath]) -> Iterable[Run]:
    for path in paths:
        parsed = parse_name(path.name)
        if parsed is not None:
            entities, suffix, _ = parsed
            modality = MODALITY_OF_SUFFIX[suffix]
            yield Run(
                dataset=dataset, path=dataset / path, entities=entities, suffix=suffix, modality=modality
            )


def _allowed(wanted: Sequence[str] | None) -> re.Pattern[str]:
    subject = f"[^/{_NO_UTF8}]+" if wanted is None else f"(?:{'|'.join(map(re.escape, wanted))})"
    return re.compile(rf"^/sub-{subject}(?:/ses-[^/{_NO_UTF8}]+)?(?:/anat(?:/{_IMAGE})?)?$")


def _open(dataset: Path, allowed: re.Pattern[str], database: Path | None = None) -> BIDSLayout:
    pybids = _pybids()
    # pybids takes patterns of what to ignore, and this is the complement of what is allowed; a list of names
    # to ignore would need every other participant of the dataset in it.
    ignore = [re.compile(rf"^(?!{allowed.pattern[1:]})")]
    # A layout_config.json in the dataset would change the meaning of names.
    indexer = pybids.BIDSLayoutIndexer(
        validate=False, index_metadata=False, ignore=ignore, config_filename=".no-config"
    )
    try:
        return pybids.BIDSLayout(dataset, validate=False, indexer=indexer, database_path=database)
    except UnicodeEncodeError as error:
        raise InvalidBIDS(f"{error.object} has a name that is not UTF-8; rename it") from error
    except Exception as error:
        _raise_if_out_of_memory(error)
        raise InvalidBIDS(f"pybids cannot index {dataset}: {type(error).__name__}: {error}") from error


def _index_all(dataset: Path, database_dir: Path) -> BIDSLayout:
    if not (database_dir / _DATABASE).exists():
        _make_database(dataset, database_dir)
    pybids = _pybids()
    try:
        layout = pybids.BIDSLayout(dataset, validate=False, database_path=database_dir)
    except Exception as error:
        _raise_if_out_of_memory(error)
        raise UsageError(
            f"the index {database_dir / _DATABASE} cannot be used ({type(error).__name__}); "
            "delete it, or leave --bids-database-dir out"
        ) from error
    if os.path.realpath(layout.root) != os.path.realpath(dataset):
        raise UsageError(
            f"the index {database_dir / _DATABASE} is of {layout.root}, not of {dataset}; name another"
        )
    return layout


def _pybids() -> Any:
    """The module, with its own options: a file of options would change the meaning of names."""
    # pybids looks for such files in the home folder too, and fails where there is none.
    homeless = "HOME" not in os.environ
    if homeless:
        os.environ["HOME"] = os.sep
    try:
        import bids
    except Exception as error:
        _raise_if_out_of_memory(error)
        raise UsageError(
            f"pybids cannot be loaded ({type(error).__name__}: {error}); correct or remove "
            "pybids_config.json in the home folder or the current one, if there is one"
        ) from error
    finally:
        if homeless:
            del os.environ["HOME"]
    bids.config.reset_options()
    return bids


def _raise_if_out_of_memory(error: Exception) -> None:
    """Raise a `MemoryError` if that is what is behind an error: then the dataset is not to blame."""
    # Extension modules whose memory runs out while they are loaded may fail without saying why.
    if is_out_of_memory(error) or isinstance(error, SystemError):
        raise MemoryError from error


def _make_database(dataset: Path, database_dir: Path) -> None:
    try:
        database_dir.mkdir(parents=True, exist_ok=True)
        # Many processes may start at once, and none may open an index that another is still filling.
        remove_stale_temp_files(database_dir)
        with locked_temp_folder(database_dir) as scratch:
            _open(dataset, _allowed(None), scratch).session.close()
            os.replace(scratch / _DATABASE, database_dir / _DATABASE)
    except OSError as error:
        raise CannotCreate(f"the index cannot be made in {database_dir}: {error.strerror}") from error
