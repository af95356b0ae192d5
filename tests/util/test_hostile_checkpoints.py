"""Checkpoints from strangers: refused in one line, or harmless."""

import os
import struct
import warnings
import zipfile

import pytest
import torch
from torch import nn

from models import model_names
from util.checkpoints import load_network, load_training_state, read_model, read_state_dict
from util.errors import UserError
from util.optimizer_states import load_optimizer
from util.pretrained_weights import PretrainedFile

GLOBAL_OF_TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"


def message_of(action, *arguments):
    with pytest.raises(UserError) as caught:
        action(*arguments)
    text = str(caught.value)
    assert text.isprintable()
    return text


def tensor_program(key=b"0", count=4, size=4, stride=1, offset=0):
    """A pickle of {"a": tensor}."""

    def number(value):
        return b"\x8a\x08" + struct.pack("<q", value)

    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX" + struct.pack("<I", len(key)) + key
    storage += b"X\x03\0\0\0cpu" + number(count) + b"tQ"
    arguments = storage + number(offset) + number(size) + b"\x85" + number(stride) + b"\x85\x89N"
    return b"\x80\x02}X\x01\0\0\0a" + GLOBAL_OF_TENSOR + b"(" + arguments + b"tRs."


def write(path, program, records=(("data/0", bytes(16)),), compression=zipfile.ZIP_STORED):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
        warnings.simplefilter("ignore")  # two records of one name
        for name, content in (("data.pkl", program), ("byteorder", b"little"), *records):
            archive.writestr(f"x/{name}", content)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "latest_net_G.pth"


def test_the_honest_one_is_read(path):
    found = read_state_dict(write(path, tensor_program()))
    assert torch.equal(found["a"], torch.zeros(4))


