"""The files of a checkpoint: a save that is cut off at any step, and readers that only read."""

import itertools
import os
import pickle
import resource
import shutil
import signal
import sys

import pytest
import torch

import models.checkpoints
from models import create_model, model_names
from models.checkpoints import load_for_test, load_for_training, save_model
from tests.support.golden_pg2 import pg2_options
from tests.support.helpers import MARKET, assert_one_line_error, run_here, same, train_options
from util import checkpoints, files
from util.checkpoints import (
    load_training_state,
    read_state_dict,
    save_checkpoint,
    write_tensors,
)
from util.errors import UserError
from util.files import remove_leftovers


def content_of(folder, label="latest"):
    """What a checkpoint's files hold, by the names of their parts: 1 and so on, see `networks`."""
    found = {}
    for path in folder.glob(f"{label}_net_*.pth"):
        found[path.stem.removeprefix(f"{label}_net_")] = read_state_dict(path)["a"][0].item()
    state = load_training_state(folder / f"{label}_state.pth", model_names())
    held = state and {key: value["a"][0].item() for key, value in state["networks"].items()}
    return found, held


def networks(value, *keys):
    return {key: {"a": torch.full((3,), float(value))} for key in keys}


STATE = {"model": "pg2", "iteration": 1, "optimizers": {}}


def test_the_state_holds_the_networks_and_no_other_file_stays(tmp_path):
    save_checkpoint(tmp_path, "latest", networks(1, "G1", "G2", "D"), STATE)
    (tmp_path / "latest_net_G2_mine.pth").write_bytes(b"of the user")
    save_checkpoint(tmp_path, 7, networks(2, "G1"), STATE)
    assert content_of(tmp_path, "7") == ({"G1": 2}, {"G1": 2})
    # Back to stage 1: a G2 beside it would pass for this G1's.
    save_checkpoint(tmp_path, "latest", networks(3, "G1"), STATE, absent=["G2", "D"])
    assert (tmp_path / "latest_net_G2_mine.pth").exists()
    (tmp_path / "latest_net_G2_mine.pth").unlink()
    assert content_of(tmp_path) == ({"G1": 3}, {"G1": 3})
    # Weights without a state: the one that is there is of others.
    save_checkpoint(tmp_path, "latest", networks(4, "G1", "G2"))
    assert content_of(tmp_path) == ({"G1": 4, "G2": 4}, None)


def cut_off(lines, action):
    """Do something in a process that ends, without cleaning up, before that many lines of ours.

    Lines of util/checkpoints.py and util/files.py: between any two calls of the system that a save
    makes there is one. Gives whether it was cut off.
    """
    modules = (checkpoints.__file__, files.__file__)
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, 9)
        return code == 9
    left = lines

    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename not in modules:
            return None
        if event == "line":
            if left == 0:
                os._exit(9)
            left -= 1
        return trace

    try:
        sys.settrace(trace)
        action()
        os._exit(0)
    finally:
        os._exit(70)


@pytest.mark.parametrize(
    ("before", "after"),
    [(["G1", "G2", "D"], ["G1", "G2", "D"]), (["G1", "G2", "D"], ["G1"]), ([], ["G1", "G2", "D"])],
    ids=["again", "back to stage 1", "the first save"],
)
def test_cut_off_at_any_step_it_is_the_old_state_or_the_new(tmp_path, before, after):
    """And the plain files are of one checkpoint, whole, never newer than the state."""
    absent = [key for key in before if key not in after]
    outcomes = []
    for lines in itertools.count():
        folder = tmp_path / str(lines)
        if before:
            save_checkpoint(folder, "latest", networks(1, *before), {**STATE, "iteration": 1})
        else:
            folder.mkdir()
        state = {**STATE, "iteration": 2}
        was_cut_off = cut_off(
            lines,
            lambda to=folder, state=state: save_checkpoint(
                to, "latest", networks(2, *after), state, absent
            ),
        )
        plain, held = content_of(folder)
        assert held in ([dict.fromkeys(before, 1)] if before else [None]) + [
            dict.fromkeys(after, 2)
        ]
        number = set(plain.values())
        assert len(number) <= 1, plain
        is_new = held == dict.fromkeys(after, 2)
        if before:
            assert "G1" in plain  # with the first network there is always one to show
        assert is_new or plain == dict.fromkeys(before, 1)
        if number == {2}:
            assert plain.keys() <= set(after)
        outcomes.append(is_new)
        remove_leftovers(folder, ".pth")
        assert not list(folder.glob(".*"))
        save_checkpoint(folder, "latest", networks(3, *after), STATE, absent)  # it goes on
        assert content_of(folder) == (dict.fromkeys(after, 3), dict.fromkeys(after, 3))
        if not was_cut_off:
            break
        shutil.rmtree(folder)
    assert plain == dict.fromkeys(after, 2)
    assert len(outcomes) > 40
    assert outcomes == sorted(outcomes)  # there is one moment from which on the new one counts
    assert not outcomes[0]


