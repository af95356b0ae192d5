"""Options: the published commands, defaults, what is refused and how it is said."""

import argparse
import importlib
import re
import shlex

import pytest

from models import create_model, find_model
from options.base_options import (
    build_test_parser,
    build_train_parser,
    parse_test_options,
    parse_train_options,
)
from script.options_table import END, START, option_rows, options_markdown, updated
from tests.support.helpers import (
    MARKET,
    PROJECT,
    assert_one_line_error,
    inference_options,
    main_of,
    run_here,
    run_python,
)
from tests.support.helpers import train_options as market_options
from util.command_line import Parser, run_program
from util.device import cpu_cores
from util.errors import UserError
from util.run.folder import options_text

# Word for word as in the documentation of this family of code.
STAGE_1 = (
    "--name=fashion --model=poseflownet --attn_layer=2,3 --kernel_size=2=5,3=3 --gpu_id=0 "
    "--dataset_mode=fashion --dataroot=./dataset/fashion"
)
STAGE_2 = (
    "--name=fashion --model=pose --attn_layer=2,3 --kernel_size=2=5,3=3 --gpu_id=0 "
    "--dataset_mode=fashion --dataroot=./dataset/fashion --continue_train"
)
TEST_FASHION = (
    "--name=pose_fashion_checkpoints --model=pose --attn_layer=2,3 --kernel_size=2=5,3=3 "
    "--gpu_id=0 --dataset_mode=fashion --dataroot=./dataset/fashion "
    "--results_dir=./eval_results/fashion"
)
TEST_MARKET = (
    "--name=pose_market_checkpoints --model=pose --attn_layer=2 --kernel_size=2=3 --gpu_id=0 "
    "--dataset_mode=market --dataroot=./dataset/market --results_dir=./eval_results/market"
)
FASHION = {
    "attn_layer": [2, 3],
    "kernel_size": {2: 5, 3: 3},
    "gpu_ids": [0],
    "dataset_mode": "fashion",
    "dataroot": "./dataset/fashion",
    "load_size": (256, 256),
    "old_size": (256, 176),
}
SHARED_DEFAULTS = {
    "name": "experiment_name",
    "checkpoints_dir": "./result",
    "which_iter": "latest",
    "gpu_ids": [0],
    "structure_nc": 18,
    "image_nc": 3,
    "serial_batches": False,
    "max_dataset_size": None,
    "dataroot": "./dataset/fashion",
    "use_spect_g": False,
    "attn_layer": [2, 3],
    "kernel_size": {2: 5, 3: 3},
}
TRAIN_DEFAULTS = {
    **SHARED_DEFAULTS,
    "phase": "train",
    "continue_train": False,
    "batchSize": 8,
    "display_id": 1,
    "display_port": 8096,
    "iter_count": 1,
    "niter": 5000000,
    "niter_decay": 0,
    "lr_policy": "lambda",
    "lr": 1e-4,
    "display_freq": 1000,
    "print_freq": 1000,
    "eval_iters_freq": 15000,
    "save_latest_freq": 1000,
    "save_iters_freq": 10000,
    "no_html": False,
    "vgg_weights": "imagenet",
    "init_type": "orthogonal",
}
STAGE_1_DEFAULTS = {"lambda_correct": 20.0, "lambda_regularization": 0.01}
STAGE_2_DEFAULTS = {
    "lambda_rec": 5.0,
    "lambda_g": 2.0,
    "lambda_correct": 5.0,
    "lambda_style": 500.0,
    "lambda_content": 0.5,
    "lambda_regularization": 0.0025,
    "gan_mode": "lsgan",
    "ratio_g2d": 0.1,
    "use_spect_d": True,
    "dis_layers": 4,
}


def assert_options(options, expected):
    assert {name: getattr(options, name, None) for name in expected} == expected


