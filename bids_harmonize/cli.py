"""The command line: arguments in, `Options` and exit codes out.

Only the standard library is imported here, so that ``--help`` and ``--version`` answer at once.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from bids_harmonize import console
from bids_harmonize.errors import BadLevel, NoInput, UsageError
from bids_harmonize.options import Options

PROGRAM = "bids-harmonize"
LEVELS = ("participant", "group", "train")
MODALITIES = ("T1w", "T2w", "inplaneT2")
DEFAULT_MODALITIES = ("T1w", "T2w")
SCHEDULERS = ("local", "slurm", "kubernetes")
# torch takes seeds of 64 bits with a sign.
MAX_SEED = 2**63 - 1

# BIDS 1.11 has letters, digits and plus signs; hyphens are met with, and harmless. `*` or `../` are not: they
# would select or write something else altogether.
_LABEL = re.compile(r"[0-9a-zA-Z+][0-9a-zA-Z+-]*")
_MEMORY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([kmgt]?)(i?)(b?)", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_ORDER = "BIDS_DIR OUTPUT_DIR ANALYSIS_LEVEL come first: an option that takes a list takes all that follows"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code; ``argv`` defaults to the arguments of this process."""
    return console.guard(PROGRAM, lambda: _run(argv))


def parse(argv: Sequence[str], *, program: str = PROGRAM) -> Options:
    """Turn arguments into `Options`.

    Parameters
    ----------
    argv : sequence of str
        The arguments, without the program's name.
    program : str
        The program's name as typed, for the record.

    Raises
    ------
    UsageError
        If an argument is unknown, missing or malformed.
    BadLevel
        If the analysis level is none of `LEVELS`.
    NoInput
        If the dataset or the filter file does not exist or cannot be read.
    """
    given = parser().parse_args(argv)
    if not os.path.isdir(given.bids_dir):
        raise NoInput(f"the dataset {given.bids_dir} does not exist, or is not a folder")
    if given.label_maps is not None and not os.path.isdir(given.label_maps):
        raise UsageError(f"the label maps {given.label_maps} do not exist, or are not a folder")
    n_cpus = given.n_cpus or console.default_cpus(os.environ)
    return Options(
        bids_dir=given.bids_dir,
        output_dir=given.output_dir,
        level=given.analysis_level,
        participants=_unique(given.participant_label),
        excluded=_unique(given.exclude_participant_label),
        sessions=_unique(given.session_label),
        bids_filters=read_filters(given.bids_filter_file) if given.bids_filter_file else {},
        modalities=_unique(given.modalities) or DEFAULT_MODALITIES,
        skip_validation=given.skip_bids_validation,
        database_dir=given.bids_database_dir,
        n_cpus=n_cpus,
        omp_nthreads=given.omp_nthreads,
        mem_bytes=given.mem,
        scheduler=given.scheduler,
        work_dir=given.work_dir,
        device=given.device,
        dry_run=given.dry_run,
        force=given.force,
        stop_on_first_crash=given.stop_on_first_crash,
        seed=given.seed,
        reports_only=given.reports_only,
        save_transform=given.save_transform,
        out_of_distribution=given.out_of_distribution,
        models=_unique(given.model),
        site_column=given.site_column,
        reference_size=given.reference_size,
        steps=given.steps,
        label_maps=given.label_maps,
        verbosity=console.verbosity(given),
        command=(program, *argv),
    )


def parser() -> argparse.ArgumentParser:
    """Build the argument parser, from which the Boutiques descriptor is checked too."""
    top = console.Parser(
        PROGRAM,
        hint=_ORDER,
        usage=f"{PROGRAM} BIDS_DIR OUTPUT_DIR {{{','.join(LEVELS)}}} [options]",
        description="Harmonize T1w and T2w MRI scans: give every scan of a BIDS dataset the intensities of "
        "one reference group, and leave its anatomy as it is.",
        epilog="Options that take a list may be repeated. Every option may be spelled with underscores "
        "(--participant_label). Exit codes: 0 all done, 16 input is not valid BIDS, 17 bad level, "
        "18 nothing selected, 64 usage, 65 bad data (some run failed), 66 no input, "
        "73 cannot create output, 74 I/O error.",
    )
    _add_positionals(top.add_argument_group("what to do"))
    _add_selection(top.add_argument_group("which scans"))
    _add_input(top.add_argument_group("how the input is read"))
    _add_harmonization(top.add_argument_group("how it is harmonized"))
    _add_resources(top.add_argument_group("resources"))
    _add_control(top.add_argument_group("control"))
    _add_grouping(top.add_argument_group("level group only"))
    _add_training(top.add_argument_group("level train only"))
    console.add_information(top.add_argument_group("information"), PROGRAM)
    return top


