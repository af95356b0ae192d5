"""Import pretrained PG2 weights from a TensorFlow checkpoint, without TensorFlow.

python -m script.import_pg2_checkpoint path/to/model.ckpt-60000 --name pg2_market
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started as a file: Python looks for packages in script/ only
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from util.argument_types import folder_name
from util.command_line import Parser, as_arguments, run_program


def main(arguments: list[str] | None = None) -> int:
    """Write result/NAME/latest_net_*.pth, and say what was found and how to go on.

    Raises:
        UserError: bad options, a checkpoint that cannot be read or does not fit, a used name.
    """
    from models.pg2_import import import_checkpoint
    from models.pg2_model import TRAINING_DEFAULTS

    parser = Parser(
        prog="python -m script.import_pg2_checkpoint", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "checkpoint", help="path of the checkpoint's files without .index, or their folder"
    )
    parser.add_argument("--name", type=folder_name, required=True, help="name of the experiment")
    parser.add_argument("--checkpoints_dir", default="./result", help="folder of the experiments")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the latest checkpoint of a used name"
    )
    options = parser.parse_all(arguments)

    folder = Path(options.checkpoints_dir) / options.name
    converted = import_checkpoint(options.checkpoint, folder, options.overwrite)
    print("\n".join(converted.lines()))
    print(f"written: {', '.join(f'{folder}/latest_net_{name}.pth' for name in converted.networks)}")
    run = {"name": options.name, "checkpoints_dir": options.checkpoints_dir}
    if options.checkpoints_dir == parser.get_default("checkpoints_dir"):
        del run["checkpoints_dir"]
    # Widths and the like are in network.json.
    run |= {"model": "pg2", "dataset_mode": converted.layout}
    print(f"generate: python test.py {as_arguments(run)}")
    run["iter_count"] = (converted.iteration or 0) + 1
    published = TRAINING_DEFAULTS[converted.layout]["niter"]
    if run["iter_count"] > published:
        run["niter"] = converted.iteration + published
    print(f"train on, with fresh optimisers: python train.py {as_arguments(run)} --continue_train")
    return 0


if __name__ == "__main__":
    run_program(main)