@pytest.mark.parametrize(
    ("parse", "command", "expected"),
    [
        (
            parse_train_options,
            STAGE_1,
            {**FASHION, "name": "fashion", "model": "poseflownet", "continue_train": False},
        ),
        (
            parse_train_options,
            STAGE_2,
            {**FASHION, "name": "fashion", "model": "pose", "continue_train": True},
        ),
        (
            parse_test_options,
            TEST_FASHION,
            {
                **FASHION,
                "name": "pose_fashion_checkpoints",
                "model": "pose",
                "results_dir": "./eval_results/fashion",
            },
        ),
        (
            parse_test_options,
            TEST_MARKET,
            {
                "name": "pose_market_checkpoints",
                "model": "pose",
                "attn_layer": [2],
                "kernel_size": {2: 3},
                "gpu_ids": [0],
                "dataset_mode": "market",
                "dataroot": "./dataset/market",
                "results_dir": "./eval_results/market",
                "load_size": (128, 64),
                "old_size": (128, 64),
            },
        ),
    ],
)
def test_published_commands(parse, command, expected):
    assert_options(parse(shlex.split(command)), expected)


def test_defaults():
    stage_1 = parse_train_options(["--model=poseflownet"])
    stage_2 = parse_train_options(["--model=pose"])
    assert_options(stage_1, {**TRAIN_DEFAULTS, **STAGE_1_DEFAULTS})
    assert_options(stage_2, {**TRAIN_DEFAULTS, **STAGE_2_DEFAULTS})
    assert {"display_env", "display_winsize", "display_single_pane_ncols"} <= vars(stage_2).keys()
    assert_options(
        parse_test_options([]),
        {**SHARED_DEFAULTS, "model": "pose", "phase": "test", "batchSize": 1, "save_input": False},
    )


def test_market_settings_are_the_default_of_market():
    expected = {
        "attn_layer": [2],
        "kernel_size": {2: 3},
        "dis_layers": 3,
        "angle": 5,
        "shift": 5,
        "scale": (0.95, 1.05),
    }
    assert_options(market_options(), expected)
    assert_options(inference_options(), {"angle": 0, "shift": 0, "scale": (1.0, 1.0)})


PUBLISHED = {
    "fashion": {
        "attn_layer": [2, 3], "kernel_size": {2: 5, 3: 3}, "dis_layers": 4,
        "angle": 0, "shift": 0, "scale": (1.0, 1.0),
    },
    "market": {
        "attn_layer": [2], "kernel_size": {2: 3}, "dis_layers": 3,
        "angle": 5, "shift": 5, "scale": (0.95, 1.05),
    },
}  # fmt: skip


@pytest.mark.parametrize("mode", ["fashion", "market", "tfrecord"])
def test_published_settings_follow_the_size(mode):
    for size, whose in (("256,256", "fashion"), ("128,64", "market")):
        options = parse_train_options([f"--dataset_mode={mode}", f"--load_size={size}"])
        assert_options(options, PUBLISHED[whose])
        is_told = any(f"are {whose}'s" in line for line in find_model("pose").notes(options))
        assert is_told == (mode not in (whose, "tfrecord"))
        tested = parse_test_options([f"--dataset_mode={mode}", f"--load_size={size}"])
        assert_options(tested, {"attn_layer": PUBLISHED[whose]["attn_layer"], "angle": 0})
        stage_1 = parse_train_options(
            [f"--dataset_mode={mode}", f"--load_size={size}", "--model=poseflownet", "--angle=2"]
        )
        assert_options(stage_1, {**PUBLISHED[whose], "dis_layers": None, "angle": 2})


def test_published_settings_at_other_sizes():
    for mode, expected in PUBLISHED.items():  # those of the data set, as ever
        options = parse_train_options([f"--dataset_mode={mode}", "--load_size=192,128"])
        assert_options(options, expected)
    given = ["--dataset_mode=tfrecord", "--load_size=192,128"]
    with pytest.raises(UserError, match=r"--attn_layer.*--load_size=192,128 is neither"):
        parse_test_options(given)
    advised = ["--attn_layer=2,3", "--kernel_size=2=5,3=3"]
    with pytest.raises(UserError, match=r"--dis_layers.*--load_size=192,128 is neither"):
        parse_train_options([*given, *advised])
    assert_options(parse_train_options([*given, *advised, "--dis_layers=4"]), PUBLISHED["fashion"])


