"""Comparing reports: paired differences, their intervals, and what is said about protocols."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from script.compare_runs.comparison import (
    Bootstrap,
    bootstrap_interval,
    cluster_numbers,
    compare_pairs,
)
from script.compare_runs.comparison_text import compare_text
from script.compare_runs.runs import find_run, read_run, read_runs
from script.metrics.pairing import ResultFile
from script.metrics.report import Figure, Report, mean_figure
from tests.support.helpers import assert_one_line_error, run_here, run_python
from util.errors import UserError
from util.pair_names import cuts

BETTER = {"SSIM": "higher", "LPIPS": "lower", "PSNR": "higher"}
PROGRAM = "script/compare_runs.py"
NO_CLUSTERS = Bootstrap(resamples=200, cluster="none")


def write_report(
    folder, rows, *, name=None, image_format="jpg", protocol="torch", fid=None, real="train", **json
):
    """A report as script.metrics writes it; `rows`: scores by SOURCE_2_TARGET."""
    report = Report(
        name or folder.name, "gfla",
        {"ground_truth": "test", "images": len(rows), "formats": [image_format], "sizes": ["8x4"]},
    )  # fmt: skip
    results = f"results: {len(rows)} images, {image_format}"
    if fid is not None:
        text = f"FID; real: {real}; {results}"
        report.figures["FID"] = Figure(fid, None, "lower", False, len(rows), text)
    for figure in dict.fromkeys(figure for row in rows.values() for figure in row):
        values = [row[figure] for row in rows.values() if figure in row]
        report.figures[figure], warning = mean_figure(
            values, BETTER[figure], f"{figure}; {protocol}; {results}"
        )
        if warning:
            report.warnings.append(f"{figure}: {warning}")
    for key, value in json.items():
        setattr(report, key, value)
    files = []
    for pair in rows:
        source, target = cuts(pair)[-1]
        path = Path(f"{pair}_vis.{image_format}")
        files.append(ResultFile(path, pair, Path(f"{target}.png"), Path(f"{source}.png")))
    report.write(folder, folder.with_suffix(".csv"), files, list(rows.values()))
    return folder


def differences(a, b, bootstrap=NO_CLUSTERS):
    comparison = compare_pairs(read_run(a), read_run(b), list(BETTER), bootstrap)
    return {entry.figure: entry for entry in comparison.differences}, comparison


def text_of(*folders, **options):
    runs = read_runs(folders)
    return compare_text(runs, runs[0], NO_CLUSTERS, **options)


# ------------------------------------------------------------------------------- the bootstrap


def interval(values, bootstrap, **options):
    values = np.asarray(values, dtype=float).reshape(-1, 1)
    low, high = bootstrap_interval(values, np.ones_like(values), bootstrap, **options)
    return float(low[0]), float(high[0])


@pytest.mark.parametrize("confidence", [80, 95])
def test_interval_is_that_of_scipy(confidence):
    values = np.random.default_rng(5).gamma(0.5, 2.0, 37)  # skewed: the ends differ in distance
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=200_000, method="percentile",
        confidence_level=confidence / 100, random_state=np.random.default_rng(1), batch=1000,
    ).confidence_interval  # fmt: skip
    found = interval(values, Bootstrap(200_000, confidence, seed=2, cluster="none"))
    # Two standard errors of the mean away, draws move the ends by some 0.012 of one.
    error = 0.04 * values.std() / math.sqrt(37)
    assert found == pytest.approx((expected.low, expected.high), abs=error)


def test_interval_of_clusters_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    clusters = [rng.normal(center, 0.1, rng.integers(1, 9)) for center in rng.normal(0, 1, 12)]
    means = [
        np.concatenate([clusters[number] for number in rng.integers(12, size=12)]).mean()
        for _ in range(20_000)
    ]
    sums = np.array([[values.sum()] for values in clusters])
    counts = np.array([[values.size] for values in clusters])
    low, high = bootstrap_interval(sums, counts, Bootstrap(20_000, 90))
    error = 0.03 * np.std(means)
    assert (low[0], high[0]) == pytest.approx(np.quantile(means, [0.05, 0.95]), abs=2 * error)


def test_interval_does_not_depend_on_chunks_and_repeats_with_its_seed():
    values = np.random.default_rng(0).normal(size=23)
    whole = interval(values, Bootstrap(1000))
    for chunk in (1, 23, 1000):
        assert interval(values, Bootstrap(1000), chunk=chunk) == pytest.approx(whole, abs=1e-12)
    assert interval(values, Bootstrap(1000, seed=1)) != whole


def coverage(samples, bootstrap):
    """Share of samples (of true mean 0) whose interval has 0 in it."""
    hits = 0
    for values, numbers in samples:
        weights = np.bincount(numbers, weights=values)[:, None]
        counts = np.bincount(numbers).astype(float)[:, None]
        low, high = bootstrap_interval(weights, counts, bootstrap)
        hits += bool(low[0] < 0 < high[0])
    return hits / len(samples)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(3)
    samples = [(rng.normal(0, 2, 60), np.arange(60)) for _ in range(600)]
    # Binomial standard deviation 0.016 (0.012); the percentile method is a little narrow.
    assert coverage(samples, Bootstrap(300, 80)) == pytest.approx(0.79, abs=0.04)
    assert coverage(samples, Bootstrap(300, 90)) == pytest.approx(0.89, abs=0.04)


def test_pairs_of_one_person_need_clusters():
    """40 people of 12 pairs that go well or badly together."""
    rng = np.random.default_rng(4)
    numbers = np.repeat(np.arange(40), 12)
    samples = [(np.repeat(rng.normal(0, 1, 40), 12) + rng.normal(0, 1, 480)) for _ in range(300)]
    clustered = coverage([(values, numbers) for values in samples], Bootstrap(300, 90))
    single = coverage([(values, np.arange(480)) for values in samples], Bootstrap(300, 90))
    assert clustered == pytest.approx(0.89, abs=0.05)
    assert single < 0.6


def test_fewer_than_two_clusters_have_no_interval():
    sums, counts = np.array([[3.0, 3.0], [0.0, 1.0]]), np.array([[2.0, 2.0], [0.0, 1.0]])
    low, high = bootstrap_interval(sums, counts, Bootstrap(100))
    assert np.isnan([low[0], high[0]]).all() and np.isfinite([low[1], high[1]]).all()


def test_what_is_drawn_together():
    pairs = [("a", "b"), ("b", "c"), ("a", "x"), ("d", "e"), ("f", "e"), ("g", "h"), ("i", "i_2_j")]

    def groups(cluster):
        numbers = cluster_numbers(pairs, cluster).tolist()
        assert sorted(set(numbers)) == list(range(len(set(numbers))))
        return [numbers.index(number) for number in numbers]

    assert groups("none") == [0, 1, 2, 3, 4, 5, 6]
    assert groups("source") == [0, 1, 0, 3, 4, 5, 6]
    assert groups("target") == [0, 1, 2, 3, 3, 5, 6]
    assert groups("linked") == [0, 0, 0, 3, 3, 5, 6]


def test_clusters_of_a_report(tmp_path):
    rows = {pair: {"SSIM": 0.5} for pair in ("a_2_b", "b_2_c", "d_2_e")}
    folder = write_report(tmp_path / "a", rows)
    assert read_run(folder).pairs == list(rows)
    other = write_report(tmp_path / "b", rows)
    assert differences(folder, other, Bootstrap(100))[0]["SSIM"].clusters == 2


# --------------------------------------------------------------------------- paired differences


def test_known_differences(tmp_path):
    rng = np.random.default_rng(0)
    base = {f"s{n}_2_t{n}": {"SSIM": rng.random(), "LPIPS": rng.random()} for n in range(40)}
    shifts = np.where(np.arange(40) < 30, 0.2, -0.2)  # 30 up, 10 down
    run = {
        pair: {"SSIM": row["SSIM"] + shift, "LPIPS": row["LPIPS"] + shift}
        for (pair, row), shift in zip(base.items(), shifts, strict=True)
    }
    run = dict(reversed(run.items()))  # rows are matched by pair, not by place
    found, comparison = differences(
        write_report(tmp_path / "base", base), write_report(tmp_path / "run", run)
    )
    assert (comparison.shared, comparison.only_run, comparison.only_baseline) == (40, 0, 0)
    for figure, entry in found.items():
        assert entry.mean == pytest.approx(0.1) and entry.low < 0.1 < entry.high
        assert entry.pairs == entry.clusters == 40 and entry.infinite == 0 and entry.comparable
        better, worse = (0.75, 0.25) if figure == "SSIM" else (0.25, 0.75)
        assert (entry.better, entry.worse) == (better, worse)
    assert found["SSIM"].verdict == "better" and found["LPIPS"].verdict == "worse"


def test_equal_pairs_are_neither_better_nor_worse(tmp_path):
    rows = {f"s{n}_2_t{n}": {"SSIM": n / 40} for n in range(40)}
    found, _ = differences(write_report(tmp_path / "a", rows), write_report(tmp_path / "b", rows))
    entry = found["SSIM"]
    assert (entry.mean, entry.low, entry.high, entry.better, entry.worse) == (0, 0, 0, 0, 0)
    assert entry.verdict == ""


def test_interval_with_zero_gives_no_verdict(tmp_path):
    a = {f"s{n}_2_t{n}": {"SSIM": 0.5} for n in range(40)}
    b = {f"s{n}_2_t{n}": {"SSIM": 0.5 + 0.1 * (-1) ** n} for n in range(40)}
    found, _ = differences(write_report(tmp_path / "a", a), write_report(tmp_path / "b", b))
    assert found["SSIM"].low < 0 < found["SSIM"].high and found["SSIM"].verdict == ""


def test_only_what_both_have_counts(tmp_path):
    a = {f"s{n}_2_t{n}": {"SSIM": 0.5, "PSNR": 20.0} for n in range(10)}
    b = {f"s{n}_2_t{n}": {"SSIM": 0.6, "PSNR": 21.0} for n in range(2, 15)}
    a["s3_2_t3"] = {"PSNR": 20.0}  # no SSIM
    b["s4_2_t4"]["PSNR"] = math.inf
    a["s5_2_t5"]["PSNR"] = b["s5_2_t5"]["PSNR"] = math.inf
    a["s2_2_t2"]["SSIM"] = math.nan
    folders = write_report(tmp_path / "a", a), write_report(tmp_path / "b", b, image_format="png")
    found, comparison = differences(*folders)
    assert (comparison.shared, comparison.only_run, comparison.only_baseline) == (8, 5, 2)
    assert (found["SSIM"].pairs, found["SSIM"].infinite) == (6, 0)
    assert (found["PSNR"].pairs, found["PSNR"].infinite) == (6, 2)
    assert found["SSIM"].mean == pytest.approx(0.1) and found["PSNR"].mean == pytest.approx(1)
    assert not found["SSIM"].comparable  # jpg against png
    text = text_of(*folders, width=400)
    assert "b and a share 8 pairs; 5 are only in b and 2 only in a, and do not count." in text
    assert "b, PSNR: 2 pairs with an infinite value (identical pictures) do not count." in text


def test_nothing_in_common(tmp_path):
    a = write_report(tmp_path / "a", {"s1_2_t1": {"SSIM": 0.5}})
    b = write_report(tmp_path / "b", {"s2_2_t2": {"SSIM": 0.6}})
    assert differences(a, b)[0] == {}
    assert "b and a share 0 pairs; 1 are only in b" in text_of(a, b)


def test_number_of_images_does_not_spoil_paired_differences(tmp_path):
    rows = {f"s{n}_2_t{n}": {"SSIM": n / 40} for n in range(40)}
    fewer = dict(list(rows.items())[:30])
    found, _ = differences(write_report(tmp_path / "a", rows), write_report(tmp_path / "b", fewer))
    assert found["SSIM"].comparable and found["SSIM"].pairs == 30


# ------------------------------------------------------------------------------------- the text


def rows_of(ssim, lpips, count=3):
    return {f"s{n}_2_t{n}": {"SSIM": ssim + n / 100, "LPIPS": lpips} for n in range(count)}


def table_row(text, name):
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [name])


def test_table_marks_the_best_and_leaves_missing_ones_empty(tmp_path):
    text = text_of(
        write_report(tmp_path / "a", rows_of(0.5, 0.2), fid=20.0),
        write_report(tmp_path / "b", rows_of(0.6, 0.3), left_out={"FID": "no weights"}),
        write_report(tmp_path / "c", rows_of(0.6, 0.2), fid=18.5),
    )
    assert table_row(text, "run") == ["run", "FID", "↓", "SSIM", "↑", "LPIPS", "↓"]
    assert table_row(text, "a") == ["a", "20.0000", "0.5100", "0.2000*"]
    assert table_row(text, "b") == ["b", "0.6100*", "0.3000"]
    assert table_row(text, "c") == ["c", "18.5000*", "0.6100*", "0.2000*"]
    assert "b has no FID: no weights" in text
    assert "!" not in text  # nothing to warn of


def test_one_run_alone_is_its_table(tmp_path):
    text = text_of(write_report(tmp_path / "a", rows_of(0.5, 0.2), fid=20.0, warnings=["few"]))
    assert table_row(text, "a") == ["a", "20.0000", "0.5100", "0.2000"]
    assert "Paired" not in text and "best" not in text and "a: few" in text


def test_different_protocols_are_never_compared_silently(tmp_path):
    folders = [
        write_report(tmp_path / "a", rows_of(0.5, 0.2), fid=20.0, real="train (12 images)"),
        write_report(tmp_path / "b", rows_of(0.6, 0.1), fid=18.0, real="train (10 images)"),
        write_report(tmp_path / "c", rows_of(0.7, 0.1), fid=17.0, real="train (10 images)"),
    ]
    text = text_of(*folders, width=400)
    assert table_row(text, "run") == ["run", "FID", "↓", "!", "SSIM", "↑", "LPIPS", "↓"]
    assert table_row(text, "c") == ["c", "17.0000", "0.7100*", "0.1000*"]
    assert (
        '! FID: the protocol differs: "real: train (12 images)" (a); '
        '"real: train (10 images)" (b, c).' in text
    )
    assert "FID" not in text_of(*folders, figures=["SSIM"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_format": "png"}, "! SSIM, LPIPS: the format differs: jpg (a); png (b)."),
        ({"protocol_text": "v0"}, '! SSIM, LPIPS: the protocol differs: "v1" (a); "v0" (b).'),
        ({"count": 2}, "! SSIM, LPIPS: the number of images differs: 3 (a); 2 (b)."),
    ],
)
def test_each_kind_of_difference_is_said(tmp_path, change, said):
    rows = rows_of(0.5, 0.2, change.get("count", 3))
    a = write_report(tmp_path / "a", rows_of(0.6, 0.1), protocol="v1")
    b = write_report(
        tmp_path / "b", rows, protocol=change.get("protocol_text", "v1"),
        image_format=change.get("image_format", "jpg"),
    )  # fmt: skip
    text = text_of(a, b, width=400)
    assert said in text
    assert "SSIM ↑ !" in text and "*" not in table_row(text, "a")[1]
    # The number of images alone leaves paired differences as they are.
    paired = table_row(text.split("Paired")[1], "b")
    assert ("so there is no verdict" in text) == ("count" not in change)
    assert ("worse" if "count" in change else "!") in paired


def test_size_ground_truth_and_kind_of_protocol_count_too(tmp_path):
    a = write_report(tmp_path / "a", rows_of(0.6, 0.1))
    b = write_report(tmp_path / "b", rows_of(0.6, 0.1))
    content = json.loads((b / "metrics.json").read_text())
    content["protocol"] = "pg2"
    content["results"].update(ground_truth="./test_256", sizes=["8x8", "8x4"])
    (b / "metrics.json").write_text(json.dumps(content))
    text = text_of(a, b, width=400)
    assert "the ground truth differs: test (a); test_256 (b)." in text
    assert "the size differs: 8x4 (a); 8x8, 8x4 (b)." in text
    assert '"--protocol=gfla" (a); "--protocol=pg2" (b).' in text


def test_other_spelling_of_the_ground_truth_is_the_same(tmp_path):
    a = write_report(tmp_path / "a", rows_of(0.6, 0.1))
    b = write_report(tmp_path / "b", rows_of(0.6, 0.1))
    path = b / "metrics.json"
    path.write_text(path.read_text().replace('"ground_truth": "test"', '"ground_truth": "./test/"'))
    assert "!" not in text_of(a, b)


def test_few_clusters_are_said(tmp_path):
    folders = [write_report(tmp_path / name, rows_of(0.5, 0.2)) for name in "ab"]
    assert "Fewer than 20 clusters" in text_of(*folders)
    folders = [write_report(tmp_path / name, rows_of(0.5, 0.2, 20)) for name in "cd"]
    assert "Fewer than" not in text_of(*folders)


def test_wide_tables_are_cut_into_blocks(tmp_path):
    rows = {f"s{n}_2_t{n}": {"SSIM": 0.5, "LPIPS": 0.2, "PSNR": 20.0} for n in range(3)}
    folder = write_report(tmp_path / ("long-name-of-a-run" * 2), rows, fid=20.0)
    lines = text_of(folder, width=60).splitlines()
    assert max(map(len, lines)) <= 60
    assert sum(line.startswith("long-name") for line in lines) == 2
    wide = text_of(folder, width=300)
    assert sum(line.startswith("long-name") for line in wide.splitlines()) == 1


def test_markdown(tmp_path):
    text = text_of(
        write_report(tmp_path / "a", rows_of(0.5, 0.2, 30), name="a|b*"),
        write_report(tmp_path / "b", rows_of(0.6, 0.2, 30)),
        markdown=True,
    )
    lines = text.splitlines()
    assert lines[0] == "| run | SSIM ↑ | LPIPS ↓ |" and lines[1] == "| --- | ---: | ---: |"
    assert lines[2] == r"| a\|b\* | 0.6450 | 0.2000 |" and lines[3] == "| b | **0.7450** | 0.2000 |"
    assert (
        "| b | SSIM ↑ | +0.1000 | [+0.1000, +0.1000] | better | 100.0 % | 0.0 % | 30 | 30 |"
        in lines
    )
    for block in text.split("\n\n"):
        if block.startswith("|"):
            cells = [line.replace(r"\|", "").count("|") for line in block.splitlines()]
            assert len(set(cells)) == 1


HOSTILE = (
    "<img src=x onerror=alert(1)> `a` $b$ ~~c~~ &lt; | # "
    "](javascript:x) https://d\u2028\n# e\x1b[2J"
)


@pytest.mark.parametrize("markdown", [False, True])
def test_what_reports_hold_is_no_markup_and_no_line_of_its_own(tmp_path, markdown):
    rows = rows_of(0.5, 0.2, 30)
    hostile = {"warnings": [HOSTILE], "left_out": {"SSIM": HOSTILE}}
    text = text_of(
        write_report(tmp_path / "a", rows),
        write_report(tmp_path / "b", rows, name=HOSTILE, **hostile),
        markdown=markdown,
    )
    assert text.replace("\n", "").isprintable() and text.count("x1b") >= 3
    assert not any(line.lstrip("- ").startswith("# ") for line in text.splitlines())
    if markdown:
        markup = r"[<`$~&]|\]\(|(?<=https)://|#(?!#)"
        assert not re.search(rf"(?<!\\)({markup})", text.replace("### ", ""))


# ----------------------------------------------------------------------- files, names, mistakes


@pytest.fixture
def reports(tmp_path):
    return [
        write_report(tmp_path / "a", rows_of(0.5, 0.2, 30), fid=20.0),
        write_report(tmp_path / "b", rows_of(0.6, 0.2, 30), fid=19.0),
    ]


def compare_runs(*arguments):
    return run_here(PROGRAM, *map(str, arguments))


def test_as_a_user_starts_it(reports, tmp_path):
    done = run_python("-m", "script.compare_runs", *map(str, reports), "--resamples=200")
    assert done.returncode == 0, done.stderr
    assert table_row(done.stdout, "b") == ["b", "19.0000*", "0.7450*", "0.2000"]
    assert "Paired differences to a" in done.stdout and "[+0.1000, +0.1000]" in done.stdout


def test_options(reports, tmp_path):
    done = compare_runs(
        *reports, "--baseline=b", "--figures=LPIPS,SSIM", "--confidence=90", "--cluster=none",
        "--resamples=100", "--markdown", f"--output={tmp_path}/new/table.md",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / "table.md").read_text() == done.stdout
    assert done.stdout.startswith("| run | LPIPS ↓ | SSIM ↑ |") and "FID" not in done.stdout
    assert "Paired differences to b" in done.stdout and "90 % interval" in done.stdout
    assert "| a | SSIM ↑ | -0.1000 |" in done.stdout and "as if they were indep" in done.stdout


def test_output_over_a_report_is_refused(reports):
    before = (reports[1] / "metrics.csv").read_bytes()
    done = compare_runs(*reports, f"--output={reports[1]}/../{reports[1].name}/metrics.csv")
    assert_one_line_error(done, "--output", "is of a report; give another name")
    assert (reports[1] / "metrics.csv").read_bytes() == before


def test_json_path_is_as_good_as_its_folder(reports):
    by_file = compare_runs(*[folder / "metrics.json" for folder in reports])
    assert by_file.returncode == 0 and by_file.stdout == compare_runs(*reports).stdout


def test_runs_of_one_name_are_told_apart_by_folder(reports, tmp_path):
    same = write_report(tmp_path / "c", rows_of(0.4, 0.2, 30), name="a")
    runs = read_runs([*reports, same])
    assert [run.name for run in runs] == [f"a ({reports[0]})", "b", f"a ({same})"]
    assert find_run(runs, str(same)) is runs[2]
    assert find_run(runs, str(same / "metrics.json")) is runs[2]
    assert find_run(runs, "b") is runs[1]
    with pytest.raises(UserError, match="--baseline: 'a' is the name of several"):
        find_run(runs, "a")


def test_mistakes_on_the_command_line(reports, tmp_path):
    a, b = reports
    missing = tmp_path / "missing"
    (tmp_path / "empty").mkdir()
    for arguments, parts in (
        ([], ["DIR"]),
        ([missing], [f"{missing}: does not exist", "script.metrics"]),
        ([tmp_path / "empty"], ["empty: has no metrics.json", "NAME_metrics"]),
        ([a, b, f"{a}/../a/metrics.json"], ["given twice", f"also as {a}"]),
        ([a, b, "--baseline=x"], ["--baseline: 'x' is none of", str(a), str(b)]),
        ([a, b, "--figures=SSIM,SIMS"], ["--figures: no report has 'SIMS'", "FID, SSIM, LPIPS"]),
        ([a, b, "--resamples=5"], ["--resamples: 5 is too few"]),
        (
            [a, b, "--confidence=100"],
            ["--confidence: '100' is not", "at most 99.99"],
        ),
        ([a, b, "--cluster=person"], ["--cluster"]),
        ([a, b, f"--output={a}/metrics.json/x"], ["metrics.json/x", "cannot be written"]),
    ):
        done = compare_runs(*arguments)
        assert_one_line_error(done, *parts)
        assert "Traceback" not in done.stderr


def damaged(folder, file, old, new):
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "parts"),
    [
        ("metrics.json", '"name"', "name", ["metrics.json: is no valid JSON", "line 3"]),
        ("metrics.json", '"schema": 1', '"schema": 2', ["its schema is 2, this version reads 1"]),
        ("metrics.json", '"schema": 1,', "", ["its schema is None, this version reads 1"]),
        ("metrics.json", '"figures"', '"pictures"', ["is not as script.metrics writes it"]),
        ("metrics.json", '"better": "lower"', '"better": "less"', ["is not as", "FID"]),
        ("metrics.json", '"value": 20.0', '"value": "20"', ["is not as script.metrics writes it"]),
        ("metrics.csv", "SSIM", "SIMS", ["metrics.csv: has no column 'SSIM'", "metrics.json"]),
        ("metrics.csv", "source", "", ["has no column 'source'"]),
        ("metrics.csv", "LPIPS", "LPIPS,LPIPS", ["has several column 'LPIPS'"]),
        ("metrics.csv", "0.5,", "half,", ["metrics.csv, line 2", "half"]),
        ("metrics.csv", "0.5,", "0.5,7,", ["metrics.csv, line 2", "6 cells, expected 5"]),
        ("metrics.csv", "0.5,", ",", ["SSIM has 29 values", "says 30", "not of one run"]),
        (
            "metrics.json", '30,\n   "protocol": "SSIM', '29,\n   "protocol": "SSIM',
            ["SSIM has 30 values", "says 29", "not of one run"],
        ),
        ("metrics.csv", "0.5,", "0.7,", ["mean 0.651667", "mean 0.645", "not of one run"]),
        ("metrics.csv", "s1_2_t1", "s0_2_t0", ["has 2 rows of the pair s0_2_t0"]),
    ],
)  # fmt: skip
def test_damaged_reports(reports, file, old, new, parts):
    damaged(reports[0], file, old, new)
    assert_one_line_error(compare_runs(*reports), str(reports[0]), *parts)


def test_missing_or_unreadable_table(reports):
    (reports[0] / "metrics.csv").write_bytes(b"result,source,target,SSIM,LPIPS\n\xff,,,0,0\n")
    assert_one_line_error(compare_runs(*reports), "metrics.csv: is no UTF-8 text")
    (reports[0] / "metrics.csv").unlink()
    assert_one_line_error(compare_runs(*reports), "metrics.csv: does not exist")
