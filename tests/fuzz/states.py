"""What a run goes on from: `<label>_state.pth`, and the network files beside it."""

import argparse
import functools
import io
import random
import shutil
import tempfile
import warnings
from pathlib import Path

import torch

from models.base_model import BaseModel, Prediction
from models.checkpoints import load_for_training, save_model
from models.pg2.tensorflow_adam import TensorFlowAdam
from options.base_options import parse_train_options
from options.run_record import changes, option_texts
from tests.fuzz.checkpoints import MEGABYTES as MEGABYTES
from tests.fuzz.checkpoints import check_sound, damaged, make_network, other_value, saved
from tests.fuzz.mutations import change_inside, make_no_file
from util.run.folder import models_of

NAMES = ("latest_state.pth", "latest_net_G.pth", "latest_net_D.pth")


class Model(BaseModel):
    """Two small networks with both kinds of Adam."""

    required_networks = ("G", "D")

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        for number, (key, kind) in enumerate({"G": torch.optim.Adam, "D": TensorFlowAdam}.items()):
            network = self.add_network(key, make_network(number))
            self.add_optimizer(key, kind(network.parameters(), lr=1e-4, betas=(0.5, 0.999)))

    add_options = training_step = None

    def compute_prediction(self, batch: object) -> Prediction:
        raise NotImplementedError

    def step_all(self) -> None:
        """One step, each gradient 1."""
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                for value in group["params"]:
                    value.grad = torch.ones_like(value)
            optimizer.step()


@functools.cache
def options() -> argparse.Namespace:
    command = ["--name=run", "--model=pg2", "--dataset_mode=market", "--dataroot=data"]
    return parse_train_options([*command, "--continue_train", "--gpu_ids=-1"])


def settings() -> dict[str, object]:
    return {"--seed": 0, "--batchSize": 16, "--serial_batches": False, "pairs": 12}


@functools.cache
def honest_files() -> dict[str, bytes]:
    model = Model(options())
    model.step_all()
    with tempfile.TemporaryDirectory() as place:
        run = {**settings(), "options": option_texts(options())}
        save_model(model, Path(place), "latest", 7, run)
        return {name: (Path(place) / name).read_bytes() for name in NAMES}


def generate(rng: random.Random, folder: Path) -> None:
    files = dict(honest_files())
    name = rng.choice([NAMES[0], NAMES[0], NAMES[0], *NAMES])
    content = torch.load(io.BytesIO(files[name]), weights_only=True)
    parts = [content]
    if name == NAMES[0]:
        parts += [*content["optimizers"].values(), *content["networks"].values()]
    for _ in range(rng.choice([0, 1, 1, 1, 2, 4])):
        change_inside(rng, rng.choice(parts), functools.partial(other_value, rng))
    if rng.random() < 0.1 and name == NAMES[0]:
        content.pop(rng.choice([*content]))
    files[name] = saved(content, rng.random() < 0.2)
    if rng.random() < 0.15:
        files[name] = damaged(rng, files[name])
    for other, data in files.items():
        (folder / other).write_bytes(data)
    if rng.random() < 0.02:
        (folder / name).unlink()
        make_no_file(rng, folder / name)
    elif rng.random() < 0.1:
        first, second = rng.sample(NAMES, 2)
        shutil.copyfile(folder / first, folder / second)


def read(folder: Path) -> None:
    """As train.py does, to the end of the first step."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert models_of(folder).keys() <= {"latest"}
        model = Model(options())
        start = load_for_training(model, folder, "latest")
        check_sound(folder / NAMES[0])
        assert start.earlier_model is None or start.earlier_model in ("pose", "poseflownet")
        assert type(start.iteration) is int and start.iteration >= 0
        for line in changes(options(), settings(), start, folder):
            assert line.isprintable() and len(line) < 10**5
        for network in model.networks.values():
            for value in network.state_dict().values():
                assert value.isfinite().all() and value.dtype == torch.float32
        model.step_all()
        assert model.networks_to_save() == ["G", "D"]