def test_layers_are_sorted():
    options = market_options("--attn_layer=3,1", "--kernel_size=3=3,1=7")
    assert_options(options, {"attn_layer": [1, 3], "kernel_size": {1: 7, 3: 3}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("--gpu_id=-1", []), ("--gpu_ids=-1", []), ("--gpu_ids=1", [1]), ("--gpu_id=1,0", [1, 0])],
)
def test_gpu_ids(text, expected):
    assert parse_test_options([text]).gpu_ids == expected
    assert parse_test_options(text.split("=")).gpu_ids == expected


def test_never_more_workers_than_cores(monkeypatch):
    monkeypatch.setattr("options.base_options.cpu_cores", lambda: 3)
    assert parse_train_options([]).nThreads == 3
    assert parse_train_options(["--nThreads=2"]).nThreads == 2


@pytest.mark.parametrize("value", ["false", "False", "0", "no"])
def test_switches_that_are_on_can_be_turned_off(value):
    assert parse_train_options(["--use_spect_d", value]).use_spect_d is False
    assert parse_train_options(["--use_spect_g"]).use_spect_g is True


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--lr_polcy=step"], ["--lr_polcy", "--lr_policy"]),
        (["--batch_size=8"], ["--batch_size", "--batchSize"]),
        (["--dataroots", "x"], ["--dataroots", "--dataroot?"]),
        (["--lambda_recc=1", "--model=pose"], ["--lambda_recc", "--lambda_rec?"]),
        (["--qqqqqq"], ["--qqqqqq", "--help"]),
        (["latest"], ["'latest'"]),
        (["--nam=x"], ["--nam", "--name"]),  # no abbreviations: the next version may add --names
    ],
)
def test_unknown_option_names_the_nearest(arguments, parts):
    with pytest.raises(UserError) as error:
        parse_train_options(arguments)
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--attn_layer=2"], ["--kernel_size", "got 2 and 2=5,3=3: give both"]),
        (["--kernel_size=2=5"], ["--attn_layer", "got 2,3 and 2=5: give both"]),
        (["--attn_layer=2,3", "--kernel_size=2=5"], ["--kernel_size", "got 2,3 and 2=5"]),
        (["--attn_layer=2", "--kernel_size=2=5,3=3"], ["--kernel_size", "got 2 and 2=5,3=3"]),
        (["--attn_layer=2", "--kernel_size=2=4"], ["--kernel_size", "4", "odd"]),
        (["--attn_layer=2", "--kernel_size=2=1"], ["--kernel_size", "got 1", "layer 2"]),
        (["--attn_layer=4", "--kernel_size=4=3"], ["--attn_layer", "4"]),
        (["--attn_layer=0", "--kernel_size=0=3"], ["--attn_layer", "0"]),
        (["--attn_layer=2,2", "--kernel_size=2=3"], ["--attn_layer", "twice"]),
        (["--attn_layer=2", "--kernel_size=2=3,2=5"], ["--kernel_size", "twice"]),
        (["--attn_layer=two"], ["--attn_layer", "two"]),
        (["--attn_layer=2", "--kernel_size=5"], ["--kernel_size", "2=5,3=3"]),
        (["--attn_layer=2", "--kernel_size=2=5=1"], ["--kernel_size"]),
        (["--load_size=100"], ["--load_size", "100,100", "multiples of 32"]),
        (["--load_size=32"], ["--load_size", "32,32", "from 64 on"]),
        (["--load_size=64", "--attn_layer=3", "--kernel_size=3=9"], ["--kernel_size: 9", "8 by 8"]),
        (["--dis_layers=9"], ["--dis_layers: 9 blocks", "give 8 at most"]),
        (["--seed=2147483648"], ["--seed", "2147483648"]),
        (["--seed=-1"], ["--seed", "-1"]),
        (["--lr=-1"], ["--lr", "-1"]),
        (["--lr=nan"], ["--lr", "nan"]),
        (["--ratio_g2d=-0.1"], ["--ratio_g2d"]),
        (["--lambda_rec=inf"], ["--lambda_rec", "inf"]),
        (["--lr_gamma=0"], ["--lr_gamma"]),
        (["--batchSize=0"], ["--batchSize", "0"]),
        (["--niter=-1"], ["--niter"]),
        (["--lr=fast"], ["--lr", "fast"]),
        (["--gpu_ids=one"], ["--gpu_id", "one"]),
        (["--lr_policy=cosine"], ["--lr_policy", "cosine", "exponent"]),
        (["--gan_mode=vanilla"], ["--gan_mode", "vanilla", "lsgan"]),
        (["--use_spect_d=maybe"], ["--use_spect_d", "maybe"]),
        (["--model=posenet"], ["--model", "posenet", "poseflownet"]),
        (["--model=base"], ["--model", "base"]),
        (["--dataset_mode=market1501"], ["--dataset_mode", "market1501", "market"]),
        (["--name=a/b"], ["--name", "a/b"]),
        (["--name=.."], ["--name"]),
        (["--name"], ["--name: expected one argument"]),
        (["--name", "-x"], ["argument --name: expected one argument; ", "write --name=-x"]),
        (["--dataroot", "-$x"], ["write '--dataroot=-$x'"]),
        (["--niter=1", "--name", "--lr", "3"], ["if '--lr' is meant, write --name=--lr"]),
        (["--load_size=65504"], ["--load_size", "'65504' has more than 89478485 pixels"]),
    ],
)
def test_bad_values_are_refused_by_name(arguments, parts):
    with pytest.raises(UserError) as error:
        parse_train_options(arguments)
    text = str(error.value)
    assert "\n" not in text
    assert all(part in text for part in parts), text


