"""Options that training and testing share, and how an option set is put together.

A program's options are the shared ones, those of the program (train or test), and those that the
chosen model and dataset bring themselves (`add_options` of each class).
"""

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from data import PairDataset, dataset_names, find_dataset
from models import BaseModel, find_model, model_names
from options.test_options import add_test_options
from options.train_options import add_train_options, check_train_options
from util.argument_types import folder_name, non_negative_int
from util.command_line import Parser, as_argument, as_arguments
from util.device import cpu_cores
from util.errors import UserError
from util.run.folder import run_folder
from util.run.network_record import FILE_NAME, read_network_record

# What the networks read; with the model's own options that both programs have, what they are.
INPUT_OPTIONS = ("load_size", "pose_encoding", "structure_nc", "image_nc")


def _gpu_ids(text: str) -> list[int]:
    try:
        ids = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"got '{text}', expected GPU numbers such as 0 or 0,1; -1 is the CPU"
        ) from None
    return [number for number in ids if number >= 0]


def add_base_options(parser: Parser) -> None:
    """Add the options that every program of the project has."""
    group = parser.add_argument_group("experiment")
    group.add_argument(
        "--name", type=folder_name, default="experiment_name", help="name of the experiment"
    )
    group.add_argument("--model", default="pose", help=f"model: {', '.join(model_names())}")
    group.add_argument("--checkpoints_dir", default="./result", help="folder of the experiments")
    group.add_argument(
        "--which_iter", default="latest", help="checkpoint to load: latest or a number"
    )
    group.add_argument(
        "--gpu_ids",
        "--gpu_id",
        type=_gpu_ids,
        default="0",
        help="GPU to use, -1 for the CPU; without a usable GPU the CPU is used, and said so",
    )
    group.add_argument(
        "--seed", type=non_negative_int, default=0, help="seed of all random numbers"
    )

    group = parser.add_argument_group("data")
    group.add_argument(
        "--dataset_mode", default="fashion", help=f"data set: {', '.join(dataset_names())}"
    )
    group.add_argument("--dataroot", default=None, help="folder of the data set [./dataset/MODE]")
    group.add_argument(
        "--nThreads", type=non_negative_int, default=8, help="data workers (at most one per core)"
    )
    group.add_argument("--serial_batches", action="store_true", help="take the pairs in file order")


def build_parser(
    program: str,
    is_train: bool,
    arguments: list[str] | None,
    add_program_options: Callable[[Parser], None],
) -> Parser:
    """The complete parser for the model and dataset that the arguments name.

    Args:
        program: name shown by --help.
        is_train: whether models and datasets add their training options.
        arguments: the command line without the program; None reads sys.argv.
        add_program_options: called with the parser, adds the program's own options.

    Raises:
        UserError: unknown model or dataset mode, or a network.json that cannot be read.

    The network.json of the run that is to be loaded gives the defaults of what it names.
    """
    first = Parser(add_help=False)
    add_base_options(first)
    add_program_options(first)
    default_model = first.get_default("model")
    first.set_defaults(model=None)
    chosen, _ = first.parse_known_args(arguments)
    folder = folder_to_load(chosen, is_train)
    record = read_network_record(folder) if folder else {}
    # Training may begin the next stage, which the record does not know.
    usual_model = default_model if is_train else record.get("model", default_model)
    chosen.model = chosen.model or usual_model
    model, dataset = find_model(chosen.model), find_dataset(chosen.dataset_mode)
    parser = Parser(prog=program, add_help=False)
    add_base_options(parser)
    add_program_options(parser)
    model.add_options(parser, is_train)
    dataset.add_options(parser, is_train)
    parser.set_defaults(model=usual_model)
    _set_part_defaults(parser, dataset, model, arguments, is_train)
    if record:
        recorded = _recorded_values(parser, record, folder, chosen)
        usual = {name: parser.get_default(name) for name in recorded}
        path = str(folder / FILE_NAME)
        parser.set_defaults_from(path, recorded)  # twice: other defaults may depend on them
        _set_part_defaults(parser, dataset, model, arguments, is_train)
        parser.set_defaults_from(path, recorded)
        parser.check = partial(_check_against_record, folder, recorded, usual)
    # Last, so that reading the command line above does not answer it, and it shows those defaults.
    parser.add_argument("-h", "--help", action="help", help="show this help message and exit")
    parser.explain_unknown = partial(_explain_unknown, chosen, is_train)
    return parser


def folder_to_load(options: argparse.Namespace, is_train: bool) -> Path | None:
    """Folder of the run whose weights the program loads; None where training starts afresh."""
    if is_train and options.init_from:
        return Path(options.checkpoints_dir) / options.init_from[0]
    return run_folder(options) if not is_train or options.continue_train else None


def _set_part_defaults(
    parser: Parser,
    dataset: type[PairDataset],
    model: type[BaseModel],
    arguments: list[str] | None,
    is_train: bool,
) -> None:
    """Take the defaults that the data set and then the model have for the options given."""
    given, _ = parser.parse_known_args(arguments)
    sizes = {"load_size": dataset.default_load_size, "old_size": dataset.default_old_size}
    values = {**sizes, **dataset.option_defaults(given, is_train)}
    parser.set_defaults_from(f"data set {given.dataset_mode}", values)
    given, _ = parser.parse_known_args(arguments)
    name = model.preset_name(given)
    values = model.preset.values(name)
    if not is_train:  # what only training has would be another thing of the same name here
        values = {key: values[key] for key in weight_options(given.model) if key in values}
    origin = f"preset {given.model}" + (f", {name}" if name else "")
    parser.set_defaults_from(origin, values)


