"""Generate the pictures of a test set.

python test.py --name=pose_fashion_checkpoints --model=pose --attn_layer=2,3
    --kernel_size=2=5,3=3 --gpu_id=0 --dataset_mode=fashion --dataroot=./dataset/fashion
    --results_dir=./eval_results/fashion
"""

from util.command_line import run_program


def main() -> int:
    """Read the command line and generate."""
    from options.test_options import parse_test_options
    from util.inference import run_inference

    return run_inference(parse_test_options())


if __name__ == "__main__":
    run_program(main)