@pytest.mark.parametrize("model", ["poseflownet", "pose", "pg2"])
@pytest.mark.parametrize(
    ("build", "parse"),
    [(build_train_parser, parse_train_options), (build_test_parser, parse_test_options)],
)
def test_numbers_out_of_range_are_refused_at_the_option(build, parse, model):
    """Else they end in a traceback, or in a training that is lost at its first step."""
    chosen = ["--dataset_mode=market", f"--model={model}"]
    numeric = {
        action.option_strings[0]
        for action in build(chosen)._actions
        if action.type is not None and isinstance(action.default, int | float | tuple)
    } | {"--max_dataset_size"}
    numeric -= {"--tf32", "--fused_optimizer", "--use_spect_d", "--use_spect_g"}
    assert len(numeric) > 5
    for option in numeric:
        for value in ("nan", "inf", "-inf", "1e39", "1e20", "1" + "0" * 20, "9" * 5000, "", "x"):
            with pytest.raises(UserError) as error:
                parse([*chosen, f"{option}={value}"])
            text = str(error.value)
            assert option in text and "\n" not in text and len(text) < 300, text
        for value in ("-1", "-9"):
            if option != "--display_id":  # turns visdom off, as 0 does
                with pytest.raises(UserError, match=option):
                    parse([*chosen, f"{option}={value}"])


PROGRAMS = [
    *("train", "test"),
    *(f"script.{path.stem}" for path in (PROJECT / "script").glob("[a-z]*.py")),
]


