"""The command line: arguments in, `Options` and exit codes out.

Only the standard library is imported here, so that ``--help`` and ``--version`` answer at once.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import NoReturn

from bids_harmonize.bids.filters import read_filter_file
from bids_harmonize.bids.run import DEFAULT_MODALITIES, MODALITY_OF_SUFFIX
from bids_harmonize.cli import arguments, process
from bids_harmonize.errors import BadLevel, NoInput, UsageError
from bids_harmonize.options import ClusterKind, Options

PROGRAM = "bids-harmonize"
SUFFIXES = tuple(MODALITY_OF_SUFFIX)
ANALYSIS_LEVELS = ("participant", "group", "train")
# The levels at which options do something, by the field of `Options` that they fill; elsewhere they are
# refused. Those that are missing here do something at every level.
LEVELS_OF_OPTION: dict[str, tuple[str, ...]] = {
    "database_dir": ("participant", "train"),
    "models": ("participant", "train"),
    "pool_by": ("participant", "group"),
    "pool": ("participant",),
    "save_transform": ("participant",),
    "out_of_distribution": ("participant",),
    "seed": ("participant", "train"),
    "device": ("participant", "train"),
    "omp_nthreads": ("participant", "train"),
    "mem_bytes": ("participant",),
    "scheduler": ("participant",),
    "force": ("participant",),
    "stop_on_first_crash": ("participant",),
    "reports_only": ("participant",),
    "site_column": ("group",),
    "reference_size": ("train",),
    "steps": ("train",),
    "label_maps": ("train",),
    "echo_times": ("train",),
}
# Worker processes are forked from a server that has imported this module. It is a name and not an import
# because importing it would load torch; it stands below `cli`, so it goes round no floor.
WORKER_MODULE = "bids_harmonize.commands.participant"
# torch takes seeds of 64 bits with a sign.
MAX_SEED = 2**63 - 1

# BIDS 1.11 allows letters, digits and plus signs. Hyphens occur in practice and are harmless; `*` or `../`
# would select or write something else altogether.
_LABEL = re.compile(r"[0-9a-zA-Z+][0-9a-zA-Z+-]*")
_MEMORY = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([kmgt]?)(i?)(b?)", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_ORDER = "BIDS_DIR OUTPUT_DIR ANALYSIS_LEVEL come first: an option that takes a list takes all that follows"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code; ``argv`` defaults to the arguments of this process."""
    return process.run_cli(PROGRAM, lambda: _run(argv))


def program() -> NoReturn:
    """Run the command as the process that this is."""
    process.leave(main())


def parse(argv: Sequence[str], *, program: str = PROGRAM) -> Options:
    """Turn arguments into `Options`.

    Parameters
    ----------
    argv : sequence of str
        The arguments, without the program's name.
    program : str
        The program's name as typed, for the sidecars and logs.

    Raises
    ------
    UsageError
        If an argument is unknown, missing or malformed, or does nothing at the level.
    BadLevel
        If the analysis level is none of `ANALYSIS_LEVELS`.
    NoInput
        If the dataset or the filter file does not exist or cannot be read.
    """
    fields = vars(parser().parse_args(argv))
    _refuse_without_effect(argv, fields["level"])
    # Every option but this one fills the field of `Options` that its `dest` names.
    del fields["notrack"]
    if not os.path.isdir(fields["bids_dir"]):
        raise NoInput(f"the dataset {fields['bids_dir']} does not exist, or is not a folder")
    label_maps = fields["label_maps"]
    if label_maps is not None and not os.path.isdir(label_maps):
        raise UsageError(f"the label maps {label_maps} do not exist, or are not a folder")
    # A report is on all that was harmonized, whatever it had to be asked for.
    default_modalities = SUFFIXES if fields["level"] == "group" else DEFAULT_MODALITIES
    fields["modalities"] = fields["modalities"] or default_modalities
    if fields["pool_by"] is not None and fields["pool"] is not None:
        raise UsageError("--pool-by forms pools anew, and --pool takes some that are there; give one of them")
    filter_file = fields["bids_filters"]
    fields["bids_filters"] = read_filter_file(filter_file) if filter_file else {}
    fields["n_cpus"] = fields["n_cpus"] or arguments.default_cpus(os.environ)
    return Options(**fields, command=(program, *argv))


def parser() -> arguments.Parser:
    """Build the argument parser, with which boutiques.json and the documentation must agree."""
    top = arguments.Parser(
        PROGRAM,
        hint=_ORDER,
        usage=f"{PROGRAM} BIDS_DIR OUTPUT_DIR {{{','.join(ANALYSIS_LEVELS)}}} [options]",
        description="Harmonize T1w and T2w MRI scans: give every scan of a BIDS dataset the intensities of "
        "one reference group, and leave its anatomy unchanged.",
        epilog="Options that take a list may be repeated. An option that would do nothing at a level is "
        "refused there. Every option may be spelled with underscores (--participant_label). "
        "Exit codes: 0 all done, 16 input is not valid BIDS, 17 bad level, "
        "18 nothing selected, 64 usage, 65 bad data (some run failed), 66 no input, "
        "73 cannot create output, 74 I/O error.",
    )
    _add_positionals(top.add_argument_group("what to do"))
    _add_selection(top.add_argument_group("which scans"))
    _add_input(top.add_argument_group("how the input is read"))
    _add_harmonization(top.add_argument_group("how it is harmonized"))
    _add_resources(top.add_argument_group("resources"))
    _add_control(top.add_argument_group("control"))
    _add_grouping(top.add_argument_group("group level only"))
    _add_training(top.add_argument_group("train level only"))
    arguments.add_information(top.add_argument_group("information"), PROGRAM)
    return top


