"""Import pretrained PG2 weights from a TensorFlow checkpoint, without TensorFlow.

python -m script.import_pg2_checkpoint path/to/model.ckpt-60000 --name pg2_market
"""

import sys
from pathlib import Path

if __name__ == "__main__":  # started as a file: Python looks for packages in script/ only
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from options.parser import Parser, run_program
from util.argument_types import folder_name


def main(arguments: list[str] | None = None) -> int:
    """Write result/NAME/latest_net_*.pth, and say what was found and how to go on.

    Raises:
        UserError: bad options, a checkpoint that cannot be read or does not fit, a used name.
    """
    from models.pg2_import import import_checkpoint

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
    network = f"--name={options.name} --model=pg2 --dataset_mode={converted.layout}"
    widths = {name: f"--{name}={value}" for name, value in converted.options.items()}
    ndf = widths.pop("ndf")
    network = " ".join([network, *widths.values()])
    print(f"generate: python test.py {network}")
    print(
        f"train on, with fresh optimisers: python train.py {network} {ndf} --continue_train "
        f"--iter_count={(converted.iteration or 0) + 1}"
    )
    return 0


if __name__ == "__main__":
    run_program(main)
