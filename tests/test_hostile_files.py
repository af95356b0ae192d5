"""Files from strangers: told in one printable line; nothing waits or goes on for ever."""

import os
import random
import socket
import subprocess

import pytest
from torch.utils.data import DataLoader, Dataset

from data.tables import read_rows
from data.worker_failures import explain_failure
from tests.fuzz import harness
from util.errors import UserError, printable
from util.files import is_file_name, regular_file


def message_of(function, *arguments, **named) -> str:
    with pytest.raises(UserError) as caught:
        function(*arguments, **named)
    assert str(caught.value).isprintable()
    return str(caught.value)


# Texts


def test_texts_of_files_are_printed_with_escapes():
    hostile = "a\n\x1b[2J\x9b\u202e\u2028\ufeff\udc80\x00é人"
    expected = r"a\n\x1b[2J\x9b\u202e\u2028\ufeff\udc80\x00é人"
    assert str(UserError(hostile)) == printable(hostile) == expected
    assert printable(expected) == expected  # an error's text that is part of another's
    text = str(UserError(f"start{'x' * 10**6}end"))
    assert len(text) == 4000 and text.startswith("start") and text.endswith("end")
    assert printable(text) == text


class Refusing(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise UserError("C:\\new: row 1\nutil.errors.UserError: \x1b[31mred")


def test_the_text_comes_through_a_data_worker_once():
    with pytest.raises(UserError) as caught:
        list(DataLoader(Refusing(), num_workers=1))
    told = explain_failure(caught.value, None)
    assert str(told) == r"C:\new: row 1\nutil.errors.UserError: \x1b[31mred"


# Files


def test_what_is_no_file_is_told_before_it_is_opened(tmp_path):
    (tmp_path / "file").write_bytes(b"abc")
    assert regular_file(tmp_path / "file").st_size == 3
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    for name, kind in (("pipe", "a pipe"), ("link", "a pipe"), ("socket", "a socket")):
        assert f"{name}: is {kind}, not a file" in message_of(regular_file, tmp_path / name)
    assert "is a folder" in message_of(regular_file, tmp_path)
    assert "is a device" in message_of(regular_file, "/dev/zero")
    assert r"a\x00b: is no name of a file" in message_of(regular_file, "a\0b")
    with pytest.raises(FileNotFoundError):
        regular_file(tmp_path / "none")


def test_names_that_may_be_joined_to_a_folder():
    good = ("a", "latest_net_G.pth", "..a", " ", "é" * 127, "a\nb")
    bad = ("", ".", "..", "a/b", "../a", "a\\b", "a\0", "é" * 128, "\ud800", None, 3, b"a")
    assert all(map(is_file_name, good)) and not any(map(is_file_name, bad))


def test_a_table_that_is_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pairs.csv")
    message = message_of(list, read_rows(tmp_path / "pairs.csv", ("from", "to"), ","))
    assert "pairs.csv: is a pipe" in message


# The fuzzer


class Format:
    """A format whose inputs are numbers, and whose reader does what each of them stands for."""

    __name__ = "format"

    def __init__(self, folder):
        self.readers = [
            lambda: None,
            lambda: self.refuse("a line"),
            lambda: 1 / 0,
            lambda: self.refuse(""),
            lambda: print("\x1b[2J"),
            lambda: open(folder.parent / "written", "w").close(),
            lambda: os.replace(folder / "number", folder / "number"),
            lambda: subprocess.run(["true"]),
        ]

    def refuse(self, text):
        raise UserError(text)

    def generate(self, rng: random.Random, folder):
        (folder / "number").write_text("1")

    def read(self, folder):
        self.readers[self.number]()


@pytest.fixture
def watch():
    return harness._Watch()


def test_the_fuzzer_notices(tmp_path, watch):
    folder = tmp_path / "input"
    folder.mkdir()
    made = Format(folder)
    outcomes = []
    for number in range(len(made.readers)):
        made.number = number
        outcomes.append(harness._outcome(made, watch, 1, number, folder))
    assert outcomes[0] == ["read", ""] and outcomes[1] == ["refused", "a line"]
    assert [outcome[0] for outcome in outcomes[2:]] == ["finding"] * (len(outcomes) - 2)
    texts = ("ZeroDivisionError", "the message ''", "prints", "open", "os.rename", "Popen")
    for (_, what), text in zip(outcomes[2:], texts, strict=True):
        assert text in what