def parser_of(program, monkeypatch):
    """The parser with which a program reads its command line, with nothing required."""
    caught = []

    def parse_all(parser, arguments=None):
        caught.append(parser)
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Parser, "parse_all", parse_all)
        patch.setattr("sys.argv", [program])
        main_of(program)()
    for action in caught[0]._actions:
        action.required = False
    return caught[0]


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_option_of_any_program_takes_what_is_no_value(program, monkeypatch):
    """Else an unset $DATA in --dataroot=$DATA writes where the user stands, or is passed over."""
    parser = parser_of(program, monkeypatch)
    for action in parser._actions:
        if action.nargs == 0 or not action.option_strings:
            continue
        values = ["", " ", "a" * 300, "a/" * 3000]
        if any(kind in repr(action.type) for kind in ("whole_number", "real_number", "size")):
            values += ["nan", "inf", "-inf", "1e39", "1e20", "9" * 5000, "x"]
        option = action.option_strings[0]
        for value in values:
            with pytest.raises(UserError) as error:
                parser.parse_known_args([f"{option}={value}"])
            text = str(error.value)
            assert option in text and "\n" not in text, text


def test_a_list_may_be_longer_than_a_name(monkeypatch):
    names = ",".join(["correctness"] * 60)
    parser = parser_of("script.plot_losses", monkeypatch)
    assert parser.parse_known_args(["run", f"--losses={names}"])[0].losses == names


def test_a_learning_rate_that_grows_out_of_range_is_refused():
    growing = ["--lr_policy=exponent", "--lr_gamma=10", "--lr_decay_iters=10", "--lr=0.001"]
    with pytest.raises(UserError, match=r"--lr_gamma: 10 every 10 iterations"):
        parse_train_options([*growing, "--niter=70"])
    assert parse_train_options([*growing, "--niter=50"]).lr_gamma == 10
    assert parse_train_options([*growing, "--niter=70", "--lr_policy=lambda"]).niter == 70


@pytest.mark.parametrize(
    ("program", "arguments", "parts"),
    [
        ("train.py", ["--model=posenet"], ["--model", "posenet"]),
        ("test.py", ["--dataset_mode=nowhere"], ["--dataset_mode", "nowhere"]),
        ("train.py", [*MARKET, "--dataroot=./no/such/folder"], ["--dataroot", "no/such/folder"]),
        ("test.py", [*MARKET[:2], "--dataroot=./no/such/folder"], ["--dataroot"]),
        ("test.py", ["--batchSize=many"], ["--batchSize", "many"]),
        ("test.py", ["--continue_train"], ["--continue_train"]),
    ],
)
def test_programs_end_with_one_line(program, arguments, parts):
    assert_one_line_error(run_here(program, *arguments), *parts)


def test_missing_files_end_with_one_line(tiny_market, tmp_path):
    data = [*MARKET[:2], f"--dataroot={tiny_market}"]
    folder = f"--checkpoints_dir={tmp_path}"
    missing_net = str(tmp_path / "none" / "7_net_G.pth")
    tested = run_here("test.py", *data, folder, "--name=none", "--which_iter=7")
    assert_one_line_error(tested, "no checkpoint", missing_net)
    continued = run_here(
        "train.py", *data, folder, "--name=none", "--continue_train", "--vgg_weights=random"
    )
    assert_one_line_error(continued, str(tmp_path / "none"), "--name")
    weights = run_here("train.py", *data, folder, "--name=new", "--vgg_weights=./no/vgg19.pth")
    assert_one_line_error(weights, "--vgg_weights", "no/vgg19.pth")
    assert not (tmp_path / "new").exists()  # a run that cannot start leaves nothing behind


def test_a_real_process_ends_with_code_2_and_no_traceback():
    process = run_python("train.py", "--modle=pose")
    assert_one_line_error(process, "--modle", "--model")
    assert process.stdout == ""


@pytest.mark.parametrize("build", [build_train_parser, build_test_parser])
def test_help_shows_every_option(build):
    parser = build(["--dataset_mode=market"])
    text = parser.format_help()
    for action in parser._actions:
        for name in action.option_strings:
            assert name in text
        assert action.help


