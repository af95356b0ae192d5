"""Train a model.

Stage 1:  python train.py --name=fashion --model=poseflownet --attn_layer=2,3 --kernel_size=2=5,3=3
              --gpu_id=0 --dataset_mode=fashion --dataroot=./dataset/fashion
Stage 2:  the same with --model=pose --continue_train
"""

from util.command_line import run_program


def main() -> int:
    """Read the command line and train."""
    from options.train_options import parse_train_options
    from util.training import train

    return train(parse_train_options())


if __name__ == "__main__":
    run_program(main)
