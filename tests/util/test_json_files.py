"""JSON that the programs read back: what is damaged or hostile is told in a line, in no time."""

import json
import os
import time

import numpy as np
import pytest

from options.base_options import parse_test_options
from script.compare_runs.runs import read_run
from script.make_synthetic_dataset.__main__ import main as make_synthetic_dataset
from script.make_synthetic_dataset.writer import MARKER
from script.metrics.report import Figure, Report
from util.errors import UserError
from util.json_files import LARGEST_FILE, LARGEST_LINE, parse_json, read_json, read_json_lines
from util.run.history import History, read_metrics
from util.run.log import RunLog
from util.run.network_record import read_network_record

NAMES = ",".join(f'"{number}":0' for number in range(20_000))
HOSTILE = {
    "[" * 1000 + "]" * 1000: "levels",
    '{"a":' * 100_000: "levels",
    "[" * 33 + "]" * 33: "more than 32 levels",
    "[" + "1" * 1000 + "]": "a number of 1000 digits",
    "[" + "1" * 5000 + "]": "a number of 5000 digits",
    "[NaN]": "NaN",
    '{"a": -Infinity}': "-Infinity",
    "[1e999]": "a number beyond 1e",
    "[0." + "1" * 1000 + "]": "a number of 1002 characters",
    '{"a": 1, "b": 2, "a": 3}': "'a' twice",
    f"[{{{NAMES}}}]": "20000 names",
    '{"a": 1': "Expecting",
}


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12])
def test_what_is_refused(text, tmp_path):
    with pytest.raises(ValueError, match=HOSTILE[text]):
        parse_json(text)
    path = tmp_path / "metrics.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"metrics\.json: is no valid JSON .+; do it again$"):
        read_json(path, "do it again")
    for reader in (read_run, lambda path: read_network_record(path.parent)):
        (tmp_path / "network.json").write_text(text)
        with pytest.raises(UserError, match=r"\.json: is no valid JSON"):
            reader(path)


def test_honest_values_come_as_json_gives_them():
    deep = "[" * 32 + "]" * 32
    for text in (deep, '{"a": [1, -2.5e-8, null, true, "NaN", {}], "b": {"a": 1e38}}', "3"):
        assert parse_json(text) == json.loads(text)


def test_files_that_are_none(tmp_path):
    path = tmp_path / "network.json"
    os.mkfifo(path)
    with pytest.raises(UserError, match=r"network\.json: is a pipe"):
        read_network_record(tmp_path)
    path.unlink()
    path.touch()
    os.truncate(path, LARGEST_FILE + 1)
    start = time.monotonic()
    with pytest.raises(UserError, match="67,108,865 bytes, 67,108,864 is the most"):
        read_network_record(tmp_path)
    assert time.monotonic() - start < 1
    path.write_bytes(b'{"model": "\xff"}')
    with pytest.raises(UserError, match="no UTF-8"):
        read_network_record(tmp_path)
    path.write_text('{"model": null}')
    with pytest.raises(UserError, match="a value in it is no text; move it away"):
        read_network_record(tmp_path)


RECORD = '{"kind": "train", "model": "pose", "iteration": %s, "loss": %s}\n'


def test_damaged_lines_are_left_out_and_told(tmp_path, capsys):
    good = [RECORD % (number, number / 8) for number in range(1, 4)]
    bad = [
        *(f"{text}\n" for text in HOSTILE),
        RECORD % ("1" * 400, 1),
        RECORD % (2**60, 1),
        RECORD % ("null", 1),
        RECORD % (3, "1" * 400),
        RECORD % (3, "NaN"),
        RECORD % (3, "1e400"),
        RECORD % (3, '1, "loss": 2'),
        RECORD % (3, '1, "x": [{"y": [NaN]}]'),
        RECORD % (4, f'1, "x": {{{NAMES}}}'),
        RECORD % (4, "1, " + ",".join(f'"n{number}": 0' for number in range(1000))),
        '{"kind": "train", "model": null, "iteration": 3}\n',
        "null\n",
        "\0" * 1000 + "\n",
    ]
    path = tmp_path / "metrics.jsonl"
    path.write_text(good[0] + "".join(bad) + "\n" + "".join(good[1:]) + RECORD[:20])
    records, left_out = read_metrics(path)
    assert [record["iteration"] for record in records] == [1, 2, 3]
    assert left_out == len(bad) + 1
    log = RunLog(tmp_path, "pose")
    assert f"metrics.jsonl: {left_out} lines are damaged" in capsys.readouterr().out
    log.losses(1, 5, 0.1, {"loss": 2.0}, 1e-4)
    log.snapshot(5, np.zeros((8, 8, 3), np.uint8))
    curve = History.read(tmp_path).curves("pose", "losses")["loss"]
    assert curve == [(1, 0.125), (2, 0.25), (3, 0.375), (5, 2.0)]


