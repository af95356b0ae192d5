"""Options of train.py."""

import argparse
import math

from util.argument_types import (
    LARGEST,
    LARGEST_RATE,
    LARGEST_SIDE,
    display_backends,
    non_negative_int,
    port,
    positive_int,
    real_number,
    run_and_label,
    server_address,
    whole_number,
)
from util.command_line import Parser, as_arguments
from util.device import add_speed_options
from util.errors import UserError
from util.run.display import check_displays


def add_train_options(parser: Parser) -> None:
    """Add what only training needs."""
    group = parser.add_argument_group("training")
    group.add_argument("--phase", default="train", help="which part of the data set to train on")
    group.add_argument("--batchSize", type=positive_int, help="pairs per iteration")
    group.add_argument(
        "--continue_train",
        action="store_true",
        help="go on from the checkpoint of --name (stage 2 starts from stage 1's)",
    )
    group.add_argument(
        "--init_from",
        type=run_and_label,
        metavar="RUN[:LABEL]",
        help="go on from the checkpoint of another run, under the new --name [stage 1's where "
        "stage 2 is to start, else latest]; GFLA's may be of another --load_size",
    )
    group.add_argument(
        "--from_scratch",
        action="store_true",
        help="train stage 2 without a stage 1, though --name holds one, which is moved aside",
    )
    group.add_argument(
        "--dry_run",
        action="store_true",
        help="say where every value is from and what would be trained, and stop",
    )
    group.add_argument(
        "--iter_count", type=positive_int, default=1, help="number of the first iteration"
    )
    group.add_argument(
        "--niter",
        type=non_negative_int,
        help="iterations at the full learning rate",
    )
    group.add_argument(
        "--niter_decay",
        type=non_negative_int,
        default=0,
        help="iterations of linear decay to zero after that",
    )
    group.add_argument(
        "--lr_policy", choices=["lambda", "step", "exponent"], default="lambda",
        help="learning rate: constant then linear decay, in steps, or exponential",
    )  # fmt: skip
    group.add_argument(
        "--lr_decay_iters",
        type=positive_int,
        default=50000,
        help="step, exponent: iterations per factor --lr_gamma",
    )
    group.add_argument(
        "--lr_gamma",
        type=real_number(0, 1000, above=True),
        default=0.1,
        help="step, exponent: factor of the learning rate",
    )

    add_speed_options(parser)

    group = parser.add_argument_group("records")
    group.add_argument(
        "--print_freq",
        type=positive_int,
        default=1000,
        help="iterations between lines of loss_log.txt",
    )
    group.add_argument(
        "--display_freq",
        type=positive_int,
        default=1000,
        help="iterations between picture snapshots",
    )
    group.add_argument(
        "--save_latest_freq",
        type=positive_int,
        default=1000,
        help="iterations between saves of 'latest'",
    )
    group.add_argument(
        "--save_iters_freq",
        type=positive_int,
        default=10000,
        help="iterations between numbered checkpoints",
    )
    group.add_argument(
        "--eval_iters_freq",
        type=non_negative_int,
        default=15000,
        help="iterations between evaluations on test pairs, 0 for none",
    )
    group.add_argument(
        "--eval_pairs",
        type=positive_int,
        default=500,
        help="test pairs per evaluation, spread over the list",
    )
    group.add_argument("--no_html", action="store_true", help="save no pictures under web/")

    group = parser.add_argument_group("when something goes wrong")
    group.add_argument(
        "--keep_checkpoints",
        type=positive_int,
        help="keep only the newest so many numbered checkpoints [all]",
    )
    group.add_argument(
        "--save_failure",
        choices=["continue", "stop"],
        default="continue",
        help="a checkpoint or record cannot be written (full disk): say so and train on, or stop",
    )
    group.add_argument(
        "--skip_nonfinite",
        type=non_negative_int,
        default=0,
        help="iterations in a row whose loss or gradient may be NaN or infinite; they are skipped",
    )

    group = parser.add_argument_group("live display")
    group.add_argument(
        "--display_backend",
        type=display_backends,
        default="visdom",
        help="visdom, tensorboard or visdom,tensorboard",
    )
    group.add_argument(
        "--display_id",
        type=whole_number(-LARGEST),
        default=1,
        help="visdom: panes of another number stay apart, 0: no visdom",
    )
    group.add_argument(
        "--display_server",
        type=server_address,
        default="http://localhost",
        help="address of the visdom server, without the port",
    )
    group.add_argument("--display_port", type=port, default=8096, help="port of the visdom server")
    group.add_argument("--display_env", help="visdom environment [the experiment's name]")
    group.add_argument(
        "--display_winsize",
        type=whole_number(1, LARGEST_SIDE),
        default=256,
        help="visdom: longer side of a pane of pictures in pixels",
    )
    group.add_argument(
        "--display_single_pane_ncols",
        type=non_negative_int,
        default=0,
        help="visdom: all pictures in one pane of so many columns, 0: a pane per kind",
    )
    group.add_argument(
        "--start_dashboard",
        action="store_true",
        help="start a visdom server on this machine if none answers; it stays after the training",
    )


def check_train_options(options: argparse.Namespace) -> None:
    """Check what must fit together; before an earlier run is moved aside.

    Raises:
        UserError: options that contradict each other, a display that cannot be.
    """
    _check_start(options)
    _check_growth(options)
    check_displays(options)


def _check_growth(options: argparse.Namespace) -> None:
    """Raise UserError for an --lr_gamma above 1 that lets the learning rate grow out of range."""
    periods = (options.niter + options.niter_decay) / options.lr_decay_iters
    growth = periods * math.log(options.lr_gamma) if options.lr_policy != "lambda" else 0
    if growth > 0 and growth + math.log(options.lr or 1) > math.log(LARGEST_RATE):
        raise UserError(
            f"--lr_gamma: {options.lr_gamma:g} every {options.lr_decay_iters} iterations makes the "
            f"learning rate larger than {LARGEST_RATE} by the last iteration: give a factor of at "
            "most 1, a smaller --niter or a larger --lr_decay_iters"
        )


def _check_start(options: argparse.Namespace) -> None:
    """Refuse to start from two places at once."""
    ways = [name for name in ("continue_train", "init_from", "from_scratch") if vars(options)[name]]
    if len(ways) > 1:
        raise UserError(f"--{ways[0]} and --{ways[1]}: give one of them")
    if options.init_from and options.which_iter != "latest":
        start = as_arguments({"init_from": f"{options.init_from[0]}:{options.which_iter}"})
        raise UserError(f"--which_iter: with --init_from the label stands behind the run: {start}")
    if options.which_iter != "latest" and not options.continue_train:
        raise UserError(
            f"--which_iter={options.which_iter}: loads nothing without --continue_train, give that "
            "too; or leave it out to train anew"
        )
    if options.init_from and options.init_from[0] == options.name:
        raise UserError(
            "--init_from: is the run of --name itself; give another --name, or go on in it with "
            "--continue_train --which_iter=LABEL"
        )
