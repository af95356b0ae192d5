"""Pictures: skeletons, flow panels, sheets."""

import re

import numpy as np
import pytest
import torch

from models import create_model
from models.base_model import Prediction
from models.pictures import (
    LIMBS,
    SKELETONS,
    draw_skeleton,
    flow_panels,
    limb_colors,
    panels_of,
)
from options.base_options import build_test_parser
from tests.conftest import STANDING
from tests.support.helpers import PROJECT, inference_options
from util.layout import CAPTION_HEIGHT, sheet

LIMB_COLORS = limb_colors(len(LIMBS))
SIZE = (128, 64)
NOTHING = np.full((18, 2), np.nan, np.float32)


def standing():
    return np.array(STANDING, np.float32)


def has_color(picture, color):
    return (picture == np.array(color)).all(-1).any()


def test_limbs_join_every_key_point_to_one_body():
    assert len(LIMBS) == len(set(LIMB_COLORS)) == 17
    joined = {1}
    for _ in range(18):
        joined |= {point for limb in LIMBS if joined & set(limb) for point in limb}
    assert joined == set(range(18))


def test_skeleton_has_joints_and_limbs_where_they_belong():
    picture = draw_skeleton(standing(), SIZE)
    assert picture.shape == (*SIZE, 3) and picture.dtype == np.uint8
    for x, y in STANDING:
        assert (picture[y, x] == 255).all()
    for limb, color in zip(LIMBS, LIMB_COLORS, strict=True):
        (x1, y1), (x2, y2) = STANDING[limb[0]], STANDING[limb[1]]
        if abs(x1 - x2) + abs(y1 - y2) > 8:  # shorter ones hide under their joints
            middle = picture[(y1 + y2) // 2 - 1 : (y1 + y2) // 2 + 2, (x1 + x2) // 2 - 1 :][:, :3]
            assert has_color(middle, color), limb
    assert not picture[:, :10].any() and not picture[120:].any()


def test_missing_key_points_have_no_limbs():
    pose = standing()
    pose[3] = np.nan  # right elbow: two limbs end there
    picture, whole = draw_skeleton(pose, SIZE), draw_skeleton(standing(), SIZE)
    for limb, color in zip(LIMBS, LIMB_COLORS, strict=True):
        if 3 in limb:
            assert has_color(whole, color) and not has_color(picture, color)
    x, y = STANDING[3]
    assert not picture[y - 3 : y + 4, x - 3 : x + 4].any()
    x, y = STANDING[4]
    assert (picture[y, x] == 255).all()  # the wrist itself is still there


def test_half_missing_key_point_is_missing():
    pose = standing()
    pose[3, 0] = np.nan
    missing = standing()
    missing[3] = np.nan
    assert np.array_equal(draw_skeleton(pose, SIZE), draw_skeleton(missing, SIZE))


def test_nobody_is_black():
    assert not draw_skeleton(NOTHING, SIZE).any()


def test_key_points_outside_are_cut_off():
    pose = NOTHING.copy()
    pose[0] = (500, -300)
    assert not draw_skeleton(pose, SIZE).any()
    pose[1] = (10, 10)
    assert draw_skeleton(pose, SIZE).any()


def prediction(batch=2):
    flows = [torch.zeros(batch, 2, 16, 8), torch.zeros(batch, 2, 32, 16)]
    masks = [torch.zeros(batch, 1, 16, 8), torch.ones(batch, 1, 32, 16)]
    masks[0][:, :, :8] = 0.5
    return Prediction(torch.full((batch, 3, *SIZE), -1.0), flows, masks)


def test_flow_panels():
    source = torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    made = prediction()
    made.flows[1][1, 0] = 2  # 8 pixels of the image, to the right
    panels = flow_panels(source, made)
    assert panels.keys() == {f"{kind}_{k}" for kind in ("flow", "mask", "warped") for k in (8, 4)}
    for panel in panels.values():
        assert panel.shape == (2, *SIZE, 3) and panel.dtype == np.uint8
    assert (panels["flow_8"] == 255).all()  # no motion is white
    assert (panels["flow_4"][1] == (255, 0, 0)).all()
    assert (panels["mask_4"] == 255).all()
    assert (panels["mask_8"][:, :64] == 128).all() and not panels["mask_8"][:, 64:].any()
    pixels = ((source + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    assert np.abs(panels["warped_8"] - pixels).max() <= 0.6
    assert np.abs(panels["warped_4"][1][:, :-8] - pixels[1][:, 8:]).max() <= 0.6


def test_panels_of_a_batch():
    batch = {
        "P1": torch.ones(2, 3, *SIZE),
        "P2": torch.zeros(2, 3, *SIZE),
        "pose1": torch.from_numpy(np.stack([NOTHING, NOTHING])),
        "pose2": torch.from_numpy(np.stack([standing(), NOTHING])),
    }
    panels = panels_of(batch, prediction())
    assert list(panels) == [
        "source", "source pose", "target pose", "target", "result",
        "warped 1/8", "flow 1/8", "warped 1/4", "flow 1/4", "mask 1/8", "mask 1/4",
    ]  # fmt: skip
    assert (panels["source"] == 255).all() and (panels["target"] == 128).all()
    assert not panels["result"].any() and not panels["source pose"].any()
    assert np.array_equal(panels["target pose"][0], draw_skeleton(standing(), SIZE))
    assert not panels["target pose"][1].any()


@pytest.mark.parametrize("scale", [1, 2])
def test_sheet_has_a_column_per_panel_and_a_row_per_sample(scale):
    panels = {
        name: np.stack([np.full((20, 30, 3), 10 * column + row, np.uint8) for row in range(3)])
        for column, name in enumerate(["source", "target"])
    }
    picture = sheet(panels, scale=scale)
    height, width, gap = 20 * scale, 30 * scale, 2
    assert picture.shape == (CAPTION_HEIGHT + 3 * (height + gap), 2 * (width + gap), 3)
    for column in range(2):
        for row in range(3):
            top, left = CAPTION_HEIGHT + row * (height + gap), column * (width + gap)
            cell = picture[top : top + height, left : left + width]
            assert (cell == 10 * column + row).all()
            assert (picture[top + height : top + height + gap, left : left + width] == 255).all()
    captions = picture[:CAPTION_HEIGHT]
    assert (captions[:, : width + gap] < 128).any() and (captions[:, width + gap :] < 128).any()


def test_25_key_points_have_the_limbs_of_body_25():
    body_25 = SKELETONS[25]
    joined = {8}
    for _ in range(25):
        joined |= {point for limb in body_25 if joined & set(limb) for point in limb}
    assert joined == set(range(25)) and len(body_25) == 24  # one body, no limb twice
    # 18 of the 25 are the other skeleton's, in another order: its limbs are where they were,
    # but for those from the neck to the hips, which pass through the middle of the hips.
    as_18 = {9: 8, 10: 9, 11: 10, 12: 11, 13: 12, 14: 13, 15: 14, 16: 15, 17: 16, 18: 17}
    shared = {
        frozenset(as_18.get(point, point) for point in limb)
        for limb in body_25
        if 8 not in limb and max(limb) <= 18
    }
    trunk = {frozenset((1, 8)), frozenset((1, 11))}
    assert shared == {frozenset(limb) for limb in LIMBS} - trunk

    pose = np.full((25, 2), np.nan)
    pose[[8, 9, 1]] = (40, 60), (20, 60), (40, 20)  # middle of the hips, right hip, neck
    picture = draw_skeleton(pose, (96, 96))
    assert picture[60, 30].any() and picture[40, 40].any()
    pose[[8, 9]] = pose[[9, 8]]
    assert not draw_skeleton(pose, (96, 96))[40, 40].any()


@pytest.mark.parametrize("count", [3, 17, 19, 133])
def test_points_of_an_unknown_order_have_no_limbs(count):
    pose = np.full((count, 2), np.nan)
    pose[:3] = (20, 10), (20, 30), (40, 30)  # a nose, neck and right shoulder, if they were 18
    picture = draw_skeleton(pose, (64, 48))
    assert (picture[[10, 30, 30], [20, 20, 40]] == 255).all()
    assert not picture[30, 30].any() and not picture[20, 20].any()


def test_users_find_the_order_of_the_key_points():
    page = (PROJECT / "dataset" / "README.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("|")]
    table = {
        int(number): name
        for numbers, names in zip(rows, rows[2:], strict=False)
        if numbers[0].isdigit() and len(numbers) == 9
        for number, name in zip(numbers, names, strict=True)
    }
    sides = {number: name.split()[0] for number, name in table.items() if " " in name}
    assert sorted(table) == list(range(18)) and (table[0], table[1]) == ("nose", "neck")
    for start, end in LIMBS:  # a limb has one side
        assert len({sides[point] for point in (start, end) if point in sides}) <= 1
    (action,) = (
        action for action in build_test_parser([])._actions if action.dest == "structure_nc"
    )
    words = iter(re.findall(r"\w+", action.help))
    for name in table.values():  # in this order; the side is said once for a limb
        assert name.split()[-1] in words


def test_attention_is_a_map_for_each_place_of_the_window():
    attention = torch.zeros(2, 9, 4, 2)
    attention[:, 4] = 0.5  # its middle
    attention[0, 2, 3, 1] = 0.25  # first row, last column; the lowest right place of its map
    flow = torch.zeros(2, 2, 4, 2)
    source = torch.zeros(2, 3, 16, 8)
    panels = flow_panels(source, Prediction(source, [flow], [], [attention]))
    picture = panels["attention_4"]
    assert picture.shape == (2, 12, 6, 3) and picture.dtype == np.uint8
    assert (picture[:, 4:8, 2:4] == 255).all()
    assert picture[0, 3, 5, 0] in (127, 128)
    picture[:, 4:8, 2:4] = 0
    picture[0, 3, 5] = 0
    assert not picture.any()


@pytest.mark.parametrize("save_flow", [True, False])
def test_attention_is_what_the_generator_read_by(save_flow):
    options = [] if not save_flow else ["--save_flow"]
    model = create_model(
        inference_options("--model=pose", "--attn_layer=2,3", "--kernel_size=2=5,3=3", *options)
    )
    torch.manual_seed(3)
    batch = {
        "P1": torch.rand(2, 3, 128, 64),
        "BP1": torch.rand(2, 18, 128, 64),
        "BP2": torch.rand(2, 18, 128, 64),
    }
    prediction = model.predict(batch)
    shapes = [tuple(value.shape) for value in prediction.attentions]
    assert shapes == ([(2, 9, 16, 8), (2, 25, 32, 16)] if save_flow else [])
    for value in prediction.attentions:
        assert value.min() >= 0 and torch.allclose(value.sum(1), torch.ones(()), atol=1e-5)
    assert torch.equal(prediction.image, model.networks["G"].eval()(*batch.values())[0])