def test_a_line_without_end_is_none(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": 1}\n' + "x" * (3 * LARGEST_LINE) + '\n{"a": 2}\n')
    found = [*read_json_lines(path)]
    assert [value for value in found if value] == [{"a": 1}, {"a": 2}]
    assert found.count(None) == 3


@pytest.mark.parametrize("stops", [True, False])
def test_what_shows_a_run_does_not_end_it(tmp_path, monkeypatch, capsys, stops):
    def fail(*_):
        raise OverflowError("int too large to convert to float")

    log = RunLog(tmp_path, "pose", stops_at_failure=stops)
    monkeypatch.setattr("util.run.log.write_run_page", fail)
    for iteration in (1, 2):
        log.losses(1, iteration, 0.1, {"loss": 2.0}, 1e-4)
        log.snapshot(iteration, np.zeros((8, 8, 3), np.uint8))
    said = capsys.readouterr().out
    assert said.count("NOT RECORDED: web/index.html (OverflowError: int too large") == 1
    assert len(read_metrics(tmp_path / "metrics.jsonl")[0]) == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("value", None), ("value", "20"), ("value", True), ("std", "1"), ("images", None),
        ("images", 2.5), ("per_image", 1), ("protocol", ["a"]), ("better", None), ("more", 1),
    ],
)  # fmt: skip
def test_fields_of_another_kind_in_a_report(tmp_path, field, value):
    report = Report("r", "gfla", {"images": 2})
    report.figures["FID"] = Figure(20.0, None, "lower", False, 2, "FID")
    report.write(tmp_path, tmp_path / "r.csv", [], [])
    assert read_run(tmp_path).figures["FID"].value == 20
    content = json.loads((tmp_path / "metrics.json").read_text())
    content["figures"]["FID"][field] = value
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"metrics\.json: is not as script\.metrics writes it"):
        read_run(tmp_path)


def test_a_marker_that_is_none_protects_the_folder(tmp_path):
    marker = tmp_path / MARKER
    marker.write_text('{"program": "make_synthetic_dataset", "seed": ' + "[" * 100_000)
    with pytest.raises(UserError, match="not empty and holds no synthetic data set"):
        make_synthetic_dataset(
            ["--layout=market", f"--out={tmp_path}", "--identities=2", "--no_flow"]
        )
    assert marker.exists()


def test_a_network_record_says_what_the_weights_are_and_nothing_else(tmp_path):
    """It comes with weights from strangers: no folder to write to, no server to ask."""
    (tmp_path / "run").mkdir()
    record = {
        "model": "pg2", "z_num": "8", "results_dir": "/elsewhere", "dataroot": "/elsewhere",
        "checkpoints_dir": "/elsewhere", "seed": "7", "save_input": "True", "--save_flow": "",
    }  # fmt: skip
    (tmp_path / "run" / "network.json").write_text(json.dumps(record))
    command = ["--name=run", f"--checkpoints_dir={tmp_path}", "--dataset_mode=market"]
    options = vars(parse_test_options(command))
    assert options["model"] == "pg2" and options["z_num"] == 8
    (tmp_path / "run" / "network.json").unlink()
    usual = vars(parse_test_options([*command, "--model=pg2", "--z_num=8"]))
    assert {k: v for k, v in options.items() if v != usual[k]} == {}