def _refuse_without_effect(argv: Sequence[str], level: str) -> None:
    """Refuse options that the level does not look at: who gives one expects it to do something."""
    typed = parser()
    for action in typed.actions:
        action.default = argparse.SUPPRESS
    given = vars(typed.parse_args(argv))
    for action in typed.actions:
        levels = LEVELS_OF_OPTION.get(action.dest, ANALYSIS_LEVELS)
        if action.dest in given and level not in levels:
            name = next(name for name in action.option_strings if name.startswith("--"))
            raise UsageError(f"{name} does nothing at the {level} level, only at {' and '.join(levels)}")


def _run(argv: Sequence[str] | None) -> int:
    options = parse(sys.argv[1:], program=sys.argv[0]) if argv is None else parse(argv)
    process.leave_removed_folder()
    if _needs_workers(options):
        from bids_harmonize.execution.local import warm_up_forkserver

        warm_up_forkserver([WORKER_MODULE])
    from bids_harmonize.commands.dispatch import run

    return run(options)


def _needs_workers(options: Options) -> bool:
    harmonizes = options.level == "participant" and not (options.dry_run or options.reports_only)
    return harmonizes and options.scheduler is None and options.n_cpus > (options.omp_nthreads or 1)


def _add_positionals(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "bids_dir", metavar="BIDS_DIR", type=arguments.path, help="the BIDS dataset; never written to"
    )
    group.add_argument(
        "output_dir", metavar="OUTPUT_DIR", type=arguments.path, help="the BIDS derivatives folder to write"
    )
    group.add_argument(
        "level",
        metavar="ANALYSIS_LEVEL",
        type=_level,
        choices=ANALYSIS_LEVELS,
        help="participant: harmonize every scan; group: report on all of them together; "
        "train: learn a model from the reference group in BIDS_DIR",
    )


def _add_selection(group: argparse._ArgumentGroup) -> None:
    arguments.add_list(
        group,
        "--participant-label",
        dest="participants",
        metavar="LABEL",
        type=label_type("sub-"),
        help="participants to process, with or without sub- (default: all)",
    )
    arguments.add_list(
        group,
        "--exclude-participant-label",
        dest="excluded",
        metavar="LABEL",
        type=label_type("sub-"),
        help="participants to leave out, with or without sub- (default: none)",
    )
    arguments.add_list(
        group,
        "--session-label",
        aliases=("--session-id",),
        dest="sessions",
        metavar="LABEL",
        type=label_type("ses-"),
        help="sessions to process, with or without ses-; also --session-id (default: all)",
    )
    arguments.add_list(
        group,
        "--modalities",
        aliases=("--modality",),
        metavar="SUFFIX",
        choices=SUFFIXES,
        help=f"suffixes to process, of {', '.join(SUFFIXES)}; others than T1w and T2w need a --model of your "
        f"own; also --modality (default: {' '.join(DEFAULT_MODALITIES)})",
    )
    arguments.add(
        group,
        "--bids-filter-file",
        dest="bids_filters",
        metavar="FILE",
        type=arguments.path,
        help='JSON file of entities to select by, such as {"t1w": {"acquisition": "mprage"}}; '
        'null: entity absent, "*": any value',
    )


def _add_input(group: argparse._ArgumentGroup) -> None:
    arguments.add(
        group,
        "--skip-bids-validation",
        aliases=("--skip-bids-validator",),
        dest="skip_validation",
        action="store_true",
        help="do not check that BIDS_DIR is valid BIDS; also --skip-bids-validator",
    )
    arguments.add(
        group,
        "--bids-database-dir",
        dest="database_dir",
        metavar="DIR",
        type=arguments.path,
        help="PyBIDS database of BIDS_DIR to open (default: index BIDS_DIR anew)",
    )


def _add_harmonization(group: argparse._ArgumentGroup) -> None:
    arguments.add_list(
        group,
        "--model",
        dest="models",
        metavar="MODEL",
        type=arguments.model,
        help="names of bundled models, or .safetensors files, to use instead of the bundled models; "
        "for train: to start from",
    )
    arguments.add(
        group,
        "--pool-by",
        metavar="WHAT",
        help="scans that have this in common share one edit, so that people keep what tells them apart: "
        "protocol (scanner, sequence, TR, TE, TI, flip angle and voxel size in the sidecars), site (as the "
        "level group finds it), session (the sessions of each participant under one protocol), or a column "
        "of participants.tsv or scans.tsv; at the level group: only write the pools (default: each scan by "
        "itself)",
    )
    arguments.add_pool(group, "or a folder of pools, one of which names each scan")
    arguments.add_save_transform(group)
    arguments.add_out_of_distribution(
        group,
        "skip",
        "skip (write it unchanged, as desc-unharmonized), harmonize (but flag it), or fail",
    )
    arguments.add(
        group, "--seed", metavar="N", type=seed, default=0, help="seed of every random number (default: 0)"
    )


