"""Flow fields at image size, on cases whose answer is known on paper."""

import numpy as np
import pytest
import torch

from util.flow import end_point_errors, flow_to_color, resize_flow, warp


def constant_flow(x, y, size=(6, 8), batch=1):
    return torch.tensor([x, y], dtype=torch.float32).view(1, 2, 1, 1).expand(batch, 2, *size)


@pytest.mark.parametrize("size", [(12, 16), (3, 4), (6, 24), (7, 5), (6, 8)])
def test_resized_constant_flow_is_constant_and_rescaled(size):
    resized = resize_flow(constant_flow(3, -2, batch=2), size)
    assert resized.shape == (2, 2, *size)
    torch.testing.assert_close(resized[:, 0], torch.full((2, *size), 3 * size[1] / 8))
    torch.testing.assert_close(resized[:, 1], torch.full((2, *size), -2 * size[0] / 6))


def test_resized_linear_flow_is_linear():
    """Pixel centres: the middle of large pixel i lies at (i + 0.5) / 2 - 0.5 of the small map."""
    columns = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 1, 6, 8)
    rows = torch.arange(6.0).view(1, 1, 6, 1).expand(1, 1, 6, 8)
    resized = resize_flow(torch.cat([columns, rows], 1), (12, 16))
    x = ((torch.arange(16.0) + 0.5) / 2 - 0.5) * 2
    y = ((torch.arange(12.0) + 0.5) / 2 - 0.5) * 2
    inner = resized[0, :, 1:-1, 1:-1]  # the border rows have nothing to interpolate with
    torch.testing.assert_close(inner[0], x[None, 1:-1].expand(10, 14))
    torch.testing.assert_close(inner[1], y[1:-1, None].expand(10, 14))


@pytest.mark.parametrize(("x", "y"), [(2, 0), (0, 3), (-2, 1), (1, -3), (0, 0)])
def test_warp_by_whole_pixels_shifts_and_repeats_the_border(x, y):
    image = torch.rand(2, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    rows = (torch.arange(9) + y).clamp(0, 8)
    columns = (torch.arange(7) + x).clamp(0, 6)
    expected = image[:, :, rows][:, :, :, columns]
    warped = warp(image, constant_flow(x, y, (9, 7), batch=2))
    torch.testing.assert_close(warped, expected, rtol=0, atol=2e-6)


def test_warp_far_outside_gives_the_corner():
    image = torch.rand(1, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    warped = warp(image, constant_flow(1000, -1000, (9, 7)))
    torch.testing.assert_close(warped, image[:, :, :1, -1:].expand(1, 3, 9, 7))


def test_warp_between_pixels_is_bilinear():
    image = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    warped = warp(image, constant_flow(0.25, 0.5, (4, 4)))
    top = 0.75 * image[0, 0, 1, 1] + 0.25 * image[0, 0, 1, 2]
    bottom = 0.75 * image[0, 0, 2, 1] + 0.25 * image[0, 0, 2, 2]
    torch.testing.assert_close(warped[0, 0, 1, 1], (top + bottom) / 2)


def test_warp_moves_each_pixel_by_its_own_flow():
    """Flow is source minus target position: the target pixel reads at its place plus the flow."""
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 3, 1] = 1
    flow = torch.zeros(1, 2, 5, 5)
    flow[0, :, 0, 4] = torch.tensor([1 - 4, 3 - 0])
    expected = image.clone()
    expected[0, 0, 0, 4] = 1
    torch.testing.assert_close(warp(image, flow), expected, rtol=0, atol=1e-6)


def test_end_point_errors():
    truth = torch.zeros(3, 2, 4, 4)
    flow = truth.clone()
    flow[0] = torch.tensor([3.0, 4.0]).view(2, 1, 1)  # length 5 everywhere
    flow[1, 0, 0, 0], flow[1, 1, 3, 3] = 2, 1000
    visible = torch.zeros(3, 4, 4)
    visible[0], visible[1, 0] = 1, 1  # sample 1: the first row alone, where one pixel is 2 off
    errors = end_point_errors(flow, truth, visible)
    assert errors.shape == (3,)
    assert errors[0].item() == pytest.approx(5)
    assert errors[1].item() == pytest.approx(2 / 4)
    assert torch.isnan(errors[2])
    assert end_point_errors(flow, truth, visible.bool())[1].item() == pytest.approx(0.5)


def test_infinite_flow_outside_the_visible_pixels_does_not_count():
    flow = torch.zeros(1, 2, 2, 2)
    flow[0, 0, 0, 0] = float("inf")
    visible = torch.tensor([[[False, True], [True, True]]])
    assert end_point_errors(flow, torch.ones(1, 2, 2, 2), visible).item() == pytest.approx(2**0.5)


def test_no_motion_is_white():
    assert torch.equal(flow_to_color(torch.zeros(2, 2, 3, 4)), torch.ones(2, 3, 3, 4))


def colors(vectors, largest=None):
    flow = torch.tensor(vectors, dtype=torch.float32).T.view(1, 2, 1, -1)
    return flow_to_color(flow, largest)[0, :, 0].T  # [vectors, 3]


def test_directions_go_once_around_the_wheel():
    angles = np.arange(12) * np.pi / 6
    wheel = colors(np.stack([np.cos(angles), np.sin(angles)], 1).tolist())
    torch.testing.assert_close(wheel[0], torch.tensor([1.0, -1, -1]), atol=1e-5, rtol=0)  # red
    torch.testing.assert_close(wheel[4], torch.tensor([-1.0, 1, -1]), atol=1e-5, rtol=0)  # green
    torch.testing.assert_close(wheel[8], torch.tensor([-1.0, -1, 1]), atol=1e-5, rtol=0)  # blue
    distance = torch.cdist(wheel, wheel)
    assert distance[~torch.eye(12, dtype=torch.bool)].min() > 0.4
    opposite = (wheel - wheel.roll(6, 0)).abs().amax(1)
    torch.testing.assert_close(opposite, torch.full((12,), 2.0), atol=1e-5, rtol=0)


def test_saturation_grows_with_length_up_to_the_largest():
    shades = colors([[0, 0], [0, 1], [0, 2], [0, 4], [0, 8]], largest=4.0)
    saturation = shades.amax(1) - shades.amin(1)
    torch.testing.assert_close(saturation, torch.tensor([0, 0.5, 1.0, 2.0, 2.0]))
    torch.testing.assert_close(shades.amax(1), torch.ones(5))


def test_each_sample_has_its_own_scale():
    flow = torch.randn(2, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    larger = torch.cat([flow[:1], 100 * flow[1:]])
    picture = flow_to_color(flow)
    torch.testing.assert_close(flow_to_color(larger), picture, atol=1e-4, rtol=0)
    assert picture.min() >= -1 and picture.max() <= 1
