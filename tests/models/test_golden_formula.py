"""The formulas of the golden numbers are reproduced, so the comparisons mean something."""

import numpy as np
import pytest
import torch

from tests.support.golden_formula import (
    formula_weight,
    golden,
    image_batch,
    input_image,
    input_normal,
    pose_batch,
)


def test_formula_of_weights_and_inputs():
    check = golden("formula_check.json")
    assert len(check) == 12
    for key, expected in check.items():
        shape = expected["shape"]
        if key.startswith("input:"):
            name = key.removeprefix("input:")
            make = input_normal if name.startswith("attn") else input_image
            value = make(name, shape)
        else:
            value = formula_weight(key, shape)
        assert list(value.shape) == shape
        # Not exact: the norm of weight_u differs in its last bit between versions of NumPy.
        first = value.flatten()[:4].tolist()
        assert first == pytest.approx(expected["first4"][:4], rel=1e-6), key
        assert value.double().sum().item() == pytest.approx(expected["sum"], abs=1e-6), key


@pytest.mark.parametrize(
    ("dataset", "image_stride", "pose_stride", "pose_suffix"),
    [("fashion", 16, 4, "_stride4"), ("market", 8, 1, "")],
)
def test_formula_of_network_inputs(dataset, image_stride, pose_stride, pose_suffix):
    expected = golden(f"{dataset}_inputs.npz")
    for name in ("P1", "P2"):
        image = image_batch(dataset, name)[..., ::image_stride, ::image_stride]
        np.testing.assert_array_equal(image.numpy(), expected[name])
    for name, pose in zip(("BP1", "BP2"), pose_batch(dataset), strict=True):
        thinned = pose[..., ::pose_stride, ::pose_stride]
        torch.testing.assert_close(
            thinned, torch.from_numpy(expected[name + pose_suffix]), atol=1e-7, rtol=0
        )
