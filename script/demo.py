"""The whole program in minutes: synthetic people, both training stages, test, scores, a picture.

    python -m script.demo

Every step prints the command it runs. Data goes to dataset/demo, the run to result/demo, pictures
to eval_results/demo. A second run makes data and pictures anew and moves result/demo aside.
"""

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # so that errors and Ctrl-C within the imports below are told in a line
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # where it is started as a file
    from util.command_line import run_program

    run_program("script.demo")

from torch.utils.data import Subset

from data import create_dataset, create_loader
from models import create_model
from models.checkpoints import load_for_test
from models.evaluation import copy_source, evaluate, format_table, spread_indices
from models.pictures import panels_of
from options.base_options import parse_test_options
from util.argument_types import positive_int
from util.command_line import Parser
from util.errors import UserError
from util.images import save_image
from util.layout import sheet
from util.run.folder import run_folder

DATA, RESULTS = "./dataset/demo", "./eval_results/demo"
SHARED_OPTIONS = ["--name=demo", "--dataset_mode=market", f"--dataroot={DATA}"]
SHEET_PAIRS = 8
# For minutes instead of days: a higher learning rate, PyTorch's own initial weights (the published
# start, orthogonal with gain 0.02, leaves the flow near zero for long), no augmentation, and a
# random VGG19 (no download).
QUICK_START = [
    "--lr=0.0003", "--init_type=none", "--vgg_weights=random",
    "--angle=0", "--shift=0", "--scale=1",
]  # fmt: skip


def parse_demo_options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line of the demo."""
    parser = Parser(
        prog="python -m script.demo", description="Data, training, test and scores in minutes."
    )
    parser.add_argument("--identities", type=positive_int, default=140, help="synthetic people")
    parser.add_argument(
        "--poses_per_identity", type=positive_int, default=5, help="pictures of each"
    )
    parser.add_argument(
        "--stage1_iterations", type=positive_int, default=900, help="training steps of stage 1"
    )
    parser.add_argument(
        "--stage2_iterations", type=positive_int, default=480, help="training steps of stage 2"
    )
    parser.add_argument("--batchSize", type=positive_int, default=4, help="pairs per training step")
    parser.add_argument("--gpu_id", default="0", help="GPU to use, -1 for the CPU")
    return parser.parse_all(arguments)


def run_command(title: str, *arguments: str) -> None:
    """Run one of the project's commands as a user would, with its output on the terminal.

    Raises:
        UserError: the command failed (it has said why).
    """
    print(f"\n=== {title}\n$ python {shlex.join(arguments)}", flush=True)
    finished = subprocess.run([sys.executable, *arguments], check=False)
    if finished.returncode:
        raise UserError(
            f"the demo stopped at '{title}', see above (exit code {finished.returncode})"
        )


def score_table(shared: Sequence[str]) -> list[tuple[str, dict[str, float]]]:
    """Scores of the baseline and both stages on test pairs of people that training never saw.

    Args:
        shared: options of test.py that name the run, its data and the device.
    """
    stages = [
        (
            "stage 1: source warped by the flow",
            ["--model=poseflownet", "--which_iter=poseflownet_latest"],
        ),
        ("stage 2: generated", ["--model=pose"]),
    ]
    rows = []
    for title, chosen in stages:
        options = parse_test_options([*shared, *chosen])
        model = create_model(options)
        loader = create_loader(
            create_dataset(options),
            8,
            training=False,
            workers=options.nThreads,
            device=model.device,
        )
        load_for_test(model, run_folder(options), options.which_iter)
        if not rows:
            rows.append(("copy of the source (zero flow)", evaluate(copy_source, loader)))
        rows.append((title, evaluate(model.predict, loader)))
    return rows


def picture_sheet(shared: Sequence[str], path: Path, scale: int = 2) -> int:
    """Write the sheet of test pairs spread over the identities: inputs, flow, mask, result.

    Args:
        shared: options of test.py that name the run, its data and the device.
        path: of the picture.
        scale: how many times larger to show the pictures.

    Returns:
        The number of pairs.
    """
    options = parse_test_options([*shared, "--model=pose"])
    dataset = create_dataset(options)
    chosen = spread_indices(len(dataset), SHEET_PAIRS)
    model = create_model(options)
    load_for_test(model, run_folder(options), options.which_iter)
    loader = create_loader(
        Subset(dataset, chosen), len(chosen), training=False, device=model.device
    )
    batch = next(iter(loader))
    save_image(path, sheet(panels_of(batch, model.predict(batch)), scale))
    return len(chosen)


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    options = parse_demo_options(arguments)
    shared = [*SHARED_OPTIONS, f"--gpu_id={options.gpu_id}"]
    started = time.monotonic()
    run_command(
        "synthetic people with known flow",
        "-m", "script.make_synthetic_dataset", "--layout=market", f"--out={DATA}",
        f"--identities={options.identities}", f"--poses_per_identity={options.poses_per_identity}",
        "--pairs_per_identity=10",
    )  # fmt: skip
    for stage, model, iterations in (
        (1, "poseflownet", options.stage1_iterations),
        (2, "pose", options.stage2_iterations),
    ):
        run_command(
            f"training, stage {stage} (--model={model})",
            "train.py", *SHARED_OPTIONS, f"--model={model}", f"--gpu_id={options.gpu_id}",
            f"--batchSize={options.batchSize}", *QUICK_START,
            f"--niter={iterations // 2}", f"--niter_decay={iterations - iterations // 2}",
            "--print_freq=50", "--display_freq=100", "--eval_iters_freq=0", "--display_id=0",
            *(["--continue_train"] if stage == 2 else []),
        )  # fmt: skip
    run_command(
        "test", "test.py", *SHARED_OPTIONS, "--model=pose", f"--gpu_id={options.gpu_id}",
        f"--results_dir={RESULTS}", "--batchSize=8", "--save_input", "--save_flow",
    )  # fmt: skip
    print("\n=== scores on people that training never saw")
    table = format_table(score_table(shared))
    (Path(RESULTS) / "scores.md").write_text(table + "\n", encoding="utf-8")
    print(table)
    picture = Path(RESULTS) / "sheet.png"
    picture_sheet(shared, picture)
    minutes = (time.monotonic() - started) / 60
    print(
        f"\nLook at {picture} (the pictures of all pairs are beside it). "
        f"The demo took {minutes:.1f} minutes."
    )
    return 0
