"""Random mutations of files and options: refused in one line, or read rightly.

Files: the formats of tests/fuzz, each in a child process (tests/fuzz/harness.py).

An outcome is right when it is a UserError of one line; or the result is that of the unmutated
input; or the mutation is a change that the input may have, and the result is what a slow reader,
written apart from the program's in this file, says that it is.
"""

import contextlib
import faulthandler
import io
import random

import pytest

from options.base_options import parse_test_options, parse_train_options
from tests.fuzz.harness import FORMATS, run
from util.errors import UserError

SEED = 20240607
HOSTILE_FILES, OPTIONS = 100, 150  # mutations, of files for each format
SECONDS = 5  # no mutation may take as long
REFUSED = object()


@contextlib.contextmanager
def hang_guard():
    """Ends the tests with a traceback where a mutation hangs."""
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def outcome(function, *arguments, **named):
    """What a function gives, or REFUSED and a message of one line; else it is a defect."""
    try:
        with hang_guard():
            return function(*arguments, **named)
    except UserError as error:
        text = str(error)
        assert text and "\n" not in text and "Traceback" not in text, text
        return REFUSED


# Formats with a module in tests/fuzz


@pytest.mark.parametrize("name", FORMATS)
def test_hostile_files(name, tmp_path):
    counts, findings = run(name, SEED, number=HOSTILE_FILES, keep=tmp_path)
    assert not findings, "\n".join(map(str, findings))
    assert min(counts["read"], counts["refused"]) > HOSTILE_FILES // 50, counts


# Options

READERS = {
    "--name": str,
    "--model": str,
    "--dataset_mode": str,
    "--dataroot": str,
    "--which_iter": str,
    "--batchSize": int,
    "--seed": int,
    "--nThreads": lambda text: min(int(text), 2),
    "--load_size": lambda text: tuple(map(int, text.split(","))),
    "--kernel_size": lambda text: {
        int(part.split("=")[0]): int(part.split("=")[1]) for part in text.split(",")
    },
    "--attn_layer": lambda text: sorted(map(int, text.split(","))),
    "--gpu_ids": lambda text: [int(k) for k in text.split(",") if k.strip() and int(k) >= 0],
    "--max_dataset_size": int,
    "--niter": int,
    "--lr": float,
    "--lr_policy": str,
    "--print_freq": int,
    "--results_format": str,
    "--jpeg_quality": int,
    "--results_dir": str,
}
SHARED = [
    "--name=run", "--model=pose", "--dataset_mode=market", "--dataroot=data", "--which_iter=latest",
    "--seed=3", "--nThreads=1", "--load_size=128,64", "--attn_layer=2,3", "--kernel_size=2=5,3=3",
    "--gpu_ids=0", "--max_dataset_size=7", "--batchSize=4",
]  # fmt: skip
COMMANDS = [
    (parse_train_options, [*SHARED, "--niter=9", "--lr=0.001", "--lr_policy=step",
                           "--print_freq=5"]),
    (parse_test_options, [*SHARED, "--results_format=png", "--jpeg_quality=80",
                          "--results_dir=out"]),
]  # fmt: skip
VALUES = [
    "", " ", "0", "-1", "1", "2", "1e3", "nan", "inf", "٣", "1_0", "0x10", "a", "é", "--", "-", ".",
    "../x",
    "128,64", "64", "2=5", "2=5,3=3", "2=4", "2,2", "pg2", "poseflownet", "fashion", "png", "jpg",
    "9" * 30, "x" * 300, "a\nb", "%s", "None", "True", "=", ",",
]  # fmt: skip


def mutate_command(rng: random.Random, command: list[str]) -> list[str]:
    command = list(command)
    k = rng.randrange(len(command))
    flag, _, value = command[k].partition("=")
    kind = rng.randrange(7)
    if kind == 0:
        place = rng.randrange(2, len(flag))
        flag = rng.choice(
            [flag[:place] + flag[place + 1 :], flag[:place] + flag[place] + flag[place:], flag[1:],
             flag[:place] + flag[place:].swapcase(), flag.upper()]
        )  # fmt: skip
        command[k] = f"{flag}={value}"
    elif kind == 1:
        command[k] = f"{flag}={rng.choice(VALUES)}"
    elif kind == 2:
        command[k] = flag
    elif kind == 3:
        command.insert(rng.randrange(len(command) + 1), rng.choice(VALUES))
    elif kind == 4:
        other = rng.choice(command).partition("=")[2]
        command.insert(rng.randrange(len(command) + 1), f"{flag}={other}")
    elif kind == 5:
        place = rng.randrange(len(value) + 1)
        value = value[:place] + rng.choice(".,=-0x1 é") + value[place:]
        command[k] = f"{flag}={value}"
    else:
        command[k : k + 1] = [flag, value]
    return command


def slow_values(command: list[str]) -> dict[str, str]:
    """The text of every option: the last one given; `--flag value` is `--flag=value`."""
    values, words = {}, [word for word in command if word != "--"]  # argparse drops these
    while words:
        flag, equals, value = words.pop(0).partition("=")
        values[flag] = value if equals else words.pop(0)
    return values


def test_options(monkeypatch):
    monkeypatch.setattr("options.base_options.cpu_cores", lambda: 2)
    rng = random.Random(SEED + 1)
    counts = {"refused": 0, "taken": 0}
    for _ in range(OPTIONS):
        parse, command = COMMANDS[rng.randrange(2)]
        mutated = mutate_command(rng, command)
        with contextlib.redirect_stdout(io.StringIO()):
            found = outcome(parse, mutated)
        if found is REFUSED:
            counts["refused"] += 1
            continue
        counts["taken"] += 1
        for flag, text in slow_values(mutated).items():
            assert vars(found)[flag[2:]] == READERS[flag](text), (flag, text, mutated)
        if found.load_size is not None and found.model == "pose":  # what the network can do
            assert all(side >= 64 and side % 32 == 0 for side in found.load_size)
            assert found.attn_layer == sorted(found.kernel_size)
            assert all(size % 2 for size in found.kernel_size.values())
    assert min(counts.values()) > 20, counts