def _add_resources(group: argparse._ArgumentGroup) -> None:
    arguments.add_device(group)
    arguments.add(
        group,
        "--n-cpus",
        aliases=("--nprocs",),
        metavar="N",
        type=arguments.positive_int,
        help="number of CPUs, shared by scans that run at the same time, each with --omp-nthreads; also "
        "--nprocs (default: $SLURM_CPUS_PER_TASK, else those this process may use)",
    )
    arguments.add_threads(group, "its share of the CPUs")
    arguments.add(
        group,
        "--mem",
        dest="mem_bytes",
        metavar="SIZE",
        type=parse_memory,
        help="upper bound on memory: 8GB, 8000MB, 7.5GiB; a plain number is in MB (default: no bound)",
    )
    arguments.add(
        group,
        "--scheduler",
        metavar="ADDRESS",
        type=_scheduler,
        help="run scans on Dask workers: address of a running scheduler (tcp://HOST:PORT), or local, slurm "
        "or kubernetes to start --n-cpus workers for this run (default: this machine, without Dask)",
    )
    arguments.add(
        group,
        "-w",
        "--work-dir",
        metavar="DIR",
        type=arguments.path,
        help="accepted as in other apps, but unused: no scratch space is needed; may not lie in BIDS_DIR",
    )


def _add_control(group: argparse._ArgumentGroup) -> None:
    arguments.add(
        group,
        "--dry-run",
        action="store_true",
        help="list the scans and the files that would be written, and write nothing",
    )
    arguments.add(group, "--force", action="store_true", help="reprocess scans that already have results")
    arguments.add(
        group, "--stop-on-first-crash", action="store_true", help="stop at the first scan that fails"
    )
    arguments.add(
        group,
        "--reports-only",
        action="store_true",
        help="only write the reports, from existing results",
    )
    arguments.add(
        group,
        "--notrack",
        action="store_true",
        help="has no effect: this program never sends anything anywhere",
    )


def _add_grouping(group: argparse._ArgumentGroup) -> None:
    arguments.add(
        group,
        "--site-column",
        metavar="NAME",
        help="column of BIDS_DIR/participants.tsv with the site (default: site, site_id, scanner and "
        "similar; without one: scanner and protocol in the sidecars)",
    )


def _add_training(group: argparse._ArgumentGroup) -> None:
    arguments.add(
        group,
        "--reference-size",
        metavar="N",
        type=arguments.positive_int,
        default=13,
        help="number of scans in the reference group, the best ones (default: 13)",
    )
    arguments.add(
        group,
        "--steps",
        metavar="N",
        type=arguments.positive_int,
        help="number of training steps, without early stopping (default: at most 2000 for T1w and 1600 for "
        "T2w, fewer if held-out participants stop improving)",
    )
    arguments.add(
        group,
        "--label-maps",
        metavar="DIR",
        type=arguments.path,
        help="folder of label maps, ..._dseg.nii.gz (FreeSurfer numbers), to also train on simulated "
        "acquisitions (default: none)",
    )
    arguments.add(
        group,
        "--echo-times",
        metavar=("FROM", "TO"),
        nargs=2,
        type=arguments.positive_int,
        help="echo times in ms: bring a T2w reference group from the first to the second, tissue by tissue, "
        "before training, for the contrast of longer echoes (default: as scanned)",
    )


def _level(text: str) -> str:
    if text not in ANALYSIS_LEVELS:
        raise BadLevel(
            f"the analysis level {text!r} is none of {', '.join(ANALYSIS_LEVELS)}; "
            "the order is BIDS_DIR OUTPUT_DIR ANALYSIS_LEVEL"
        )
    return text


def label_type(prefix: str) -> Callable[[str], str]:
    """Make a parser of BIDS labels, which may have a prefix such as ``sub-``; it is removed."""

    def label(text: str) -> str:
        bare = text.removeprefix(prefix)
        if not _LABEL.fullmatch(bare):
            hint = f"; {_ORDER}" if "/" in text else "; separate labels by spaces" if "," in text else ""
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
        raise argparse.ArgumentTypeError(f"{text!r} is less than a byte")
    return size


def _scheduler(text: str) -> str:
    if text not in [*ClusterKind] and "://" not in text:
        kinds = ", ".join(ClusterKind)
        raise argparse.ArgumentTypeError(
            f"{text!r} is none of {kinds}, nor an address such as tcp://node1:8786"
        )
    return text


def seed(text: str) -> int:
    """Parse a seed: a whole number from 0 up that torch accepts."""
    number = arguments.non_negative_int(text)
    if number > MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {MAX_SEED}")
    return number
