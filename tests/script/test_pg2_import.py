"""Importing PG2's TensorFlow checkpoints: the golden one as a user does it, and what is refused."""

import json
import shlex

import numpy as np
import pytest
import torch
from PIL import Image

from models.pg2.layouts import LAYOUTS, build_networks
from models.pg2.tensorflow_names import tensorflow_weights
from models.presets import PG2
from script.import_pg2_checkpoint import convert_checkpoint, import_checkpoint, main
from tests.support.helpers import PROJECT, assert_one_line_error, run_here, run_python, save_file
from tests.support.tensorflow_files import golden_arrays, golden_checkpoint, write_checkpoint
from util.errors import UserError
from util.tensorflow.checkpoint import TensorFlowCheckpoint

FILES = ["latest_net_D.pth", "latest_net_G1.pth", "latest_net_G2.pth"]
FIRST = "Pose_AE/G/Conv/weights"


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """The golden variables; the optimiser's, whose bytes the copy lacks, are zeros."""
    genuine = TensorFlowCheckpoint(golden_checkpoint(tmp_path_factory.mktemp("genuine")))
    variables = {}
    for name, variable in genuine.variables.items():
        try:
            variables[name] = genuine.read(name)
        except UserError:
            variables[name] = np.zeros(variable.shape, np.float32)
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model.ckpt-5999", variables)


@pytest.fixture(scope="module")
def expected():
    return golden_arrays("ckpt/expected_sampled.npz")


@pytest.fixture(scope="module")
def imported(golden, tmp_path_factory):
    """The checkpoint folder into which the golden checkpoint was imported as `golden`."""
    folder = tmp_path_factory.mktemp("result")
    main([str(golden), "--name=golden", f"--checkpoints_dir={folder}"])
    return folder


def tensorflow_variables(layout_name="market", hidden=2, latent=3, ndf=1):
    """Numbered variables of a checkpoint of the given form, in TensorFlow's layouts."""
    layout = LAYOUTS[layout_name]
    with torch.device("meta"):
        networks = build_networks(
            layout, layout.size, conv_hidden_num=hidden, z_num=latent, ndf=ndf
        )
    variables = {"global_step": np.array(1234, np.int64), f"{FIRST}/Adam": np.zeros(2, np.float32)}
    for number, (name, weight) in enumerate(tensorflow_weights(layout, layout.size).items()):
        shape = networks[weight.network].state_dict()[weight.parameter].shape
        if len(shape) == 4:
            shape = (shape[2], shape[3], shape[1], shape[0])
        elif len(shape) == 2:
            shape = shape[::-1]
        values = np.arange(np.prod(shape), dtype=np.float32) + number
        variables[name] = values.reshape(shape)
    return variables


def error_of(tmp_path, variables):
    prefix = write_checkpoint(tmp_path / "model.ckpt-9", variables)
    with pytest.raises(UserError) as caught:
        import_checkpoint(prefix, tmp_path / "result")
    assert not (tmp_path / "result").exists()
    message = str(caught.value)
    assert "\n" not in message and str(prefix) in message
    return message


def test_layout_widths_and_what_is_left_over_of_the_golden_checkpoint(golden):
    converted = convert_checkpoint(golden)
    assert converted.layout == "market"
    assert converted.options == {"conv_hidden_num": 8, "z_num": 64, "ndf": 4}
    assert converted.iteration == 5999
    counts = {kind: len(names) for kind, names in converted.unused.items()}
    assert counts == {
        "optimiser slots": 224,
        "powers of Adam's betas": 6,
        "moving averages of the batch norm": 6,
        "counters and learning rates": 3,
    }
    assert sum(map(len, converted.networks.values())) + sum(counts.values()) == 351


def test_networks_with_the_golden_weights_give_the_golden_outputs(imported, expected):
    networks = build_networks(LAYOUTS["market"], (128, 64), conv_hidden_num=8, z_num=64, ndf=4)
    for name, network in networks.items():
        path = imported / "golden" / f"latest_net_{name}.pth"
        network.load_state_dict(torch.load(path, weights_only=True))
    source, target = (
        torch.from_numpy((expected[key].astype(np.float32) - 127.5) / 127.5).permute(0, 3, 1, 2)
        for key in ("x_u8", "x_target_u8")
    )
    poses = golden_arrays("poses.npz")["pose_128x64"][expected["pose_index"]]
    pose = torch.from_numpy(2 * poses.astype(np.float32) - 1).permute(0, 3, 1, 2)
    with torch.no_grad():
        latent, _ = networks["G1"].encode(source, pose)
        coarse = networks["G1"](source, pose)
        refined = coarse + networks["G2"](coarse, source)
        logits = networks["D"](torch.cat([target, source, coarse, refined]))
    stride = int(expected["stride"])
    for name, picture in (("G1", coarse), ("G2", refined)):
        found = picture.permute(0, 2, 3, 1)[:, ::stride, ::stride].numpy()
        assert np.abs(found - expected[name]).max() < 1e-4
    assert np.abs(latent.numpy() - expected["z"]).max() < 1e-4
    assert np.abs(logits.numpy() - expected["D_z"]).max() < 1e-4