OTHER = ("data/1", bytes(1 << 20))
HOSTILE = {
    "a bomb": ({"records": [("data/0", bytes(16)), OTHER], "compression": zipfile.ZIP_DEFLATED},
               "torch.save packs none"),
    "bzip2": ({"compression": zipfile.ZIP_BZIP2}, "torch.save packs none"),
    "two names": ({"records": [("data/0", bytes(16))] * 2}, "two of its records have one name"),
    "two structures": ({"records": [("../y/data.pkl", b"")]}, "data/0 is absent"),
    "other machine": ({"records": [("byteorder", b"big")]}, "two of its records"),
    "large tensor": ({"program": tensor_program(size=5)}, "larger than its record"),
    "far tensor": ({"program": tensor_program(offset=1 << 40)}, "larger than its record"),
    "wide steps": ({"program": tensor_program(stride=1 << 40)}, "larger than its record"),
    "negative": ({"program": tensor_program(stride=-1)}, "shape is none"),
    "expanded": ({"program": tensor_program(size=5, stride=0)}, "larger than its record"),
    "endless": ({"program": tensor_program(size=1 << 62, stride=0)}, "larger than its record"),
    "large record": ({"program": tensor_program(count=1 << 40)}, "not of 4398046511104 bytes"),
    "short record": ({"records": [("data/0", bytes(15))]}, "not of 16 bytes"),
    "no record": ({"program": tensor_program(key=b"../../x")}, "absent"),
    "a program": ({"program": b"cos\nsystem\n(X\x02\0\0\0lstR."}, "(os.system)"),
    "a codec": ({"program": b"ccodecs\nencode\n(C\x01aX\x03\0\0\0hextR."}, "(codecs.encode)"),
    "a long number": ({"program": b"\x80\x02}\x8b\xff\xff\xff\x7f"}, "cut off"),
    "no stack": ({"program": b"\x80\x02R."}, "takes more than there is"),
    "no list": ({"program": b"}K\x01a."}, "no list"),
    "a tuple for a key": ({"program": b"})" + b"\x85" * 99 + b"K\x01s."}, "a key is neither"),
    "a long key": ({"program": b"}X\xe8\x03\0\0" + b"k" * 1000 + b"K\x01s."}, "up to 500"),
    "a far memo": ({"program": b"}r\xff\xff\xff\xff" + b"0" * 9 + b"."}, "POP"),
    "other operation": ({"program": b"\x80\x02\x82\x01."}, "EXT1"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "part"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_archives(path, changes, part):
    write(path, **{"program": tensor_program(), **changes})
    assert part in message_of(read_state_dict, path)


def test_a_directory_of_many_records(path):
    write(path, tensor_program())
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(40):  # comments stand in the directory, too
            record = zipfile.ZipInfo(f"x/{number}")
            record.comment = b" " * 60_000
            archive.writestr(record, b"")
    assert "its directory of records" in message_of(read_state_dict, path)


def test_sizes_beyond_the_file_are_told_before_memory_is_asked_for(path):
    write(path, tensor_program(count=1 << 28))
    content = bytearray(path.read_bytes())
    place = content.rindex(b"x/data/0") - 26  # sizes in the directory
    content[place : place + 8] = struct.pack("<II", 1 << 30, 1 << 30)
    path.write_bytes(content)
    assert "larger than the file" in message_of(read_state_dict, path)


def test_too_many_operations(path):
    write(path, b"\x80\x02]" + b"Na" * 300_000 + b".")
    assert "more than 250,000 operations" in message_of(read_state_dict, path)


def test_a_list_given_often_does_not_grow(path):
    """What Python 2 wrote: OrderedDict([(key, value), …]), here again and again of one list."""
    pairs = b"](" + b"".join(b"K" + bytes([number]) + b"N\x86" for number in range(250)) + b"e"
    program = b"\x80\x02ccollections\nOrderedDict\nq\0" + pairs + b"\x85q\x01R"
    one = program + b"."
    write(path, one, [])
    assert "holds no state dict" in message_of(read_state_dict, path)
    write(path, program[:-1] + b"R](" + b"h\0h\x01R" * 3000 + b"e\x86.", [])
    assert "too many entries" in message_of(read_state_dict, path)


def test_dictionaries_that_are_shared_at_every_level(path):
    inner = {"weight": torch.ones(2)}
    for _ in range(5):
        inner = {f"k{number}": inner for number in range(300)}
    torch.save(inner, path)
    assert "no state dict" in message_of(read_state_dict, path)


def test_many_prefixes(path):
    """One part of the names for every tensor, and each could be the network's prefix."""
    torch.save({f"{number}.weight": torch.ones(1) for number in range(500)}, path)
    network = nn.LayerNorm(1, bias=False)
    assert "several networks" in message_of(load_network, network, path)


def test_dictionaries_without_end(path):
    torch.save({str(number): {"a": torch.ones(1)} for number in range(1001)}, path)
    assert "more than 1000 dictionaries" in message_of(load_network, nn.Linear(1, 1), path)


def test_numbers_that_go_by_many_names(path):
    """What compares all of a file's tensors would take minutes."""
    tensor = torch.ones(1)
    torch.save({str(number): tensor for number in range(17)}, path)
    assert "under more than 16 names" in message_of(read_state_dict, path)
    torch.save({str(number): tensor for number in range(16)}, path)
    assert len(read_state_dict(path)) == 16


def test_old_form_with_numbers_that_are_not_there(path):
    torch.save({"a": torch.ones(4)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert torch.equal(read_state_dict(path)["a"], torch.ones(4))
    path.write_bytes(content[:-1])
    assert "cut off" in message_of(read_state_dict, path)
    # 4 numbers become 2^31 - 1.
    path.write_bytes(content.replace(b"K\x04N", b"J\xff\xff\xff\x7fN"))
    assert "larger than the file" in message_of(read_state_dict, path)


def test_pipes_and_devices(path):
    os.mkfifo(path)
    assert "is a pipe" in message_of(read_state_dict, path)
    path.unlink()
    path.symlink_to("/dev/zero")
    assert "is a device" in message_of(read_state_dict, path)
    assert read_model(path) is None


@pytest.mark.parametrize("target", ["gone.pth", "latest_state.pth"])
def test_a_state_that_is_a_link_to_nothing_is_not_passed_over(state_path, target):
    """The run would start afresh, and its next save replace the link."""
    state_path.symlink_to(target)
    assert f"it is a link to {target}" in message_of(load_training_state, state_path, model_names())


def test_control_characters_are_printed_with_escapes(path):
    torch.save({"a\x1b[2J\n": {"b": torch.ones(1)}, "c\x1b": {"d": torch.ones(1)}}, path)
    assert "\\x1b[2J\\n" in message_of(read_state_dict, path)
    torch.save({"weight": torch.ones(1, 1), "b\x1b": torch.ones(1)}, path)
    report = load_network(nn.Linear(1, 1, bias=False), path)
    assert str(report).endswith("1 left over (b\\x1b)")
    torch.save({"b\x1b": torch.ones(1)}, path)
    assert "b\\x1b" in message_of(load_network, nn.Linear(1, 1), path)


# Tensors


def quantised():
    return torch.quantize_per_tensor(torch.ones(1, 1), 0.1, 0, torch.qint8)


TENSORS = {
    "meta": (lambda: torch.ones(1, 1, device="meta"), "without its numbers"),
    "quantised": (quantised, "a quantised tensor"),
    "sparse": (lambda: torch.ones(1, 1).to_sparse(), "a sparse tensor"),
    "complex": (lambda: torch.ones(1, 1, dtype=torch.complex64), "complex64"),
    "whole numbers": (lambda: torch.ones(1, 1, dtype=torch.int64), "int64"),
    "beyond float32": (lambda: torch.full((1, 1), 1e300, dtype=torch.float64), "beyond"),
    "NaN": (lambda: torch.full((1, 1), float("nan")), "NaN"),
}


@pytest.mark.filterwarnings("ignore")  # torch's, on quantised and sparse tensors
@pytest.mark.parametrize(("make", "part"), TENSORS.values(), ids=TENSORS)
def test_tensors_of_other_kinds(path, make, part):
    network = nn.Linear(1, 1, bias=False)
    before = network.weight.clone()
    torch.save({"weight": make()}, path)
    assert part in message_of(load_network, network, path)
    assert torch.equal(network.weight, before)
    file = PretrainedFile("--vgg_weights", "vgg", "http://nowhere/vgg-00000000.pth")
    text = message_of(file.load, str(path), {"weight": torch.ones(1, 1)})
    assert "--vgg_weights" in text and part in text


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_widths_are_converted(path, dtype):
    network = nn.Linear(1, 1, bias=False)
    torch.save({"weight": torch.full((1, 1), 2, dtype=dtype)}, path)
    load_network(network, path)
    assert network.weight.dtype == torch.float32 and network.weight.item() == 2


def test_safetensors_that_lie(path):
    library = pytest.importorskip("safetensors.torch")
    library.save_file({"weight": torch.ones(1, 1)}, path)
    content = path.read_bytes()
    for old, new, part in (
        (b"F32", b"F99", "damaged"),
        (b"[0,4]", b"[0,9]", "damaged"),
        (content[:8], struct.pack("<Q", 1 << 27), "header has 134,217,728 bytes"),
        (content[:8], struct.pack("<Q", 1 << 20), "damaged"),
    ):
        path.write_bytes(content.replace(old, new))
        assert part in message_of(read_state_dict, path)


# Training states


@pytest.fixture
def state_path(tmp_path):
    return tmp_path / "latest_state.pth"


def good_state(**changes):
    return {"model": "pose", "iteration": 7, "optimizers": {}, "networks": {}, **changes}


STATES = {
    "a path": {"model": "../../elsewhere"},
    "an absolute path": {"model": "/tmp/elsewhere"},
    "no name": {"model": ["pose"]},
    "a text": {"iteration": "7"},
    "a boolean": {"iteration": True},
    "below 0": {"iteration": -1},
    "no end": {"iteration": 1 << 60},
    "a list": {"optimizers": []},
    "nameless": {"networks": {3: {}}},
    "number": {"networks": 3},
    "run": {"run": 3},
    "options": {"run": {"options": {"lr": 0.1}}},
    "nested": {"run": {"--seed": [[[]]]}},
}


@pytest.mark.parametrize("changes", STATES.values(), ids=STATES)
def test_states_with_fields_of_other_kinds(state_path, changes):
    torch.save(good_state(), state_path)
    assert load_training_state(state_path, model_names())["iteration"] == 7
    torch.save(good_state(**changes), state_path)
    message = message_of(load_training_state, state_path, model_names())
    assert str(state_path) in message and "is not a training state (" in message


def adam_state():
    network = nn.Linear(2, 3)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.5)
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def adam():
    return torch.optim.Adam(nn.Linear(2, 3).parameters(), lr=0.25, betas=(0.5, 0.6))


def test_moments_are_taken_and_options_are_not():
    saved, optimizer = adam_state(), adam()
    saved["param_groups"][0].update(lr=float("nan"), betas="x", foreach=True, other=object())
    load_optimizer(optimizer, saved)
    loaded = optimizer.state_dict()
    assert loaded["param_groups"] == adam().state_dict()["param_groups"]
    for number, one in saved["state"].items():
        for key, value in one.items():
            assert torch.equal(loaded["state"][number][key], value)


@pytest.mark.parametrize("betas", [(0.0, 0.999), (0.5, 0.999), (0.9, 0.999)])
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e15])
def test_moments_of_a_spike_and_of_gradients_that_vanish_are_taken(betas, size):
    """All that a parameter can meet: nothing for long, one gradient, and nothing again."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([parameter], betas=betas)
    for step in range(400):
        parameter.grad = torch.full((1,), size if step in (0, 300, 301) else 0.0)
        optimizer.step()
        load_optimizer(torch.optim.Adam([parameter], betas=betas), optimizer.state_dict())


def changed(number=0, **changes):
    saved = adam_state()
    saved["state"][number] = {**saved["state"][number], **changes}
    return saved


MOMENTS = {
    "shape": lambda: changed(exp_avg=torch.ones(1)),
    "NaN": lambda: changed(exp_avg=torch.full((3, 2), float("nan"))),
    "negative": lambda: changed(exp_avg_sq=-torch.ones(3, 2)),
    "mean beyond its squares": lambda: changed(exp_avg=torch.full((3, 2), 3e38)),
    "both beyond": lambda: changed(
        exp_avg=torch.full((3, 2), 3e38), exp_avg_sq=3e38 * torch.ones(3, 2)
    ),
    "complex": lambda: changed(exp_avg=torch.ones(3, 2, dtype=torch.complex64)),
    "whole": lambda: changed(exp_avg=torch.ones(3, 2, dtype=torch.int64)),
    "no tensor": lambda: changed(exp_avg=[1]),
    "none": lambda: changed(exp_avg=None),
    "steps": lambda: changed(step=torch.tensor(-1.0)),
    "endless steps": lambda: changed(step=float("inf")),
    "half steps": lambda: changed(step=0.5),
    "steps beyond floats": lambda: changed(step=10**400),
    "complex steps": lambda: changed(step=torch.tensor(1j)),
    "tensors": lambda: {**adam_state(), "param_groups": [{"params": [torch.ones(2)] * 2}]},
    "steps in words": lambda: changed(step="two"),
    "many steps": lambda: changed(step=torch.ones(2)),
    "more": lambda: changed(max_exp_avg_sq=torch.ones(3, 2)),
    "another parameter": lambda: {**adam_state(), "state": {-1: adam_state()["state"][1]}},
    "fewer": lambda: {**adam_state(), "param_groups": []},
    "no group": lambda: {**adam_state(), "param_groups": [3]},
    "no state": lambda: {"state": 3, "param_groups": adam_state()["param_groups"]},
    "none at all": lambda: None,
}


@pytest.mark.parametrize("make", MOMENTS.values(), ids=MOMENTS)
def test_moments_that_do_not_fit(make):
    optimizer = adam()
    with pytest.raises(ValueError):
        load_optimizer(optimizer, make())
    assert not optimizer.state


def test_moments_that_share_their_memory_are_kept_apart():
    saved = changed(exp_avg=torch.zeros(1).expand(3, 2))
    optimizer = adam()
    load_optimizer(optimizer, saved)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert optimizer.state[optimizer.param_groups[0]["params"][0]]["exp_avg"].is_contiguous()