def test_options_text_has_every_option_on_its_line():
    options = argparse.Namespace(b=[2], a="x", kernel_size={2: 3})
    lines = options_text(options).splitlines()
    assert lines[1:-1] == ["a: x", "b: [2]", "kernel_size: {2: 3}"]


def test_options_table_has_every_option():
    sections = options_markdown().split("## ")
    tables = {section.split("\n")[0]: section for section in sections[1:]}
    parsers = {
        "train.py": [
            build_train_parser([f"--model={model}", "--dataset_mode=market"])
            for model in ("poseflownet", "pose", "pg2")
        ],
        "test.py": [
            build_test_parser([f"--model={model}", "--dataset_mode=market"])
            for model in ("poseflownet", "pose", "pg2")
        ],
    }
    assert tables.keys() == parsers.keys()
    for program, of_program in parsers.items():
        rows = [line for line in tables[program].splitlines() if line.startswith("| `--")]
        assert all(row.count("|") == 4 for row in rows)
        for parser in of_program:
            for names, (default, text) in option_rows(parser).items():
                assert any(
                    row.startswith(f"| {names} | {default} | ") and text in row for row in rows
                ), names


def test_options_table_tells_the_models_apart():
    rows = options_markdown().splitlines()
    rates = [row for row in rows if row.startswith("| `--lambda_correct`")]
    assert len(rates) == 2
    assert any("`20.0`" in row and row.endswith(" [poseflownet] |") for row in rates)
    assert any("`5.0`" in row and row.endswith(" [pose] |") for row in rates)
    assert sum(row.startswith("| `--attn_layer`") for row in rows) == 2  # train.py and test.py
    assert sum("[pose, poseflownet] |" in row for row in rows if "--attn_layer" in row) == 2
    assert sum(row.startswith("| `--angle`") and "[" in row for row in rows) == 2  # PG2: off
    assert all("[" not in row for row in rows if row.startswith("| `--name`"))


def test_the_page_has_the_current_options():
    text = (PROJECT / "docs" / "options.md").read_text(encoding="utf-8")
    assert updated(text) == text, "run python -m script.options_table"


def test_update_changes_only_what_is_between_the_markers():
    text = f"before\n{START}\nold\n{END}\nafter\n"
    new = updated(text)
    assert new.startswith(f"before\n{START}\n") and new.endswith(f"{END}\nafter\n")
    assert "\nold\n" not in new
    assert updated(new) == new
    with pytest.raises(UserError, match=r"docs/options\.md"):
        updated("no markers")


@pytest.mark.parametrize("backend", ["visdom", "tensorboard"])
def test_a_display_whose_package_is_missing_is_left_out(monkeypatch, capsys, backend):
    real = importlib.import_module

    def gone(module):
        if module == f"util.run.display.{backend}_backend":
            raise ModuleNotFoundError(name=backend)
        return real(module)

    monkeypatch.setattr("util.run.display.importlib.import_module", gone)
    options = parse_train_options(["--display_backend=visdom,tensorboard"])
    assert options.display_backend == [x for x in ("visdom", "tensorboard") if x != backend]
    text = capsys.readouterr().err
    assert text.count("\n") == 1 and f"without {backend}: {backend} is not installed" in text


@pytest.mark.parametrize(
    ("module", "package", "advice"),
    [
        ("skimage.draw", "scikit-image", "or pip install scikit-image\n"),
        ("google.protobuf", "protobuf", "or pip install protobuf\n"),
        ("visdom", "visdom", "or run bash script/setup.sh\n"),  # pip alone fails to build it
    ],
)
def test_a_package_that_is_missing_is_one_line(capsys, module, package, advice):
    def main():
        raise ModuleNotFoundError(name=module)

    with pytest.raises(SystemExit) as end:
        run_program(main)
    assert end.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith(f"error: {package} is not installed") and text.endswith(advice)
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("--gpu", "did you mean --gpu_ids?"),
        ("--continue", "did you mean --continue_train?"),
        ("--kernelsize", "did you mean --kernel_size?"),
        ("--data-root", "did you mean --dataroot?"),
        ("--epochs", "see --help"),
        ("--no_flip", "see --help"),
        ("--fineSize", "see --help"),
    ],
)
def test_only_what_is_near_is_proposed(flag, hint):
    with pytest.raises(UserError, match=re.escape(f"unknown option {flag}; {hint}")):
        parse_train_options(["--name=a", flag])


