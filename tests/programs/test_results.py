"""Whose a result is: names of pairs, results.csv, and results of several runs in one folder."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models import create_model
from models.checkpoints import save_model
from script.compare_runs.runs import read_run
from script.metrics.__main__ import main as score
from script.metrics.pairing import find_results
from script.metrics.scoring import score_pictures
from tests.support.helpers import MARKET, assert_one_line_error, run_here, train_options
from tests.support.market_folder import Folder, annotation_row
from util.errors import UserError
from util.files import written_whole
from util.pair_names import check_unique, choose_cut, cuts, pair_name
from util.result_table import COLUMNS, TABLE_NAME, ResultRow, read_table, write_table

SHIRT = "MEN-Shirts-id_00001540-03"


def picture(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), (value, value, value)).save(path)
    return path


def row(result: str, source: str, target: str, checkpoint: str = "a" * 64, **options) -> ResultRow:
    options = {"name": "run", "which_iter": "latest", "load_size": [128, 64], **options}
    return ResultRow(result, source, target, json.dumps(options), checkpoint)


def metrics(folder: Path, *arguments: str) -> list[dict[str, str]]:
    score([
        f"--gt_path={folder / 'truth'}", f"--distorated_path={folder / 'results'}",
        f"--output={folder / 'out'}", "--name=x", "--figures=SSIM,L1", "--workers=0",
        "--device=cpu", *arguments,
    ])  # fmt: skip
    with open(folder / "out" / "x_metrics" / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


# Names of pairs.


def test_every_cut_of_a_name():
    assert cuts("a_2_b") == [("a", "b")]
    assert cuts("a_2_b_2_c") == [("a", "b_2_c"), ("a_2_b", "c")]
    assert cuts("a_2_2_b") == [("a", "2_b"), ("a_2", "b")]  # they overlap
    assert cuts("_2_b") == cuts("a_2_") == cuts("a2b") == []
    assert all(pair_name(f"{a}.jpg", f"{b}.png") == "a_2_b_2_c" for a, b in cuts("a_2_b_2_c"))


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ({"a", "b_2_c"}, ("a", "b_2_c")),
        ({"a_2_b", "c"}, ("a_2_b", "c")),
        ({"a", "b_2_c", "c"}, ("a", "b_2_c")),  # both images are there
        ({"b_2_c"}, ("a", "b_2_c")),
        ({"c"}, ("a_2_b", "c")),
        ({"a"}, None),
        (set(), None),
        ({"a", "a_2_b", "b_2_c", "c"}, "tie"),
        ({"b_2_c", "c"}, "tie"),
        ({"a", "c"}, "tie"),  # c may be another's target: the one of a is not there
    ],
)
def test_the_images_tell_where_to_cut(images, expected):
    if expected == "tie":
        with pytest.raises(UserError, match=r"may be from a to b_2_c or from a_2_b to c"):
            choose_cut("a_2_b_2_c", images.__contains__)
    else:
        assert choose_cut("a_2_b_2_c", images.__contains__) == expected


def test_pairs_of_one_name_are_refused():
    check_unique([("x/a.jpg", "x/b.jpg"), ("x/a.jpg", "x/b.jpg")], "pairs.csv")
    for twins in ([("a.jpg", "b_2_c.jpg"), ("a_2_b.jpg", "c.jpg")],
                  [("a.jpg", "b.jpg"), ("a.jpg", "b.png")]):  # fmt: skip
        with pytest.raises(UserError, match=r"pairs\.csv.*both become.*_vis: rename"):
            check_unique(twins, "pairs.csv")
    for twins in ([("A.jpg", "b.jpg"), ("a.jpg", "b.jpg")],
                  [("jos\u00e9.jpg", "b.jpg"), ("jose\u0301.jpg", "b.jpg")]):  # fmt: skip
        with pytest.raises(UserError, match=r"both become.*_vis on macOS and Windows: rename"):
            check_unique(twins, "pairs.csv")


def test_known_flow_of_two_pairs_of_one_name_is_refused(tmp_path):
    folder = Folder(tmp_path, phase="test")
    names = ["a.png", "b_2_c.png", "a_2_b.png", "c.png"]
    for name in names:
        shutil.copy(folder.images / "p0.png", folder.images / name)
    folder.write_annotation([annotation_row(name) for name in names])
    folder.write_pairs(["a.png,b_2_c.png", "a_2_b.png,c.png"])
    folder.dataset()
    (tmp_path / "flow").mkdir()
    assert "both become a_2_b_2_c" in folder.error()


# Scoring.


def test_names_with_the_mark_in_them_are_scored_against_the_right_picture(tmp_path):
    front, side, back = (f"{SHIRT}_{name}" for name in ("1_front", "2_side", "3_back"))
    for value, name in ((10, front), (20, side), (30, back)):
        picture(tmp_path / "truth" / f"{name}.png", value)
    pairs = [(front, side, 20), (front, back, 30), (side, back, 30), (side, front, 10)]
    for source, target, value in pairs:
        picture(tmp_path / "results" / f"{source}_2_{target}_vis.png", value)
    rows = metrics(tmp_path)
    assert all(float(r["L1"]) == 0 for r in rows)
    expected = {(f"{source}.png", f"{target}.png") for source, target, _ in pairs}
    assert {(r["source"], r["target"]) for r in rows} == expected
    run = read_run(tmp_path / "out" / "x_metrics")
    assert set(run.images) == {(source, target) for source, target, _ in pairs}


def test_a_name_that_can_be_cut_in_two_ways_is_refused_unless_the_table_tells(tmp_path):
    for value, name in enumerate(("a", "b_2_c", "a_2_b", "c")):
        picture(tmp_path / "truth" / f"{name}.png", 10 * value)
    picture(tmp_path / "results" / "a_2_b_2_c_vis.png", 10)
    with pytest.raises(UserError, match=r"a_2_b_2_c_vis\.png.*a to b_2_c or from a_2_b to c"):
        metrics(tmp_path)
    write_table(tmp_path / "results", [row("a_2_b_2_c_vis.png", "a.jpg", "b_2_c.jpg")])
    (scored,) = metrics(tmp_path)
    assert (scored["source"], scored["target"]) == ("a.png", "b_2_c.png")
    assert float(scored["L1"]) == 0


def test_the_table_goes_before_the_folder(tmp_path):
    """Only c is there, but the table says that the target is b_2_c."""
    picture(tmp_path / "truth" / "c.png")
    picture(tmp_path / "results" / "a_2_b_2_c_vis.png")
    write_table(tmp_path / "results", [row("a_2_b_2_c_vis.png", "a.jpg", "b_2_c.jpg")])
    (found,) = find_results(tmp_path / "results", tmp_path / "truth").files
    assert found.target is None and "no ground truth b_2_c" in found.problem


def test_decomposed_names_are_found(tmp_path):
    picture(tmp_path / "truth" / "jose\u0301.png")  # as macOS stores it
    picture(tmp_path / "results" / "a_2_jos\u00e9_vis.png")
    (found,) = find_results(tmp_path / "results", tmp_path / "truth").files
    assert found.target is not None


@pytest.fixture
def two_results(tmp_path):
    picture(tmp_path / "truth" / "b.png")
    picture(tmp_path / "truth" / "c.png")
    for name in ("a_2_b_vis.png", "a_2_c_vis.png"):
        picture(tmp_path / "results" / name)
    return tmp_path


def test_no_advice_that_is_refused_next(two_results):
    """--mixed_results takes no two results of one pair."""
    write_table(two_results / "results", [row("a_2_b_vis.png", "a.jpg", "b.jpg")])
    picture(two_results / "results" / "a_2_b_vis.jpg")
    with pytest.raises(UserError, match="are results of one pair: remove one of them"):
        metrics(two_results)


def test_results_that_the_table_does_not_list_are_refused(two_results):
    write_table(two_results / "results", [row("a_2_b_vis.png", "a.jpg", "b.jpg")])
    with pytest.raises(UserError, match=r"1 of 2 pictures are not in results\.csv.*a_2_c_vis"):
        metrics(two_results)
    assert len(metrics(two_results, "--mixed_results")) == 2
    report = json.loads((two_results / "out" / "x_metrics" / "metrics.json").read_text())
    assert any("a_2_c_vis.png" in text for text in report["warnings"])
    (two_results / "results" / "a_2_c_vis.png").unlink()
    assert len(metrics(two_results)) == 1


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"checkpoint": "b" * 64}, "checkpoint aaaaaaaaaaaa .run latest. instead of bbbbbbbbbbbb"),
        ({"load_size": [256, 176]}, r"--load_size \[128, 64\] instead of \[256, 176\]"),
        ({"name": "renamed", "which_iter": "7"}, None),  # the same weights
        ({"new_option": 1}, None),  # of another version
    ],
)
def test_results_of_two_checkpoints_or_options_are_refused(two_results, change, refused):
    rows = [
        row("a_2_b_vis.png", "a.jpg", "b.jpg", **change),
        row("a_2_c_vis.png", "a.jpg", "c.jpg"),
    ]
    write_table(two_results / "results", rows)
    if refused:
        with pytest.raises(UserError, match=refused):
            metrics(two_results)
        assert len(metrics(two_results, "--mixed_results")) == 2
    else:
        assert len(metrics(two_results)) == 2


def test_a_result_that_is_gone_makes_the_report_incomplete(two_results, capsys):
    rows = [row(f"a_2_{name}_vis.png", "a.jpg", f"{name}.jpg") for name in "bcd"]
    write_table(two_results / "results", rows)
    assert len(metrics(two_results)) == 2
    assert "1 results of" in capsys.readouterr().out
    report = json.loads((two_results / "out" / "x_metrics" / "metrics.json").read_text())
    assert "a_2_d_vis.png" in report["problems"][0]


@pytest.mark.parametrize("name", ["a_2_b_vis.png", TABLE_NAME])
def test_results_that_are_written_anew_while_they_are_scored(two_results, monkeypatch, name):
    folder = two_results / "results"
    rows = [row(f"a_2_{target}_vis.png", "a.jpg", f"{target}.jpg") for target in "bc"]
    write_table(folder, rows)

    def score_beside_a_test(*arguments, **named):
        scores = score_pictures(*arguments, **named)
        if name == TABLE_NAME:
            write_table(folder, rows[:1])
        else:
            picture(folder / name, value=9)
        return scores

    monkeypatch.setattr("script.metrics.run.score_pictures", score_beside_a_test)
    assert len(metrics(two_results)) == 2
    report = json.loads((two_results / "out" / "x_metrics" / "metrics.json").read_text())
    assert "were written anew while they were scored" in report["problems"][0]


def test_tables_as_they_may_be(two_results):
    folder = two_results / "results"
    table = folder / TABLE_NAME
    rows = {r.result: r for r in (row("a_2_b_vis.png", "a.jpg", "b\udcff.jpg"),)}
    write_table(folder, rows.values())
    assert read_table(folder) == rows  # a name that is no UTF-8, too
    whole = table.read_bytes()
    table.write_bytes(whole + whole.splitlines(keepends=True)[1][:-9])  # killed while writing
    assert read_table(folder) == rows
    table.write_bytes(b"\xef\xbb\xbf" + whole.replace(b"\n", b"\r\n"))  # as Excel saves it
    assert read_table(folder) == rows
    table.write_bytes(whole + b"a,b\n")
    with pytest.raises(UserError, match=r"results\.csv, line 3: is damaged"):
        read_table(folder)
    table.write_text("name,images,SSIM\nx,2,0.5\n")  # another program's
    assert read_table(folder) is None
    assert len(metrics(two_results)) == 2


def test_a_table_cut_in_a_row_is_told_as_cut(two_results):
    table = two_results / "results" / TABLE_NAME
    write_table(table.parent, [row(f"a_2_{name}_vis.png", "a.jpg", f"{name}.jpg") for name in "bc"])
    table.write_bytes(table.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"results\.csv: is cut .* 1 of 2 pictures, .*a_2_c_vis"):
        metrics(two_results)
    assert len(metrics(two_results, "--mixed_results")) == 2
    (table.parent / "a_2_c_vis.png").unlink()  # that is what a killed run leaves
    assert len(metrics(two_results)) == 1


def test_a_report_does_not_replace_a_table(two_results):
    write_table(two_results / "results", [])
    before = (two_results / "results" / TABLE_NAME).read_bytes()
    with pytest.raises(UserError, match="choose another --name"):
        metrics(two_results, "--name=results", f"--output={two_results / 'results'}")
    assert (two_results / "results" / TABLE_NAME).read_bytes() == before


# test.py.


class Runs:
    """test.py on two pairs with one of two checkpoints, a and b."""

    def __init__(self, root: Path) -> None:
        self.root, self.results = root, root / "results"
        self.folder = Folder(root / "data", phase="test")
        self.folder.write_pairs(["p0.png,p1.png", "p1.png,p2.png"])

    def test(self, name: str, *arguments: str, results: Path | None = None):
        return run_here(
            "test.py", *MARKET[:2], "--model=poseflownet", f"--dataroot={self.root / 'data'}",
            f"--checkpoints_dir={self.root.parent / 'checkpoints'}", f"--name={name}",
            f"--results_dir={results or self.results}", "--nThreads=0", "--results_format=png",
            *arguments,
        )  # fmt: skip

    def pictures(self) -> dict[str, tuple[bytes, int]]:
        found = self.results.glob("*_vis.png")
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("results")
    for name in "ab":
        model = create_model(train_options("--model=poseflownet"))
        save_model(model, root / "checkpoints" / name, "latest", 1)
    return root


@pytest.fixture
def runs(checkpoints, request) -> Runs:
    root = checkpoints / request.node.name
    root.mkdir()
    return Runs(root)


def test_results_tell_their_pair_options_and_weights(runs):
    process = runs.test("a", "--save_input")
    assert process.returncode == 0, process.stderr
    rows = list(read_table(runs.results).values())
    assert [(r.result, r.source, r.target) for r in rows] == [
        ("p0_2_p1_vis.png", "p0.png", "p1.png"), ("p1_2_p2_vis.png", "p1.png", "p2.png"),
    ]  # fmt: skip
    assert (runs.results / TABLE_NAME).read_text().splitlines()[0] == ",".join(COLUMNS)
    assert json.loads(rows[0].options)["load_size"] == [128, 64]
    assert len(rows[0].checkpoint) == 64
    runs.test("b", results=runs.root / "b")
    (other, _) = read_table(runs.root / "b").values()
    assert other.checkpoint != rows[0].checkpoint


def test_skip_existing_keeps_what_is_of_these_weights_alone(runs):
    assert runs.test("a").returncode == 0
    of_a = runs.pictures()
    process = runs.test("a", "--skip_existing", "--batchSize=2")
    assert "2 of 2 results are there" in process.stdout
    assert runs.pictures() == of_a

    assert_one_line_error(
        runs.test("b", "--skip_existing"), "--skip_existing", "2 results", "checkpoint",
        "--results_dir",
    )  # fmt: skip
    process = runs.test("a", "--skip_existing", "--pose_encoding=disc")
    assert_one_line_error(process, "--pose_encoding gaussian instead of disc")
    assert runs.pictures() == of_a

    (runs.results / TABLE_NAME).unlink()  # results of an earlier version
    process = runs.test("a", "--skip_existing")
    assert "2 more are not in results.csv" in process.stdout
    assert "2 images in" in process.stdout
    # What the message advises: without --skip_existing they are made anew.
    assert runs.test("b").returncode == 0
    assert len({r.checkpoint for r in read_table(runs.results).values()}) == 1
    assert runs.test("b", "--skip_existing", "--save_input").stdout.count("0 of 2 results") == 1


def test_skip_existing_does_not_keep_results_of_other_images_or_key_points(runs):
    assert runs.test("a").returncode == 0
    first = runs.folder.images / "p0.png"
    annotation = runs.folder.root / "market-annotation-test.csv"
    made, image, text = runs.pictures(), first.read_bytes(), annotation.read_text()
    skip = ("a", "--skip_existing")
    for change, count in (
        (lambda: first.write_bytes(image + b"more"), 1),  # behind its end: still an image
        (lambda: annotation.write_text(text.replace("[10", "[9")), 2),
    ):
        change()
        said = f"--skip_existing: {count} results", "images or key points were others"
        assert_one_line_error(runs.test(*skip), *said, "--results_dir")
        first.write_bytes(image)
        annotation.write_text(text)
        assert "2 of 2 results are there" in runs.test(*skip).stdout
        assert runs.pictures() == made


def test_results_of_a_version_that_did_not_keep_their_inputs(runs):
    assert runs.test("a").returncode == 0
    table = runs.results / TABLE_NAME
    with open(table, newline="") as file:
        rows = list(csv.reader(file))
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows(row[:5] for row in rows)
    (runs.folder.images / "p0.png").write_bytes((runs.folder.images / "p1.png").read_bytes())
    process = runs.test("a", "--skip_existing")
    assert "2 of 2 results are there" in process.stdout
    assert "2 of them are of an earlier version" in process.stdout
    assert all(r.inputs == "" for r in read_table(runs.results).values())


def test_results_of_an_earlier_run_are_told(runs):
    assert runs.test("a").returncode == 0
    runs.folder.write_pairs(["p0.png,p1.png"])
    process = runs.test("a")
    assert "1 earlier results stay, such as p1_2_p2_vis.png, of the same" in process.stdout
    process = runs.test("b")
    assert "1 earlier results stay, such as p1_2_p2_vis.png, of other weights" in process.stdout
    with pytest.raises(UserError, match="results of several runs"):
        find_results(runs.results, runs.folder.images)
    picture(runs.results / "x_2_y_vis.png")
    process = runs.test("b")
    assert "such as x_2_y_vis.png, not in results.csv" in process.stdout


def test_a_foreign_table_is_not_replaced(runs):
    runs.results.mkdir()
    (runs.results / TABLE_NAME).write_text("mine\n1\n")
    assert_one_line_error(runs.test("a"), TABLE_NAME, "move it away")
    assert (runs.results / TABLE_NAME).read_text() == "mine\n1\n"


def test_flow_of_an_earlier_run_is_not_scored(runs):
    truth = runs.root / "data" / "flow"
    truth.mkdir()
    for pair in ("p0_2_p1", "p1_2_p2"):
        flow, visible = np.zeros((2, 128, 64), np.float32), np.ones((128, 64), bool)
        np.savez(truth / f"{pair}.npz", flow=flow, visible=visible)
    (runs.root / "truth").symlink_to(runs.folder.images)
    assert runs.test("a", "--save_flow").returncode == 0
    arguments = ["--figures=EPE", f"--flow_path={truth}"]
    assert all(r["EPE"] for r in metrics(runs.root, *arguments))
    assert runs.test("b").returncode == 0
    rows = metrics(runs.root, *arguments)
    assert not any(r.get("EPE") for r in rows)
    report = json.loads((runs.root / "out" / "x_metrics" / "metrics.json").read_text())
    assert "other weights" in report["problems"][0]


# Long names.


def rename(folder: Folder, length: int) -> list[str]:
    """Give two images names of so many bytes without the suffix, and pair them."""
    names = [f"{letter * length}.png" for letter in "ab"]
    for name in names:
        shutil.copy(folder.images / "p0.png", folder.images / name)
    folder.write_annotation([annotation_row(name) for name in names])
    folder.write_pairs([",".join(names)])
    return names


def test_names_up_to_the_limit_are_written(runs):
    names = rename(runs.folder, 122)  # 2 * 122 + _2_ + _vis.png = 255
    process = runs.test("a")
    assert process.returncode == 0, process.stderr
    (result,) = runs.pictures()
    assert len(result) == 255 and result.startswith(names[0][:-4])


@pytest.mark.parametrize(
    ("length", "arguments"), [(123, []), (122, ["--save_input"]), (121, ["--save_flow"])]
)
def test_names_over_the_limit_are_told_before_the_first_picture(runs, length, arguments):
    names = rename(runs.folder, length)
    runs.folder.write_pairs([",".join(["p1.png", "p2.png"]), ",".join(names)])
    rows = [annotation_row(name) for name in ("p1.png", "p2.png", *names)]
    runs.folder.write_annotation(rows)
    process = runs.test("a", *arguments)
    assert_one_line_error(process, "--results_dir", names[0], "255 is the longest", "shorter names")
    assert not list(runs.results.rglob("*.png"))


@pytest.mark.parametrize("name", ["a" * 251 + ".jpg", "ä" * 125 + ".pth", "x." + "y" * 250])
def test_a_file_of_any_name_is_written_whole(tmp_path, name):
    with written_whole(tmp_path / name) as temporary:
        temporary.write_text("all")
        assert [path.name for path in tmp_path.iterdir()] == [temporary.name] != [name]
    assert [path.name for path in tmp_path.iterdir()] == [name]