def test_the_test_program_generates_the_golden_pictures(imported, expected, tmp_path):
    (tmp_path / "test").mkdir()
    keypoints = golden_arrays("poses.npz")["keypoints_xy_128x64"]
    pairs, rows = ["from,to"], ["name:keypoints_y:keypoints_x"]
    for number, pose in enumerate(expected["pose_index"]):
        x, y = np.nan_to_num(keypoints[pose], nan=-1).T.tolist()
        for kind, key in (("source", "x_u8"), ("target", "x_target_u8")):
            name = f"{number}{kind}.png"
            Image.fromarray(expected[key][number]).save(tmp_path / "test" / name)
            rows.append(f"{name}: {json.dumps(y)}: {json.dumps(x)}")
        pairs.append(f"{number}source.png,{number}target.png")
    (tmp_path / "market-pairs-test.csv").write_text("\n".join(pairs))
    (tmp_path / "market-annotation-test.csv").write_text("\n".join(rows))
    process = run_here(
        "test.py", "--name=golden", "--model=pg2", "--dataset_mode=market", "--gpu_id=-1",
        f"--dataroot={tmp_path}", f"--checkpoints_dir={imported}", "--conv_hidden_num=8",
        "--z_num=64", f"--results_dir={tmp_path / 'out'}", "--results_format=png", "--nThreads=0",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    for number, picture in enumerate(expected["G2_u8"]):
        path = tmp_path / "out" / f"{number}source_2_{number}target_vis.png"
        found = np.array(Image.open(path)).astype(int)
        # The original cuts off the fraction where this program rounds.
        assert set(np.unique(found - picture)) <= {0, 1}


def test_the_program_says_what_it_found_and_how_to_go_on(golden, tmp_path, capsys):
    main([str(golden), "--name=a", f"--checkpoints_dir={tmp_path}"])
    printed = capsys.readouterr().out
    for part in (
        "layout market, --conv_hidden_num=8, --z_num=64, --ndf=4, iteration 5999",
        "G1: 64 tensors, 371,635 parameters",
        "not used: 224 optimiser slots, such as Discriminator.1/Discriminator.1.Biases/Adam",
        f"python test.py --name=a --checkpoints_dir={tmp_path} --model=pg2 --dataset_mode=market\n",
        "--iter_count=6000 --continue_train\n",
    ):
        assert part in printed
    names = {path.name for path in (tmp_path / "a").iterdir()}
    assert names == {"import.txt", "network.json", *FILES}
    record = json.loads((tmp_path / "a" / "network.json").read_text())
    assert (record["model"], record["conv_hidden_num"], record["load_size"]) == (
        "pg2", "8", "128,64",
    )  # fmt: skip
    assert "iteration 5999" in (tmp_path / "a" / "import.txt").read_text()


def test_an_import_does_not_overwrite_another_model(golden, tmp_path):
    folder = tmp_path / "a"
    save_file({"model": "pose"}, folder / "latest_state.pth")
    save_file({"x": torch.zeros(1)}, folder / "latest_net_D.pth")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError, match=r"holds checkpoints of --model=pose.*another --name"):
        main([str(golden), "--name=a", f"--checkpoints_dir={tmp_path}", "--overwrite"])
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_the_printed_commands_run_as_they_are(golden, tiny_market, tmp_path, capsys):
    main([str(golden), "--name=PG2 $1", f"--checkpoints_dir={tmp_path / 'its runs'}"])
    lines = capsys.readouterr().out.splitlines()[-2:]
    (test, train) = (shlex.split(line.partition(" python ")[2]) for line in lines)
    on_cpu = ["--gpu_id=-1", f"--dataroot={tiny_market}", "--nThreads=0"]
    process = run_here(*test, *on_cpu, f"--results_dir={tmp_path / 'out'}")
    assert process.returncode == 0, process.stderr
    process = run_here(
        *train, *on_cpu, "--niter=6000", "--stage1_steps=5999", "--batchSize=2",
        "--eval_iters_freq=0", "--display_id=0", "--print_freq=1",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert "iters: 6000" in process.stdout and "l1_refined" in process.stdout


def test_training_on_ends_after_the_iteration_it_begins_with(golden, tmp_path, capsys, monkeypatch):
    """The released checkpoints are of the last iteration of --niter."""
    monkeypatch.setitem(PG2.named["market"], "niter", 5999)
    main([str(golden), "--name=a", f"--checkpoints_dir={tmp_path}"])
    assert "--iter_count=6000 --niter=11998 --continue_train" in capsys.readouterr().out


@pytest.mark.parametrize("layout", ["market", "fashion"])
def test_every_weight_of_both_layouts_arrives(tmp_path, layout):
    variables = tensorflow_variables(layout)
    prefix = write_checkpoint(tmp_path / "model.ckpt-1234", variables)
    converted = import_checkpoint(prefix, tmp_path / "result")
    assert (converted.layout, converted.iteration) == (layout, 1234)
    assert converted.options == {"conv_hidden_num": 2, "z_num": 3, "ndf": 1}
    networks = build_networks(
        LAYOUTS[layout], LAYOUTS[layout].size, conv_hidden_num=2, z_num=3, ndf=1
    )
    for name, network in networks.items():
        path = tmp_path / "result" / f"latest_net_{name}.pth"
        network.load_state_dict(torch.load(path, weights_only=True))
    first = networks["G1"].first.weight.detach().numpy()
    assert np.array_equal(first, variables[FIRST].transpose(3, 2, 0, 1))


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions_are_converted(tmp_path, dtype):
    variables = tensorflow_variables()
    variables["UAEnoFC/G/Conv/biases"] = variables["UAEnoFC/G/Conv/biases"].astype(dtype)
    converted = convert_checkpoint(write_checkpoint(tmp_path / "model.ckpt", variables))
    assert converted.networks["G2"]["first.bias"].dtype == torch.float32


def test_missing_variables(tmp_path):
    variables = tensorflow_variables("fashion")
    del variables["Discriminator.5/Discriminator.5.Biases"]
    message = error_of(tmp_path, variables)
    assert "not a whole one: 1 of" in message and "of the fashion layout" in message
    assert "'Discriminator.5/Discriminator.5.Biases'" in message


def test_something_else_than_pg2(tmp_path):
    assert "is no checkpoint of PG2" in error_of(tmp_path, {"dense/kernel": np.zeros(3, "f4")})


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (FIRST, (3, 3, 21, 5)),  # another width than that layer's biases tell
        ("Pose_AE/G/Conv_3/weights", (5, 5, 2, 4)),
        ("Pose_AE/G/fully_connected/weights", (7, 3)),
        ("Pose_AE/G/fully_connected_1/biases", (6,)),
        ("UAEnoFC/G/Conv_2/weights", (2, 2)),
        ("Discriminator.BN3.scale", ()),
    ],
)
def test_shapes_that_do_not_fit(tmp_path, name, shape):
    variables = tensorflow_variables()
    variables[name] = np.zeros(shape, np.float32)
    message = error_of(tmp_path, variables)
    assert f"'{name}' has shape {list(shape)}" in message and "market layout" in message


