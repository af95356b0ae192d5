"""Options of test.py."""

from util.argument_types import positive_int, whole_number
from util.command_line import Parser

JPEG_QUALITY = 75  # Pillow's default, and that of published results


def add_test_options(parser: Parser) -> None:
    """Add what only inference needs."""
    group = parser.add_argument_group("inference")
    group.add_argument("--phase", default="test", help="which part of the data set to generate")
    group.add_argument(
        "--batchSize",
        type=positive_int,
        default=1,
        help="pairs at a time; does not change the pictures",
    )
    group.add_argument(
        "--results_dir", default="./eval_results", help="folder of the generated pictures"
    )
    group.add_argument(
        "--results_format",
        choices=["jpg", "png"],
        default="jpg",
        help="jpg is what published figures use; the two give different scores",
    )
    group.add_argument(
        "--jpeg_quality",
        type=whole_number(1, 100),
        default=JPEG_QUALITY,
        help="quality of jpg results (75: Pillow's default)",
    )
    group.add_argument(
        "--save_input",
        action="store_true",
        help="also save source, target (inputs/) and side-by-side strips (strips/)",
    )
    group.add_argument(
        "--save_flow",
        action="store_true",
        help="also save the flow (numbers and pictures), mask, warped source and attention (flow/)",
    )
    group.add_argument(
        "--skip_existing",
        action="store_true",
        help="leave out pairs whose result is there, of the same weights, options and images",
    )
