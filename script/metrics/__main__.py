"""Score generated pictures: FID, KID, Inception score, LPIPS, SSIM, PSNR, L1, MAE, masked, flow.

    python -m script.metrics --gt_path=./dataset/fashion/test_256 --distorated_path=./eval_results/fashion \\
        --fid_real_path=./dataset/fashion/train_256 --name=./fashion

Writes eval_results/fashion.csv (one line) and eval_results/fashion_metrics/ (metrics.json with the
protocol of every figure, metrics.csv per image, the gallery). Exit code 1: something was left out.
"""  # noqa: E501

from util.argument_types import non_negative_int, positive_int
from util.command_line import Parser, run_program


def build_metrics_parser() -> Parser:
    """The command line of script.metrics."""
    from data.pair_dataset import add_keypoint_options
    from script.metrics.figures import PROTOCOLS
    from util.device import cpu_cores

    parser = Parser(prog="python -m script.metrics", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--gt_path", required=True, help="folder of the ground truth")
    add(
        "--distorated_path", "--distorted_path", required=True,
        help="folder of the results: SOURCE_2_TARGET_vis.jpg or .png",
    )  # fmt: skip
    add(
        "--mixed_results", action="store_true",
        help="score results of several runs of test.py together, which results.csv tells apart",
    )  # fmt: skip
    add(
        "--fid_real_path",
        help="real images for FID and KID: by protocol the whole training set; or, for FID, their "
        "statistics: an .npz file with mu and sigma",
    )
    add("--name", help="name of the report; None is the results folder's")
    add("--output", default="./eval_results", help="folder of the reports")
    add("--protocol", choices=PROTOCOLS, default="gfla", help="whose figures")
    add("--figures", help="only these, separated by commas; None is all that the options allow")
    add("--calculate_mask", action="store_true", help="also score the body alone")
    add("--annotation", help="table of key points, for --calculate_mask")
    add(
        "--mask_pose", choices=("target", "source"), default="target",
        help="whose body the masks are; PG2's own scorer took the source by mistake",
    )  # fmt: skip
    add_keypoint_options(parser, None)
    add("--flow_path", help="folder of true flow (synthetic data); results need --save_flow")
    add(
        "--gallery",
        type=non_negative_int,
        default=0,
        metavar="N",
        help="show N worst, median, best",
    )
    add("--gallery_by", help="figure that ranks the gallery; None is LPIPS, else SSIM")
    add("--inception_weights", help="FID-Inception-2015 file; None downloads it")
    add("--imagenet_inception_weights", help="torchvision's inception_v3 file; None downloads it")
    add("--lpips_weights", help="torchvision's alexnet file; None downloads it")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 …")
    add("--batch_size", type=positive_int, default=16, help="pictures at a time in the networks")
    add("--workers", type=non_negative_int, default=cpu_cores(), help="decoding processes")
    add("--cache_dir", help="statistics of real sets; None is OUTPUT/real_statistics")
    add("--scratch_dir", help="without effect: there are no temporary files any more")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the program; gives its exit code.

    Raises:
        UserError: bad options or folders.
    """
    from script.metrics.run import run_metrics

    options = build_metrics_parser().parse_all(arguments)
    return run_metrics(options)


if __name__ == "__main__":
    run_program(main)