def test_integers_for_weights(tmp_path):
    variables = tensorflow_variables()
    variables["UAEnoFC/G/Conv/biases"] = variables["UAEnoFC/G/Conv/biases"].astype(np.int32)
    assert "int32" in error_of(tmp_path, variables)


@pytest.mark.parametrize("record", [*FILES, "10000_net_G1.pth", "latest_state.pth", "loss_log.txt"])
def test_an_experiment_is_not_overwritten_unasked(golden, tmp_path, record):
    (tmp_path / record).write_text("earlier")
    with pytest.raises(UserError, match=r"holds an experiment already.*--overwrite"):
        import_checkpoint(golden, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [record]
    (tmp_path / "latest_state.pth").write_text("of the earlier weights")
    import_checkpoint(golden, tmp_path, overwrite=True)
    assert {*FILES} <= {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "latest_state.pth").exists()


@pytest.mark.parametrize("name", [FIRST, f"{FIRST}/Adam"])
def test_a_damaged_checkpoint_writes_nothing(tmp_path, name):
    variables = tensorflow_variables()
    variables[name] = np.full_like(variables[name], 1234567)
    prefix = write_checkpoint(tmp_path / "model.ckpt", variables)
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[content.index(np.float32(1234567).tobytes())] ^= 1
    data.write_bytes(content)
    with pytest.raises(UserError, match="checksum"):
        import_checkpoint(prefix, tmp_path / "result")
    assert not (tmp_path / "result").exists()


def test_the_program_fails_with_one_line(tmp_path):
    process = run_python(
        "-m", "script.import_pg2_checkpoint", str(tmp_path / "gone"), "--name=a", folder=PROJECT
    )
    assert_one_line_error(process, "gone.index", "no such file")