def test_all_is_on_the_disk_before_the_first_renaming(tmp_path, monkeypatch):
    """A power cut may otherwise leave the new name with nothing in it, or take the name back."""
    calls, fsync, replace = [], os.fsync, os.replace

    def recorded_fsync(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        calls.append("folder" if path == str(tmp_path) else os.path.basename(path).split(".")[1])
        fsync(descriptor)

    def recorded_replace(source, target):
        calls.append(f"{target.stem} renamed")
        assert os.path.getsize(source)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(os, "replace", recorded_replace)
    save_checkpoint(tmp_path, "latest", networks(1, "G1", "G2"), STATE)
    assert calls == [
        "latest_net_G2", "latest_net_G1", "latest_state",
        "latest_state renamed", "folder", "latest_net_G1 renamed", "folder",
        "latest_net_G2 renamed", "folder",
    ]  # fmt: skip


def test_leftovers_are_removed_by_their_exact_names(tmp_path):
    gone = [".latest_state.pth.12-34.part", ".7_net_G.pth.1-2.part"]
    stay = [
        ".latest.commit", ".latest_state.pth.12345678.new", ".x.part", ".page.html.1-2.part",
        "latest_state.pth.1-2.part", ".a.pth.1-2.part.old", ".a.pth.x-2.part",
    ]  # fmt: skip
    for name in (*gone, *stay):
        (tmp_path / name).write_text("x")
    (tmp_path / ".folder.pth.1-2.part").mkdir()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / gone[0]).write_text("x")
    remove_leftovers(tmp_path, ".pth")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*stay, ".folder.pth.1-2.part", "below"}
    assert (tmp_path / "below" / gone[0]).exists()


@pytest.mark.parametrize("part", ["first network", "last network", "state"])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_failed_save_leaves_the_old_files(tmp_path, monkeypatch, part, failure):
    save_checkpoint(tmp_path, "latest", networks(1, "G1", "G2"), STATE)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    write, calls = checkpoints._write, []

    def failing_write(path, content):
        write(path, content)
        calls.append(path)
        if len(calls) == ["first network", "last network", "state"].index(part) + 1:
            raise failure

    monkeypatch.setattr(checkpoints, "_write", failing_write)
    with pytest.raises((KeyboardInterrupt, UserError)) as raised:
        save_checkpoint(tmp_path, "latest", networks(2, "G1", "G2"), STATE)
    if raised.type is UserError:
        name = {"first network": "net_G2", "last network": "net_G1", "state": "state"}[part]
        expected = f"{tmp_path / f'latest_{name}.pth'}: cannot be written (No space left on device)"
        assert str(raised.value) == expected
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_cannot_be_saved_leaves_the_old_files(tmp_path):
    save_checkpoint(tmp_path, "latest", networks(1, "G"), STATE)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_checkpoint(tmp_path, "latest", networks(2, "G"), {**STATE, "run": lambda: None})
    assert content_of(tmp_path) == ({"G": 1}, {"G": 1})
    assert len(list(tmp_path.iterdir())) == 2