def test_options_of_another_family_are_refused():
    with pytest.raises(UserError, match="--gan_mode is an option of --model=pose"):
        parse_train_options(["--model=pg2", "--dataset_mode=market", "--gan_mode=lsgan"])


def test_every_command_of_the_pages_has_options_that_exist():
    pages = [PROJECT / "README.md", PROJECT / "dataset/README.md", *(PROJECT / "docs").glob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    shared = re.search(r'^R="(.*)"$', text, re.MULTILINE)[1]
    commands = re.findall(r"^(?:timeout .*? )?python (train|test)\.py (--.*)$", text, re.MULTILINE)
    commands += [("train", f"{shared} {rest}") for rest in re.findall(r"train\.py \$R (.*)", text)]
    assert len(commands) > 15
    for program, options in commands:
        parse = parse_train_options if program == "train" else parse_test_options
        parse(shlex.split(options, comments=True))


def test_a_dry_run_says_where_values_are_from_and_writes_nothing(tiny_market, tmp_path):
    arguments = [
        *MARKET, f"--dataroot={tiny_market}", f"--checkpoints_dir={tmp_path / 'runs'}",
        "--vgg_weights=random", "--model=pose", "--lambda_rec=4", "--batchSize=3", "--niter=7",
        "--dry_run",
    ]  # fmt: skip
    done = run_here("train.py", *arguments)
    assert done.returncode == 0, done.stderr
    rows = [re.split("  +", line, maxsplit=2) for line in done.stdout.splitlines()]
    origins = {row[0]: row[1:] for row in rows if len(row) == 3}
    assert origins["lambda_rec"] == ["4.0", "command line"]
    assert origins["lambda_style"] == ["500.0", "preset pose, market"]
    assert origins["kernel_size"] == ["2=3", "preset pose, market"]
    assert origins["load_size"] == ["128,64", "data set market"]
    assert origins["seed"] == ["0", "default"]
    if cpu_cores() < 8:
        assert origins["nThreads"] == [str(cpu_cores()), "follows from the others"]
    parser = build_train_parser(arguments)
    # The value of the CPU is empty.
    assert origins.keys() == parser.names() - {"help", "gpu_ids"}
    networks = create_model(parse_train_options(arguments)).networks
    for name, network in networks.items():
        count = sum(parameter.numel() for parameter in network.parameters())
        assert f"network {name}: {count:,} parameters, on cpu" in done.stdout
    assert "data: 12 pairs of " in done.stdout
    assert f"iterations 1 to 7 of 3 pairs; records would be in {tmp_path}/runs/" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_names_the_record_of_the_run_it_would_go_on_with(tiny_market, tmp_path):
    common = [*MARKET, "--model=pg2", "--name=p", f"--dataroot={tiny_market}"]
    common += [f"--checkpoints_dir={tmp_path}"]
    shapes = ["--ndf=4", "--conv_hidden_num=4", "--z_num=6", "--stage1_steps=1"]
    assert run_here("train.py", *common, *shapes, "--niter=1", "--batchSize=2").returncode == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = run_here("train.py", *common, "--continue_train", "--dry_run")
    assert done.returncode == 0, done.stderr
    record = re.escape(str(tmp_path / "p" / "network.json"))
    assert re.search(rf"^ndf +4 +{record}$", done.stdout, re.MULTILINE)
    assert "iterations 2 to 60000 of 12 pairs" in done.stdout
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