def read_filters(path: Path) -> dict[str, dict[str, Any]]:
    """Read a BIDS filter file, in fMRIPrep's format.

    Parameters
    ----------
    path : Path
        A JSON file: an object of objects, for example ``{"t1w": {"acquisition": "mprage"}}``.

    Raises
    ------
    NoInput
        If the file does not exist or cannot be read.
    UsageError
        If its content is not a JSON object of objects.
    """
    try:
        # utf-8-sig: editors on Windows put a byte order mark in front.
        filters = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise NoInput(f"the BIDS filter file {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the BIDS filter file {path} is not JSON in UTF-8: {error}") from error
    if not isinstance(filters, dict):
        raise UsageError(f"the BIDS filter file {path} must hold a JSON object")
    for key, value in filters.items():
        if not isinstance(value, dict):
            raise UsageError(f"the BIDS filter file {path} must hold an object under the key {key!r}")
    return filters


def _run(argv: Sequence[str] | None) -> int:
    options = parse(sys.argv[1:], program=sys.argv[0]) if argv is None else parse(argv)
    if _wants_workers(options):
        from bids_harmonize.workers import start_early

        start_early()
    from bids_harmonize.app import run

    return run(options)


def _wants_workers(options: Options) -> bool:
    harmonizes = options.level == "participant" and not (options.dry_run or options.reports_only)
    return harmonizes and options.scheduler is None and options.n_cpus > (options.omp_nthreads or 1)


def _add_positionals(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "bids_dir", metavar="BIDS_DIR", type=console.path, help="the BIDS dataset; never written to"
    )
    group.add_argument(
        "output_dir", metavar="OUTPUT_DIR", type=console.path, help="the BIDS derivatives folder to write"
    )
    group.add_argument(
        "analysis_level",
        metavar="ANALYSIS_LEVEL",
        type=_level,
        choices=LEVELS,
        help="participant: harmonize every scan; group: report on all of them together; "
        "train: learn a model from the reference group in BIDS_DIR",
    )


def _add_selection(group: argparse._ArgumentGroup) -> None:
    _add_list(
        group,
        "--participant-label",
        metavar="LABEL",
        type=_label("sub-"),
        help="participants to process, with or without sub- (default: all)",
    )
    _add_list(
        group,
        "--exclude-participant-label",
        metavar="LABEL",
        type=_label("sub-"),
        help="participants to leave out, with or without sub- (default: none)",
    )
    _add_list(
        group,
        "--session-label",
        aliases=("--session-id",),
        metavar="LABEL",
        type=_label("ses-"),
        help="sessions to process, with or without ses-; also --session-id (default: all)",
    )
    _add_list(
        group,
        "--modalities",
        aliases=("--modality",),
        metavar="SUFFIX",
        choices=MODALITIES,
        help=f"suffixes to process, of {', '.join(MODALITIES)}; also --modality "
        f"(default: {' '.join(DEFAULT_MODALITIES)})",
    )
    console.add(
        group,
        "--bids-filter-file",
        metavar="FILE",
        type=console.path,
        help='JSON file of entities to select by, such as {"t1w": {"acquisition": "mprage"}}; '
        'null: entity absent, "*": any value',
    )


def _add_input(group: argparse._ArgumentGroup) -> None:
    console.add(
        group,
        "--skip-bids-validation",
        aliases=("--skip-bids-validator",),
        action="store_true",
        help="do not check that BIDS_DIR is valid BIDS; also --skip-bids-validator",
    )
    console.add(
        group,
        "--bids-database-dir",
        metavar="DIR",
        type=console.path,
        help="PyBIDS database of BIDS_DIR to open (default: index BIDS_DIR anew)",
    )


def _add_harmonization(group: argparse._ArgumentGroup) -> None:
    _add_list(
        group,
        "--model",
        metavar="MODEL",
        type=console.model,
        help="names of bundled models, or .safetensors files, to use instead of the bundled models; "
        "for train: to start from",
    )
    console.add_save_transform(group)
    console.add_out_of_distribution(
        group,
        "skip",
        "skip (write it unchanged, as desc-unharmonized), harmonize (and only flag it), or fail",
    )
    console.add(
        group, "--seed", metavar="N", type=_seed, default=0, help="seed of every random number (default: 0)"
    )