def _recorded_values(
    parser: Parser, record: Mapping[str, str], folder: Path, chosen: argparse.Namespace
) -> dict[str, Any]:
    """Values of network.json by the name of the option, of those that say what the weights are.

    No others: the file may be a stranger's, and name folders to write to.
    """
    names = set(weight_options(chosen.model))
    if record.get("dataset_mode") == chosen.dataset_mode:
        names.add("old_size")  # else it is the frame of another data set's key points
    texts = {name: text for name, text in record.items() if name in names}
    try:
        known, _ = parser.parse_known_args([f"--{name}={text}" for name, text in texts.items()])
    except UserError as error:
        raise UserError(f"{folder / FILE_NAME}: {error}; move the file away") from None
    return {name: getattr(known, name) for name in texts if hasattr(known, name)}


def _check_against_record(
    folder: Path, recorded: Mapping[str, Any], usual: Mapping[str, Any], options: argparse.Namespace
) -> None:
    """Refuse options that contradict network.json; say what it makes another than usual."""
    path = folder / FILE_NAME
    for name, value in recorded.items():
        got = getattr(options, name)
        if got != value and (text := contradiction(options, name, as_argument(value), path)):
            raise UserError(text)
        if got == value != usual[name] and usual[name] is not None:
            print(f"--{name}={as_argument(value)}: from {path}")


def contradiction(
    options: argparse.Namespace, name: str, trained_with: str, where: Path
) -> str | None:
    """Why weights that were trained with another value of an option cannot be used.

    Args:
        options: parsed options of the program.
        name: of the option.
        trained_with: its value for the weights.
        where: the file or folder that tells it.

    Returns:
        A message; None where they can: another run may start from networks that take any size,
        and the frame of the key points is the data's.
    """
    is_other_run = bool(getattr(options, "init_from", None))
    bound = find_model(options.model).size_bound if name == "load_size" else None
    if name == "old_size" or (name == "load_size" and is_other_run and not bound):
        return None
    why = f", and {bound} take no other size" if bound else ""
    way = "choose another --name"
    if is_other_run:
        way = "train anew without --init_from"
    elif name == "load_size" and not bound and getattr(options, "continue_train", False):
        way += f" with {as_arguments({'init_from': options.name})}"
    return (
        f"--{name}: got {as_argument(getattr(options, name))}, but the weights were trained with "
        f"{trained_with} ({where}){why}: give that, or {way}"
    )


def network_record(options: argparse.Namespace) -> dict[str, Any]:
    """What network.json keeps of parsed options: what the weights are, and what they read."""
    names = ("model", "dataset_mode", "old_size", *weight_options(options.model))
    return {name: getattr(options, name) for name in names}


def weight_options(model: str) -> list[str]:
    """Names of the options that trained weights hold for: what the networks read and their shapes.

    A model's own options that training and testing share shape its networks.
    """

    def names(is_train: bool) -> set[str]:
        parser = Parser(add_help=False)
        common = parser.names()
        find_model(model).add_options(parser, is_train)
        return parser.names() - common

    shapes = sorted(names(is_train=False) & names(is_train=True))
    return [*INPUT_OPTIONS, *shapes, *find_model(model).training_shapes]


def _explain_unknown(chosen: argparse.Namespace, is_train: bool, flag: str) -> str | None:
    """Say of what model, data set or program a flag is that the chosen ones do not have."""

    def has(add_options: Callable[[Parser], object]) -> bool:
        parser = Parser(add_help=False)
        add_options(parser)
        return parser.takes(flag)

    for train in (is_train, not is_train):
        is_other = train != is_train
        program = "train.py" if train else "test.py"
        if is_other and has(add_train_options if train else add_test_options):
            return f"{flag} is an option of {program}: leave it out here"
        for kind, names, find, used in (
            ("model", model_names(), find_model, chosen.model),
            ("dataset_mode", dataset_names(), find_dataset, chosen.dataset_mode),
        ):
            owners = [
                name for name in names if has(partial(find(name).add_options, is_train=train))
            ]
            if used in owners:
                return f"{flag} is an option of {program}: leave it out here"
            if owners:
                whose = " or ".join(f"--{kind}={name}" for name in owners)
                where = f" in {program}" if is_other else ""
                return f"{flag} is an option of {whose}{where}; this is --{kind}={used}"
    return None


def build_train_parser(arguments: list[str] | None = None) -> Parser:
    """The parser of train.py for the model and dataset named in `arguments`."""
    return build_parser("train.py", True, arguments, add_train_options)


def build_test_parser(arguments: list[str] | None = None) -> Parser:
    """The parser of test.py for the model and dataset named in `arguments`."""
    return build_parser("test.py", False, arguments, add_test_options)


def parse_train_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line of train.py; with --dry_run, say where every value is from.

    Raises:
        UserError: unknown, malformed or contradictory options.
    """
    parser = build_train_parser(arguments)
    options = _finished(parser.parse_all(arguments), is_train=True)
    check_train_options(options)
    if options.dry_run:
        print("\n".join(parser.origin_lines(options, arguments)))
    return options


def parse_test_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line of test.py.

    Raises:
        UserError: unknown, malformed or contradictory options.
    """
    return _finished(build_test_parser(arguments).parse_all(arguments), is_train=False)


def _finished(options: argparse.Namespace, is_train: bool) -> argparse.Namespace:
    """Fill in what depends on several options, and check what must fit together."""
    options.is_train = is_train
    if options.dataroot is None:
        options.dataroot = f"./dataset/{options.dataset_mode}"
    options.nThreads = min(options.nThreads, cpu_cores())
    find_model(options.model).check_options(options)
    return options
