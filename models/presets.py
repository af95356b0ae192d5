"""What the published runs used: the defaults of every model's options, in one table.

Ren et al., CVPR 2020, and Ma et al., NIPS 2017; where the papers are silent, as their programs.
The sizes of images and of key points' frames are the data sets' own: data/fashion_dataset.py,
data/market_dataset.py. `train.py --dry_run` shows which value comes from where.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# (height, width) of the images that a set of values was published for.
SIZES = {"fashion": (256, 256), "market": (128, 64)}
# Of a model that says nothing else.
USUAL = {"batchSize": 8, "niter": 5_000_000}


@dataclass(frozen=True)
class Preset:
    """Option values of a model's published runs, by name of the option; texts as on a command line.

    Attributes:
        always: whatever the images are.
        named: those that differ between the data sets, by a name in SIZES.
    """

    always: Mapping[str, Any] = field(default_factory=dict)
    named: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def values(self, name: str | None) -> dict[str, Any]:
        """Those that hold for a data set of SIZES; None: what all runs share."""
        return {**USUAL, **self.always, **self.named.get(name, {})}


_GFLA = {"lr": 1e-4, "init_type": "orthogonal", "use_spect_g": False}
_FLOW = {
    "fashion": {"attn_layer": "2,3", "kernel_size": "2=5,3=3"},
    "market": {
        "attn_layer": "2", "kernel_size": "2=3", "angle": 5, "shift": 5, "scale": "0.95,1.05",
    },
}  # fmt: skip

POSEFLOWNET = Preset({**_GFLA, "lambda_correct": 20.0, "lambda_regularization": 0.01}, _FLOW)
POSE = Preset(
    {
        **_GFLA,
        "gan_mode": "lsgan", "ratio_g2d": 0.1, "use_spect_d": True,
        "lambda_rec": 5.0, "lambda_g": 2.0, "lambda_correct": 5.0, "lambda_style": 500.0,
        "lambda_content": 0.5, "lambda_regularization": 0.0025,
    },
    {
        "fashion": {**_FLOW["fashion"], "dis_layers": 4},
        "market": {**_FLOW["market"], "dis_layers": 3},
    },
)  # fmt: skip
PG2 = Preset(
    {
        "pose_encoding": "disc", "lr": 2e-5, "stage1_steps": 22000,
        "conv_hidden_num": 128, "z_num": 64, "ndf": 64,
    },
    {
        "fashion": {"batchSize": 1, "niter": 80000, "lambda_rec": 50.0},
        "market": {"batchSize": 16, "niter": 60000, "lambda_rec": 10.0},
    },
)  # fmt: skip
