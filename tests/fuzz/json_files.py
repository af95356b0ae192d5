"""The JSON that programs read back: records of a run, reports, network.json."""

import copy
import json
import random
from pathlib import Path

from script.compare_runs.comparison import Bootstrap
from script.compare_runs.comparison_text import compare_text
from script.compare_runs.runs import read_run
from script.metrics.report import Figure, Report
from script.plot_losses import read_losses
from tests.fuzz.mutations import NASTY_TEXTS, change_inside, mutate_bytes
from util.errors import UserError
from util.run.history import History, read_metrics
from util.run.network_record import read_network_record
from util.run.page import _script_json, _stages

RECORDS = [
    *(
        {"kind": "train", "model": "pose", "iteration": number, "unix_time": 1e9, "epoch": 1,
         "seconds": 0.5, "iterations_per_second": 2.0, "data_wait_seconds": 0.1,
         "learning_rate": 1e-4, "app_gen": 1 / number, "ad_gen": -0.5}
        for number in range(1, 7)
    ),
    {"kind": "eval", "model": "pose", "iteration": 6, "unix_time": 1e9, "L1": 0.1, "pairs": 12},
]  # fmt: skip
NETWORK = {"model": "pose", "dataset_mode": "market", "attn_layer": "2", "kernel_size": "2=5"}
VALUES = (
    *NASTY_TEXTS, None, True, [], {}, 0, -1, 2**53, 2**63, 1e300, -1e300, 5e-324, 0.1,
    {"a": {"b": []}}, [[1]], list(range(1000)), {str(number): number for number in range(1500)},
)  # fmt: skip
# Put in place of the text "<raw>": what json.dumps does not write.
RAW = (
    "NaN", "-Infinity", "1e999", "9" * 1000, "9" * 5000, "[" * 900 + "]" * 900, "[" * 100_000,
    '{"a":1,"a":2}', "0x1", "1e-999", "-0", '"\\ud800"', "\0",
)  # fmt: skip


def _report() -> dict:
    report = Report("r", "gfla", {"images": 2, "formats": ["jpg"], "sizes": ["8x4"]})
    report.figures["FID"] = Figure(20.0, None, "lower", False, 2, "FID; jpg")
    report.figures["KID"] = Figure(3.0, 0.5, "lower", False, 2, "KID; jpg")
    report.left_out["IS"] = "too few"
    report.warnings.append("few images")
    return json.loads(report.to_json())


def _mutated(rng: random.Random, honest: object) -> bytes:
    """Honest JSON of which some values are others, or some bytes."""
    value = copy.deepcopy(honest)
    for _ in range(rng.choice([0, 1, 1, 2])):
        change_inside(rng, value, lambda _: _new(rng))
    text = json.dumps(value).replace('"<raw>"', rng.choice(RAW))
    data = text.encode("utf-8", "surrogatepass")
    return mutate_bytes(rng, data) if rng.random() < 0.4 else data


def _new(rng: random.Random) -> object:
    return "<raw>" if rng.random() < 0.3 else copy.deepcopy(rng.choice(VALUES))


def generate(rng: random.Random, folder: Path) -> None:
    """Write one of each kind, mutated."""
    lines = [
        _mutated(rng, record) if rng.random() < 0.3 else json.dumps(record).encode()
        for record in RECORDS
    ]
    (folder / "metrics.jsonl").write_bytes(b"\n".join(lines) + rng.choice([b"", b"\n", b"\n\n"]))
    (folder / "network.json").write_bytes(_mutated(rng, NETWORK))
    (folder / "metrics.json").write_bytes(_mutated(rng, _report()))
    (folder / "metrics.csv").write_text("result,source,target\na_2_b_vis.jpg,a.png,b.png\n")


def read(folder: Path) -> None:
    """All readers; a damaged record of a run must never be an error."""
    history = History.read(folder)
    _script_json(_stages(folder, history))
    records, left_out = read_metrics(folder / "metrics.jsonl")
    assert history.left_out == left_out and len(records) + left_out <= 3 * len(RECORDS)
    refused = None
    for reader in (
        lambda: read_losses([folder]),
        lambda: read_network_record(folder),
        lambda: _compare(folder),
    ):
        try:
            reader()
        except UserError as error:
            assert str(error).isprintable()
            refused = error
    if refused:
        raise refused


def _compare(folder: Path) -> None:
    run = read_run(folder)
    compare_text([run, run], run, Bootstrap(resamples=100, cluster="none"))
