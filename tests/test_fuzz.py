"""500 random mutations of tables, options and checkpoints: refused in one line, or read rightly.

An outcome is right when it is a UserError of one line; or the result is that of the unmutated
input; or the mutation is a change that the input may have, and the result is what a slow reader,
written apart from the program's in this file, says that it is.
"""

import contextlib
import faulthandler
import io
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from market_folder import Folder, annotation_row

from data.annotations import read_pair_table
from data.image_names import list_images
from options.test_options import parse_test_options
from options.train_options import parse_train_options
from util.checkpoints import load_network, load_training_state
from util.errors import UserError

SEED = 20240607
TABLES, OPTIONS, CHECKPOINTS = 250, 150, 100  # mutations
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


def mutate_bytes(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Flips, deletions, insertions, truncation, repetition, or a stretch of another file."""
    data = bytearray(data)
    start = rng.randrange(len(data))
    end = min(len(data), start + rng.choice([1, 1, 2, 8, 64]))
    kind = rng.randrange(7)
    if kind == 0:
        data[start] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del data[start:end]
    elif kind == 2:
        data[start:start] = rng.randbytes(end - start)
    elif kind == 3:
        del data[start:]
    elif kind == 4:
        data[start:start] = data[start:end]
    elif kind == 5:
        data[start:end] = bytes(end - start)
    else:
        place = rng.randrange(len(other))
        data[start:end] = other[place : place + end - start]
    return bytes(data)


# Tables


def mutate_table(rng: random.Random, text: str, separator: str, other: str) -> bytes:
    """A change of bytes; or of the structure: rows, fields, separators, numbers."""
    if rng.random() < 0.5:
        return mutate_bytes(rng, text.encode(), other.encode())
    rows = [line.split(separator) for line in text.splitlines()]
    row = rng.randrange(len(rows))
    kind = rng.randrange(9)
    if kind == 0:
        del rows[row]
    elif kind == 1:
        rows.insert(rng.randrange(len(rows)), rows[row])
    elif kind == 2:
        rng.shuffle(rows[row])
    elif kind == 3:
        rows[row] = rows[row][:-1]
    elif kind == 4:
        rows[row] = rows[row] + [rng.choice(["", "x", "0"])]
    elif kind == 5:
        rng.shuffle(rows)
    elif kind == 6:
        separator = rng.choice([";", "\t", ",", ":", " "])
    elif kind == 7:
        field = rng.randrange(len(rows[row]))
        rows[row][field] = rng.choice(
            ["", "[]", "[1]", '"', "null", "NaN", "é", "../p0.png", "p0.png", "P0.PNG", "[[1]]",
             json.dumps([1e300] * 18), json.dumps([-1] * 18), json.dumps([True] * 18),
             json.dumps([50] * 18), json.dumps([12.5] * 18), json.dumps([-1, *range(17)])]
        )  # fmt: skip
    else:
        rows = [rows[0]] if rng.random() < 0.2 else rows[1:]
    return "\n".join(separator.join(fields) for fields in rows).encode() + b"\n"


def slow_fields(text: str, separator: str) -> list[str]:
    """The fields of a line, character by character: quotes only where a field begins with one."""
    fields, field, quoted, k = [], "", False, 0
    while k < len(text):
        character = text[k]
        if quoted:
            if character == '"' and text[k + 1 : k + 2] == '"':
                field, k = field + '"', k + 1
            elif character == '"':
                quoted = False
            else:
                field += character
        elif character == '"' and not field:
            quoted = True
        elif character == separator:
            fields, field = [*fields, field], ""
        elif character != " " or field:  # blanks after a separator do not count
            field += character
        k += 1
    assert not quoted, "a quoted line break"
    return [part.strip() for part in [*fields, field]]


def slow_rows(data: bytes, separator: str, columns: list[str]) -> list[list[str]]:
    text = data.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    rows = [slow_fields(line, separator) for line in text.split("\n")]
    header, *rows = [row for row in rows if "".join(row)]
    return [
        [row[header.index(name)] for name in columns] for row in rows if len(row) == len(header)
    ]


def slow_pairs(pairs: bytes, annotation: bytes, images: set[str]) -> list:
    """(source, target, their key points) of all pairs, as the two files say."""
    poses = {}
    for name, y, x in slow_rows(annotation, ":", ["name", "keypoints_y", "keypoints_x"]):
        poses.setdefault(name, []).append((y, x))
    found = []
    for source, target in slow_rows(pairs, ",", ["from", "to"]):
        one = [source, target]
        for name in (source, target):
            (((y, x), *others),) = [poses[name]]
            assert name in images and all(other == (y, x) for other in others)
            points = []
            for y1, x1 in zip(json.loads(y), json.loads(x), strict=True):
                is_there = y1 != -1 and x1 != -1
                assert not is_there or (0 <= x1 <= 64 and 0 <= y1 <= 128)
                points.append((float(x1), float(y1)) if is_there else None)
            assert len(points) == 18 and any(points)
            one.append(points)
        found.append(one)
    return found


def table_content(pairs_path: Path, annotation_path: Path, images: Path) -> list:
    table = read_pair_table(pairs_path, annotation_path, images, frame=(128, 64))
    found = []
    for a, b in table.pairs.tolist():
        poses = [
            [None if np.isnan(point).any() else tuple(point.tolist()) for point in table.poses[k]]
            for k in (a, b)
        ]
        found.append([table.files[a], table.files[b], *poses])
    return found


def test_tables(tmp_path):
    rng = random.Random(SEED)
    folder = Folder(tmp_path / "market")
    numbers = np.random.default_rng(1)
    rows = [
        annotation_row(
            name, numbers.integers(0, 128, 18).tolist(), numbers.integers(0, 64, 18).tolist()
        )
        for name in folder.names
    ]
    folder.write_annotation(rows)
    paths = [(folder.pairs, ","), (folder.annotation, ":")]
    texts = [path.read_text() for path, _ in paths]
    place = (folder.pairs, folder.annotation, folder.images)
    original = table_content(*place)
    assert original == slow_pairs(
        *(text.encode() for text in texts), set(list_images(folder.images))
    )
    counts = {"refused": 0, "same": 0, "another": 0}
    for number in range(TABLES):
        k = rng.randrange(2)
        mutated = mutate_table(rng, texts[k], paths[k][1], texts[1 - k])
        paths[k][0].write_bytes(mutated)
        found = outcome(table_content, *place)
        paths[k][0].write_text(texts[k])
        if found is REFUSED:
            counts["refused"] += 1
        elif found == original:
            counts["same"] += 1
        else:
            counts["another"] += 1
            contents = [mutated if j == k else texts[j].encode() for j in range(2)]
            said = slow_pairs(*contents, set(list_images(folder.images)))
            assert found == said, f"mutation {number}: {mutated!r}"
    assert min(counts.values()) > 5, counts  # the mutations reach all three


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


# Checkpoints


def equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


def make_network(seed: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 2, 3))


def loaded_weights(path: Path) -> dict[str, torch.Tensor] | object:
    network = make_network(0)
    report = load_network(network, path)
    if report.missing or report.left_over:  # what the models refuse
        raise UserError(str(report))
    return network.state_dict()


@pytest.mark.filterwarnings("ignore")  # torch's, on pickles of other protocols
def test_checkpoints(tmp_path):
    rng = random.Random(SEED + 2)
    network = make_network(1)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    state = {
        "model": "pose", "iteration": 7, "networks": {"G": network.state_dict()},
        "optimizers": {"G": optimizer.state_dict()},
    }  # fmt: skip
    files = {"net": tmp_path / "latest_net_G.pth", "state": tmp_path / "latest_state.pth"}
    torch.save(network.state_dict(), files["net"])
    torch.save(state, files["state"])
    kept = {name: path.read_bytes() for name, path in files.items()}
    readers = {"net": loaded_weights, "state": load_training_state}
    originals = {name: readers[name](path) for name, path in files.items()}
    counts = {"refused": 0, "same": 0}
    for number in range(CHECKPOINTS):
        name, other = rng.sample(list(files), 2)
        if rng.random() < 0.05:
            shutil.copy(files[other], files[name])
        else:
            files[name].write_bytes(mutate_bytes(rng, kept[name], kept[other]))
        found = outcome(readers[name], files[name])
        files[name].write_bytes(kept[name])
        if found is REFUSED:
            counts["refused"] += 1
        else:
            counts["same"] += 1
            assert equal(found, originals[name]), f"mutation {number} of {name}"
    assert min(counts.values()) > 5, counts
