"""A third family of models is one new file: it is found, trained, resumed, logged and tested."""

import sys
import textwrap

import pytest
import torch

import models
from options.base_options import parse_train_options
from script.options_table import options_markdown
from tests.conftest import TEST_PAIRS
from tests.support.helpers import MARKET, run_here

TOY = """
    import torch
    from torch import nn
    from models.base_model import BaseModel, Prediction
    from models.presets import Preset

    class ToyModel(BaseModel):
        required_networks = ("painter",)
        needs_body_mask = True
        preset = Preset({"pose_encoding": "disc", "niter": 2, "batchSize": 2})

        @staticmethod
        def add_options(parser, is_train):
            parser.add_argument("--toy_width", type=int, default=4, help="width")

        def __init__(self, options):
            super().__init__(options)
            width = options.toy_width
            painter = nn.Sequential(nn.Conv2d(21, width, 3, padding=1), nn.Conv2d(width, 3, 1))
            self.add_network("painter", painter)
            if options.is_train:
                self.add_network("critic", nn.Conv2d(3, 1, 1))
                for name, network in self.networks.items():
                    self.add_optimizer(name, torch.optim.SGD(network.parameters(), lr=0.01))

        def stage(self, iteration):
            return 1 + iteration // 2

        def training_step(self, batch, iteration):
            picture = self.compute_prediction(batch).image
            loss = ((picture - batch["P2"]).abs() * batch["mask2"]).mean()
            self.update("painter", loss, {"toy": loss})
            return {"toy": loss.detach()}

        def compute_prediction(self, batch):
            picture = self.run("painter", torch.cat([batch["P1"], batch["BP2"]], 1))
            return Prediction(picture, extras={"half": picture / 2})
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "toy_model.py").write_text(textwrap.dedent(TOY))
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(tmp_path / "models")])
    yield
    sys.modules.pop("models.toy_model", None)


def test_one_file_is_enough(toy, tiny_market, tmp_path):
    common = [
        *MARKET[:2], "--model=toy", "--name=toy", f"--dataroot={tiny_market}",
        f"--checkpoints_dir={tmp_path}", "--nThreads=0",
    ]  # fmt: skip
    training = ["--display_id=0", "--print_freq=1", "--eval_iters_freq=2", "--display_freq=2"]
    trained = run_here("train.py", *common, *training)
    assert trained.returncode == 0, trained.stderr
    resumed = run_here("train.py", *common, *training, "--continue_train", "--niter=3")
    assert resumed.returncode == 0, resumed.stderr
    folder = tmp_path / "toy"
    lines = [line for line in (folder / "loss_log.txt").read_text().splitlines() if "iters" in line]
    assert [line.split(") ")[1].split(" toy: ")[0] for line in lines] == [
        "stage: 1", "stage: 2", "stage: 2",
    ]  # fmt: skip
    assert len((folder / "eval_log.txt").read_text().splitlines()) == 2
    assert (folder / "web" / "images" / "toy_iter_00000002.jpg").exists()
    state = torch.load(folder / "latest_state.pth", weights_only=True)
    assert (state["iteration"], list(state["networks"])) == (3, ["painter", "critic"])
    tested = run_here("test.py", *common, f"--results_dir={tmp_path / 'out'}", "--save_input")
    assert tested.returncode == 0, tested.stderr
    assert "critic" not in tested.stdout
    assert len(list((tmp_path / "out").glob("*_vis.jpg"))) == len(TEST_PAIRS)
    assert "`--toy_width` | `4` | width [toy] |" in options_markdown()


def test_it_computes_as_the_options_say(toy, monkeypatch):
    compiled = []

    def compile_network(network, device):
        compiled.append(network)
        return network

    monkeypatch.setattr("models.base_model.compile_network", compile_network)
    parts = {"P1": torch.rand(1, 3, 128, 64), "BP2": torch.rand(1, 18, 128, 64)}
    pictures = []
    for arguments in ([], ["--amp=bf16", "--channels_last", "--compile"]):
        options = parse_train_options([*MARKET, "--model=toy", *arguments])
        torch.manual_seed(0)
        model = models.create_model(options)
        pictures.append([model.compute_prediction(parts).image, model.predict(parts).image])
    painter = model.networks["painter"]
    assert compiled == list(model.networks.values())
    assert painter[0].weight.is_contiguous(memory_format=torch.channels_last)
    (trained, predicted), (trained_fast, predicted_fast) = pictures
    assert trained_fast.dtype == torch.float32
    assert 1e-4 < (trained_fast - trained).abs().max() < 0.05  # bfloat16 has 8 bits
    assert torch.allclose(predicted_fast, predicted, atol=1e-6) and torch.equal(trained, predicted)