def _add_resources(group: argparse._ArgumentGroup) -> None:
    console.add_device(group)
    console.add(
        group,
        "--n-cpus",
        aliases=("--nprocs",),
        metavar="N",
        type=console.positive,
        help="number of CPUs: as many scans at a time, each with --omp-nthreads; also --nprocs "
        "(default: $SLURM_CPUS_PER_TASK, else those this process may use)",
    )
    console.add_threads(group, "its share of the CPUs")
    console.add(
        group,
        "--mem",
        metavar="SIZE",
        type=parse_memory,
        help="upper bound on memory: 8GB, 8000MB, 7.5GiB; a plain number is in MB (default: no bound)",
    )
    console.add(
        group,
        "--scheduler",
        metavar="ADDRESS",
        type=_scheduler,
        help="let Dask workers do the scans: tcp://HOST:PORT of a scheduler that runs, or local, slurm or "
        "kubernetes to have --n-cpus of them for the time (default: this machine, without Dask)",
    )
    console.add(
        group,
        "-w",
        "--work-dir",
        metavar="DIR",
        type=console.path,
        help="accepted as in other apps, and may not lie in BIDS_DIR; no scratch space is needed",
    )


def _add_control(group: argparse._ArgumentGroup) -> None:
    console.add(
        group,
        "--dry-run",
        action="store_true",
        help="list the scans and the files to write, and write nothing",
    )
    console.add(group, "--force", action="store_true", help="do again what is already done")
    console.add(group, "--stop-on-first-crash", action="store_true", help="stop at the first scan that fails")
    console.add(
        group,
        "--reports-only",
        action="store_true",
        help="only write the reports, from results that are there",
    )
    console.add(
        group,
        "--notrack",
        action="store_true",
        help="does nothing: this program never sends anything anywhere",
    )


def _add_grouping(group: argparse._ArgumentGroup) -> None:
    console.add(
        group,
        "--site-column",
        metavar="NAME",
        help="column of BIDS_DIR/participants.tsv that tells the site (default: site, site_id, scanner and "
        "the like; without one: scanner and protocol in the sidecars)",
    )


def _add_training(group: argparse._ArgumentGroup) -> None:
    console.add(
        group,
        "--reference-size",
        metavar="N",
        type=console.positive,
        default=13,
        help="number of scans, the best ones, that make the reference group (default: 13)",
    )
    console.add(
        group,
        "--steps",
        metavar="N",
        type=console.positive,
        help="number of training steps, all of them done (default: at most 2000 for T1w and 1600 for T2w, "
        "and fewer if people left out come no nearer to themselves)",
    )
    console.add(
        group,
        "--label-maps",
        metavar="DIR",
        type=console.path,
        help="folder of *_dseg.nii.gz label maps (FreeSurfer numbers), to train on simulated acquisitions "
        "too (default: none)",
    )


def _add_list(
    group: argparse._ArgumentGroup, name: str, *, aliases: Sequence[str] = (), **settings: Any
) -> None:
    console.add(group, name, aliases=aliases, nargs="+", action="extend", default=[], **settings)


def _level(text: str) -> str:
    if text not in LEVELS:
        raise BadLevel(
            f"the analysis level {text!r} is none of {', '.join(LEVELS)}; "
            "the order is BIDS_DIR OUTPUT_DIR ANALYSIS_LEVEL"
        )
    return text


def _label(prefix: str) -> Callable[[str], str]:
    def label(text: str) -> str:
        bare = text.removeprefix(prefix)
        if not _LABEL.fullmatch(bare):
            hint = f"; {_ORDER}" if "/" in text else ""
            raise argparse.ArgumentTypeError(f"{text!r} is not a label (letters, digits, + and -){hint}")
        return bare

    return label


def parse_memory(text: str) -> int:
    """Turn a size such as ``8GB`` into bytes.

    Parameters
    ----------
    text : str
        A number and a unit: k, M, G, T or kB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (powers of
        1024), or B. Without a unit: MB, as in the ``--mem-mb`` of other apps.

    Raises
    ------
    argparse.ArgumentTypeError
        If it is not such a size, or less than one byte.
    """
    match = _MEMORY.fullmatch(text.strip())
    if match is None or (match[3] and not match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 8GB, 8000MB or 7.5GiB")
    unit = match[2] if match[2] or match[4] else "M"
    size = int(Decimal(match[1]) * (1024 if match[3] else 1000) ** _POWER[unit.lower()])
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} leaves no memory at all")
    return size


def _scheduler(text: str) -> str:
    if text not in SCHEDULERS and "://" not in text:
        kinds = ", ".join(SCHEDULERS)
        raise argparse.ArgumentTypeError(
            f"{text!r} is none of {kinds}, nor an address such as tcp://node1:8786"
        )
    return text


def _seed(text: str) -> int:
    number = console.whole(text)
    if number > MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {MAX_SEED}")
    return number


def _unique(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