def test_a_disk_that_is_full(tmp_path):
    """The limit on the size of a file stands for it: the system refuses within a write."""
    save_checkpoint(tmp_path, "latest", networks(1, "G"), STATE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(
            UserError, match=r"latest_state\.pth: cannot be written \(File too large"
        ):
            large = {**STATE, "run": {"large": torch.zeros(100_000)}}
            save_checkpoint(tmp_path, "latest", networks(2, "G"), large)
        with pytest.raises(UserError, match=r"batch\.pth: cannot be written \(File too large"):
            write_tensors(tmp_path / "batch.pth", torch.zeros(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, previous)
    assert content_of(tmp_path) == ({"G": 1}, {"G": 1})
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable(tmp_path):
    save_checkpoint(tmp_path, "latest", networks(1, "G"), STATE)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UserError, match="Permission denied"):
            save_checkpoint(tmp_path, "latest", networks(2, "G"), STATE)
    finally:
        tmp_path.chmod(0o700)
    assert content_of(tmp_path) == ({"G": 1}, {"G": 1})


# Which file the weights of a continued training come from, and that reading changes nothing.


def listing(folder):
    """Every path below a folder with its kind, content, permissions and time of change."""
    return {
        path: (stat.st_mode, stat.st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in [folder, *folder.rglob("*")]
        for stat in [path.lstat()]
    }


def as_before(folder, label="latest"):
    """Rewrite a checkpoint as earlier versions did: the weights in the plain files alone."""
    path = folder / f"{label}_state.pth"
    state = torch.load(path, weights_only=True)
    torch.save({**state, "networks": list(state["networks"])}, path)


def make_hostile(folder, outside):
    """What a downloaded folder may hold: a list of files to rename and remove, also outside."""
    outside.write_text("precious")
    (folder / ".latest_net_G.pth.00000000.new").write_bytes(b"other weights")
    (folder / ".latest.commit").write_text(
        '{"token": "00000000", "files": ["latest_net_G.pth"], "remove": ["../precious.txt"]}'
    )
    (folder / ".a.commit").write_text("{")
    (folder / ".latest_net_G.pth.1-2.part").write_bytes(b"half")


@pytest.fixture(scope="module")
def stage_1(tmp_path_factory):
    """Folder with a checkpoint of stage 1 in `person`."""
    root = tmp_path_factory.mktemp("stage 1")
    model = create_model(train_options("--model=poseflownet"))
    save_model(model, root / "person", "latest", 7, {"--seed": 0})
    return root


def flow_model():
    return create_model(train_options("--model=poseflownet"))


def run_test(data, root, results):
    return run_here(
        "test.py", *MARKET[:2], f"--dataroot={data}", f"--checkpoints_dir={root}",
        f"--results_dir={results}", "--name=person", "--nThreads=0", "--model=poseflownet",
        "--max_dataset_size=1",
    )  # fmt: skip


def test_testing_reads_and_nothing_else(tiny_market, stage_1, tmp_path):
    """Root may write everywhere, so that the listing must show it."""
    root = tmp_path / "root"
    shutil.copytree(stage_1, root)
    make_hostile(root / "person", root / "precious.txt")
    for path in (root / "person").iterdir():
        path.chmod(0o400)
    (root / "person").chmod(0o500)
    before = listing(root)
    process = run_test(tiny_market, root, tmp_path / "pictures")
    assert process.returncode == 0, process.stderr
    assert listing(root) == before
    names = {path.suffix for path in (tmp_path / "pictures").iterdir()}
    assert names == {".csv", ".jpg", ".txt"}
    assert "max_dataset_size: 1" in (tmp_path / "pictures" / "test_opt.txt").read_text()


@pytest.mark.parametrize("name", ["poseflownet", "pose"])
@pytest.mark.parametrize("earlier_version", [False, True])
def test_loading_for_training_reads_and_nothing_else(stage_1, tmp_path, name, earlier_version):
    """Also another stage's checkpoint; the folder is changed later, by the run that goes on."""
    shutil.copytree(stage_1, tmp_path / "root")
    folder = tmp_path / "root" / "person"
    if earlier_version:
        as_before(folder)
    make_hostile(folder, tmp_path / "root" / "precious.txt")
    if earlier_version:
        (folder / ".latest.commit").unlink()  # it would be refused, see below
    expected = read_state_dict(folder / "latest_net_G.pth")
    before = listing(tmp_path / "root")
    model = create_model(train_options(f"--model={name}"))
    start = load_for_training(model, folder, "latest")
    assert listing(tmp_path / "root") == before
    assert start.earlier_model == (None if name == "poseflownet" else "poseflownet")
    source = "latest_net_G.pth" if earlier_version else "latest_state.pth, network G"
    assert start.lines[0].startswith(f"{folder / source}: took {len(expected)} tensors (flow_net)")
    found = model.networks["G"].state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_a_save_of_an_earlier_version_that_was_cut_off_is_refused(stage_1, tmp_path):
    """Its files may be of two iterations: it renamed them one by one."""
    shutil.copytree(stage_1 / "person", tmp_path / "person")
    folder = tmp_path / "person"
    (folder / ".latest.commit").write_text("{}")
    assert load_for_training(flow_model(), folder, "latest").iteration == 7
    as_before(folder)
    with pytest.raises(UserError, match=r"\.latest\.commit: .*remove that file.*--which_iter"):
        load_for_training(flow_model(), folder, "latest")
    (folder / ".latest.commit").unlink()
    assert load_for_training(flow_model(), folder, "latest").iteration == 7


def test_another_file_beside_the_state_is_said(stage_1, tmp_path):
    shutil.copytree(stage_1 / "person", tmp_path / "person")
    folder = tmp_path / "person"
    plain, state = folder / "latest_net_G.pth", folder / "latest_state.pth"
    expected = read_state_dict(plain)
    other = {name: value + 1 for name, value in expected.items()}
    for content in (other, {"a": torch.ones(1)}, {k: v.half() for k, v in expected.items()}):
        torch.save(content, plain)
        model = flow_model()
        start = load_for_training(model, folder, "latest")
        assert start.lines[0] == (
            "latest_net_G.pth holds other weights than latest_state.pth, which counts: the next "
            "save replaces it; to start from it move latest_state.pth away"
        )
        assert same(dict(model.networks["G"].state_dict()), expected)
    plain.write_bytes(b"damaged")
    assert (
        "latest_net_G.pth holds other" in load_for_training(flow_model(), folder, "latest").lines[0]
    )
    plain.unlink()  # the state has it all
    assert len(load_for_training(flow_model(), folder, "latest").lines) == 2
    torch.save(other, plain)
    state.rename(folder / "away.pth")  # as the line says
    model = flow_model()
    start = load_for_training(model, folder, "latest")
    assert start.iteration == 0 and "latest_net_G.pth: took" in start.lines[0]
    assert same(dict(model.networks["G"].state_dict()), other)


def test_a_discriminator_put_beside_stage_1_is_said(stage_1, tmp_path):
    shutil.copytree(stage_1 / "person", tmp_path / "person")
    torch.save({"a": torch.ones(1)}, tmp_path / "person" / "latest_net_D.pth")
    model = create_model(train_options("--model=pose"))
    lines = load_for_training(model, tmp_path / "person", "latest").lines
    assert any(line.startswith("latest_net_D.pth holds other weights") for line in lines)
    assert "network D: none in latest_state.pth, starts fresh" in lines


def test_a_state_of_another_family_is_refused(stage_1, tmp_path):
    model = create_model(
        pg2_options("--conv_hidden_num=4", "--z_num=6", "--ndf=4", "--batchSize=1")
    )
    with pytest.raises(UserError, match="holds no network G1, it is of --model=poseflownet"):
        load_for_training(model, stage_1 / "person", "latest")


def test_a_plain_file_that_a_cut_off_save_did_not_write(tiny_market, stage_1, tmp_path):
    shutil.copytree(stage_1 / "person", tmp_path / "person")
    (tmp_path / "person" / "latest_net_G.pth").unlink()
    process = run_test(tiny_market, tmp_path, tmp_path / "pictures")
    assert_one_line_error(process, "latest_net_G.pth", "--continue_train", "--model")


def test_nan_in_a_state_is_refused(stage_1, tmp_path):
    shutil.copytree(stage_1 / "person", tmp_path / "person")
    path = tmp_path / "person" / "latest_state.pth"
    state = torch.load(path, weights_only=True)
    name, value = next(iter(state["networks"]["G"].items()))
    value.view(-1)[0] = float("nan")
    torch.save(state, path)
    with pytest.raises(UserError) as error:
        load_for_training(flow_model(), tmp_path / "person", "latest")
    assert f"{path}, network G: {name} holds NaN" in str(error.value)


@pytest.mark.parametrize("saves", [1, 2, None], ids=["once", "twice", "without end"])
def test_testing_during_a_save_reads_the_networks_of_one(tmp_path, monkeypatch, saves):
    small = ["--conv_hidden_num=4", "--z_num=6", "--ndf=4", "--stage1_steps=1"]
    model = create_model(pg2_options(*small))

    def save(number):
        for network in model.networks.values():
            for parameter in network.parameters():
                parameter.data.fill_(number)
        save_model(model, tmp_path, "latest", 5 + number)

    save(0)
    monkeypatch.setattr(
        model, "networks_to_save", lambda: list(model.networks)
    )  # stage 2, whatever was trained
    save(1)
    reader, load, done = create_model(pg2_options(*small)), models.checkpoints.load_network, []

    def load_and_save(network, path, advise):
        report = load(network, path, advise)
        if "_net_G1" in path.name and (saves is None or len(done) < saves):
            done.append(save(2 + len(done)))
        return report

    monkeypatch.setattr(models.checkpoints, "load_network", load_and_save)
    if saves is None:
        with pytest.raises(UserError, match=r"written anew faster than it is read.*--which_iter"):
            load_for_test(reader, tmp_path, "latest")
        return
    load_for_test(reader, tmp_path, "latest")
    values = {p.mean().item() for net in reader.networks.values() for p in net.parameters()}
    assert values == {1.0 + saves}
