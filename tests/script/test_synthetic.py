"""The synthetic data set: files, people, key points and, above all, the true flow."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import map_coordinates

from data.annotations import read_pair_table
from data.flow import FlowFolder
from script.make_synthetic_dataset.__main__ import main
from script.make_synthetic_dataset.flow import true_flow
from script.make_synthetic_dataset.poses import fashion_pose, market_pose
from script.make_synthetic_dataset.raster import rasterise
from script.make_synthetic_dataset.render import (
    Camera,
    draw,
    key_points,
    pose_body,
    project,
    surface,
)
from script.make_synthetic_dataset.scene import (
    FASHION_VIEWS,
    IMAGE_SIZE,
    clean_picture,
    make_person,
    pose_person,
    render_picture,
)
from script.make_synthetic_dataset.skeleton import BONE_INDEX, BONES, JOINT_LIMITS, Pose, bone_kind
from script.make_synthetic_dataset.writer import DatasetOptions, make_dataset
from util.errors import UserError
from util.pair_names import pair_name

LAYOUTS = ("market", "fashion")
PREFIX = {"market": "market", "fashion": "fasion"}


def build(layout, out, workers=1, **changes):
    options = {"identities": 4, "poses_per_identity": 3, "seed": 1, **changes}
    return make_dataset(DatasetOptions(layout, **options), out, workers, progress=False)


@pytest.fixture(scope="module", params=LAYOUTS)
def dataset(request, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param) / "set"
    return request.param, out, build(request.param, out)


def table(out, layout, kind, phase):
    lines = (out / f"{PREFIX[layout]}-{kind}-{phase}.csv").read_text().splitlines()
    return lines[0], lines[1:]


def annotation(out, layout, phase):
    result = {}
    for row in table(out, layout, "annotation", phase)[1]:
        name, ys, xs = row.split(":")
        result[name] = np.stack((json.loads(xs), json.loads(ys)), 1)
    return result


def identity_of(layout, name):
    return name.split("_")[0] if layout == "market" else name.rsplit("_", 1)[0]


def digest(out):
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def warp(image, flow):
    """Bilinear sample of `image` [H, W, C] at pixel + flow."""
    rows, columns = np.mgrid[: flow.shape[1], : flow.shape[2]]
    place = (rows + flow[1], columns + flow[0])
    return np.stack(
        [map_coordinates(image[..., c], place, order=1) for c in range(image.shape[-1])], -1
    )


# -- files -------------------------------------------------------------------------------------


def test_tables_and_images_have_the_real_layout(dataset):
    layout, out, summary = dataset
    height, width = IMAGE_SIZE[layout]
    for phase, people in (("train", 3), ("test", 1)):
        header, rows = table(out, layout, "annotation", phase)
        assert header == "name:keypoints_y:keypoints_x"
        assert len(rows) == people * 3
        images = {path.name for path in (out / phase).iterdir()}
        points = annotation(out, layout, phase)
        assert set(points) == images
        for name, xy in points.items():
            assert Image.open(out / phase / name).size == (width, height)
            assert xy.shape == (18, 2)
            missing = (xy == -1).all(1)
            inside = (xy >= 0).all(1) & (xy[:, 0] < width) & (xy[:, 1] < height)
            assert (missing ^ inside).all()
            assert inside.sum() >= 6
        with (out / f"{PREFIX[layout]}-pairs-{phase}.csv").open() as file:
            pairs = [(row["from"], row["to"]) for row in csv.DictReader(file)]
        assert len(set(pairs)) == len(pairs) == people * 6
        for a, b in pairs:
            assert a != b
            assert {a, b} <= images
            assert identity_of(layout, a) == identity_of(layout, b)
    assert (summary.train_images, summary.test_images) == (9, 3)
    assert (summary.train_pairs, summary.test_pairs, summary.flow_files) == (18, 6, 6)


def test_phases_share_no_identity(dataset):
    layout, out, _ = dataset
    people = [
        {identity_of(layout, path.name) for path in (out / phase).iterdir()}
        for phase in ("train", "test")
    ]
    assert len(people[0]) == 3
    assert len(people[1]) == 1
    assert not people[0] & people[1]


def test_flow_files_are_those_of_the_test_pairs(dataset):
    layout, out, _ = dataset
    rows = table(out, layout, "pairs", "test")[1]
    stems = {"_2_".join(Path(name).stem for name in row.split(",")) for row in rows}
    assert {path.stem for path in (out / "flow").iterdir()} == stems
    height, width = IMAGE_SIZE[layout]
    for path in (out / "flow").iterdir():
        with np.load(path) as arrays:
            assert arrays["flow"].shape == (2, height, width)
            assert arrays["visible"].shape == (height, width)
            assert arrays["visible"].dtype == bool


def test_the_datasets_reader_takes_it(dataset):
    """Nothing downstream knows the difference."""
    layout, out, summary = dataset
    for phase, count in (("train", summary.train_pairs), ("test", summary.test_pairs)):
        pairs, points = (out / f"{PREFIX[layout]}-{k}-{phase}.csv" for k in ("pairs", "annotation"))
        found = read_pair_table(pairs, points, out / phase, frame=IMAGE_SIZE[layout])
        assert len(found.pairs) == count
        assert not found.notices
    test_pairs = table(out, layout, "pairs", "test")[1]
    pair = pair_name(*test_pairs[0].split(","))
    flow, visible = FlowFolder(out / "flow", IMAGE_SIZE[layout]).read(pair)
    assert flow.abs().max() > 0.5
    assert visible.sum() > 0


def test_same_bytes_for_any_number_of_workers_and_another_seed_differs(tmp_path):
    build("market", tmp_path / "one", workers=1)
    build("market", tmp_path / "two", workers=2)
    build("market", tmp_path / "other", workers=1, seed=2)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    assert not set(digest(tmp_path / "one").values()) & set(digest(tmp_path / "other").values())


def test_an_interrupted_run_looks_incomplete_and_is_made_anew(tmp_path, monkeypatch):
    build("market", tmp_path / "set")
    whole = digest(tmp_path / "set")
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return render_picture(*arguments)

    monkeypatch.setattr("script.make_synthetic_dataset.writer.render_picture", fail)
    with pytest.raises(KeyboardInterrupt):
        build("market", tmp_path / "set")
    assert not list((tmp_path / "set").glob("*.csv"))
    monkeypatch.undo()
    build("market", tmp_path / "set")
    assert digest(tmp_path / "set") == whole


def test_fewer_pairs_and_no_flow(tmp_path):
    summary = build("market", tmp_path / "set", pairs_per_identity=2, flow=False)
    assert (summary.train_pairs, summary.test_pairs, summary.flow_files) == (6, 2, 0)
    assert not (tmp_path / "set" / "flow").exists()


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        build("market", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match="is a file"):
        build("market", tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"layout": "deepfashion"}, "--layout"),
        ({"identities": 1}, "--identities"),
        ({"identities": 10000}, "--identities"),
        ({"poses_per_identity": 1}, "--poses_per_identity"),
        ({"test_identities": 4}, "--test_identities"),
        ({"test_identities": 0}, "--test_identities"),
        ({"pairs_per_identity": 0}, "--pairs_per_identity"),
        ({"seed": -1}, "--seed"),
        ({"workers": 0}, "--workers"),
    ],
)
def test_bad_options_are_named_and_nothing_is_written(tmp_path, changes, part):
    with pytest.raises(UserError, match=part):
        build(**{"layout": "market", "out": tmp_path / "set", **changes})
    assert not (tmp_path / "set").exists()


def test_the_program_writes_a_set_and_says_what(tmp_path, capsys):
    arguments = ["--layout", "market", "--out", str(tmp_path / "set"), "--workers", "1"]
    assert main([*arguments, "--identities", "2", "--poses_per_identity", "2"]) == 0
    assert "2 train and 2 test images, 2 train and 2 test pairs" in capsys.readouterr().out
    with pytest.raises(UserError, match="--layout"):
        main(["--layout", "other", "--out", str(tmp_path / "set")])


# -- people ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_poses_stay_within_the_joint_limits(layout):
    rng = np.random.default_rng(0)
    for number in range(100):
        if layout == "market":
            pose, _ = market_pose(rng)
        else:
            pose, _ = fashion_pose(rng, FASHION_VIEWS[number % 5])
        for bone, angles in pose.angles.items():
            for angle, (low, high) in zip(angles, JOINT_LIMITS[bone_kind(bone)], strict=True):
                assert low <= angle <= high


def test_limits_are_enforced():
    pose = Pose({"calf_l": (-30.0, 5.0, 0.0)}).clipped()
    assert pose.angles["calf_l"] == (0.0, 0.0, 0.0)  # knees do not bend forward


def test_bones_keep_their_length_and_flexion_bends_the_right_way():
    person = make_person("market", 0, 0)
    rest = person.body.joints
    pose = Pose({"forearm_l": (90.0, 0.0, 0.0), "calf_r": (60.0, 0.0, 0.0)})
    _, _, landmarks, _ = pose_body(person.body, pose)
    wrist, elbow, ankle, knee = landmarks[[7, 6, 10, 9]]
    forearm = rest[BONE_INDEX["hand_l"]] - rest[BONE_INDEX["forearm_l"]]
    assert np.linalg.norm(wrist - elbow) == pytest.approx(np.linalg.norm(forearm))
    assert wrist[2] - elbow[2] == pytest.approx(np.linalg.norm(forearm))  # to the front
    assert ankle[2] < knee[2] - 0.2  # to the back


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bodies_have_human_proportions(layout):
    widths = []
    for index in range(12):
        person = make_person(layout, 3, index)
        vertices, _, landmarks, _ = pose_body(person.body, Pose())
        tall = vertices[:, 1].max() - vertices[:, 1].min()
        assert 1.5 < tall < 2.05
        assert abs(vertices[:, 1].min()) < 0.02  # stands on the ground
        shoulders = landmarks[5, 0] - landmarks[2, 0]
        assert 0.17 < shoulders / tall < 0.24
        assert 0.24 < landmarks[9, 1] / tall < 0.31  # knee
        assert 0.48 < landmarks[8, 1] / tall < 0.56  # hip
        assert landmarks[10, 1] < landmarks[9, 1] < landmarks[8, 1] < landmarks[2, 1]
        assert landmarks[2, 1] < landmarks[1, 1] < landmarks[0, 1] < landmarks[14, 1]
        widths.append(shoulders)
    assert np.ptp(widths) > 0.01  # people differ


def test_skinning_weights_sum_to_one():
    for index in range(6):
        mesh = make_person("market", 0, index).body.mesh
        assert mesh.skin.shape[1] == len(BONES)
        assert mesh.skin.min() > -1e-9
        np.testing.assert_allclose(mesh.skin.sum(1), 1, atol=1e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_people_fill_the_picture(layout):
    for index in range(6):
        view, _ = pose_person(make_person(layout, 5, index), index % 5)
        share = (surface(view).face >= 0).mean()
        assert 0.09 < share < 0.8


def test_pictures_do_not_depend_on_what_was_drawn_before():
    person = make_person("market", 0, 1)
    first = render_picture(person, 2).image
    render_picture(person, 0)
    again = render_picture(make_person("market", 0, 1), 2).image
    np.testing.assert_array_equal(first, again)


# -- key points --------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_key_points_lie_on_their_parts(layout):
    """What is seen at a reported wrist, up to the rounding to pixels, is that arm, and so on."""
    parts = {
        0: ("head",), 14: ("head", "hair", "lock"), 15: ("head", "hair", "lock"),
        4: ("arm_r", "hand_r", "sleeve_r", "thumb_r"),
        7: ("arm_l", "hand_l", "sleeve_l", "thumb_l"),
        9: ("leg_r", "trousers_r", "skirt"), 12: ("leg_l", "trousers_l", "skirt"),
        10: ("leg_r", "trousers_r", "shoe_r", "sock_r"),
        13: ("leg_l", "trousers_l", "shoe_l", "sock_l"),
    }  # fmt: skip
    right, total = dict.fromkeys(parts, 0), dict.fromkeys(parts, 0)
    for index in range(8):
        person = make_person(layout, 11, index)
        for number in range(5):
            picture = render_picture(person, number)
            mesh = picture.view.mesh
            for joint, names in parts.items():
                x, y = picture.key_points[joint]
                if x < 0:
                    continue
                near = picture.seen.face[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
                total[joint] += 1
                right[joint] += any(
                    mesh.names[mesh.part[face]].startswith(names) for face in near[near >= 0]
                )
    for joint in parts:
        assert total[joint] >= 3, joint
        # the others are joints behind another part, which detectors report now and then
        assert right[joint] >= 0.75 * total[joint], (joint, right[joint], total[joint])


def faced(person, yaw, pose=None):
    """The person standing, turned by `yaw`, and its reported key points."""
    camera = Camera(yaw, 0.0, 0.0, 65.0, 1.0, (32.0, 122.0))
    view = project(person.body, pose_body(person.body, pose or Pose()), camera, 128, 64)
    return view, key_points(view, surface(view), np.random.default_rng(0))


def test_sides_and_hidden_key_points_follow_the_view():
    # someone without hair over the ears
    person = next(
        p
        for p in (make_person("market", 0, k) for k in range(30))
        if p.identity.hair_style in ("short", "crop", "bald")
    )
    _, front = faced(person, 0.0)
    assert (front[[0, 14, 15]] >= 0).all()
    assert front[2, 0] < front[5, 0]  # the right shoulder on the left of a front view
    assert front[14, 0] < front[0, 0] < front[15, 0]
    _, back = faced(person, 180.0)
    assert back[2, 0] > back[5, 0]
    assert (back[[0, 14, 15]] == -1).all()
    assert (back[[16, 17]] >= 0).all()
    _, side = faced(person, 90.0)  # facing right: the right side is towards the camera
    assert (side[[0, 14, 16]] >= 0).all()
    assert (side[[15, 17]] == -1).all()
    assert side[0, 0] > side[16, 0]


# -- flow --------------------------------------------------------------------------------------


def warp_errors(layout, magnify, people=3, pictures=(0, 1, 3)):
    """Absolute colour differences of the warped source to the target at visible pixels: all of
    them; those where no background is mixed in; the same for a flow that is 2 pixels wrong."""
    errors = [], [], []
    for index in range(people):
        person = make_person(layout, 3, index)
        views = [pose_person(person, number, magnify)[0] for number in pictures]
        clean = [clean_picture(view) for view in views]
        alone = [draw(view, 3)[1] > 0.999 for view in views]  # pixels without background
        for a, b in ((0, 1), (1, 0), (0, 2), (2, 1)):
            flow, visible = true_flow(views[a], views[b])
            # all four pixels that the bilinear sample reads have to be without background too
            clear = (
                visible & alone[b] & (warp(alone[a][..., None].astype(float), flow)[..., 0] > 0.999)
            )
            right, wrong = (
                np.abs(warp(clean[a], flow + shift) - clean[b]).mean(-1) for shift in (0, 2)
            )
            for total, values in zip(
                errors, (right[visible], right[clear], wrong[clear]), strict=True
            ):
                total.append(values)
    return [np.concatenate(total) for total in errors]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_warping_the_source_by_the_true_flow_gives_the_target(layout):
    """Colours are fixed to the body, so only resampling can differ: two antialiased pictures of
    one texture at different scales and angles, sampled bilinearly. Pixels on the outline mix
    in the background, in one picture more than in the other: only the loose bound counts them.
    """
    everywhere, clear, wrong = warp_errors(layout, 1)
    assert clear.size > 0.6 * everywhere.size > 2000
    assert clear.mean() < 0.02
    assert np.percentile(clear, 95) < 0.1
    assert everywhere.mean() < 0.06
    # control: a flow that is 2 pixels wrong fails the same bounds
    assert wrong.mean() > 0.04
    assert np.percentile(wrong, 95) > 0.2


def test_the_warping_error_vanishes_with_resolution():
    """Were the flow itself wrong, a finer grid would not help."""
    coarse = warp_errors("market", 1, people=1)
    fine = warp_errors("market", 4, people=1)
    assert fine[1].mean() < 0.5 * coarse[1].mean()
    assert fine[0].mean() < 0.7 * coarse[0].mean()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_written_flow_fits_the_written_images(layout, tmp_path):
    """The same on the files, through light, noise and JPEG: right flow beats shifted flow."""
    build(layout, tmp_path / "set", identities=3, test_identities=2)
    right, wrong = [], []
    for row in table(tmp_path / "set", layout, "pairs", "test")[1]:
        a, b = row.split(",")
        with np.load(tmp_path / "set" / "flow" / f"{Path(a).stem}_2_{Path(b).stem}.npz") as arrays:
            flow, visible = arrays["flow"], arrays["visible"]
        source, target = (
            np.asarray(Image.open(tmp_path / "set" / "test" / name), float) / 255 for name in (a, b)
        )
        for total, shift in ((right, 0), (wrong, 4)):
            total.append(np.abs(warp(source, flow + shift) - target).mean(-1)[visible])
    assert np.concatenate(right).mean() < 0.75 * np.concatenate(wrong).mean()
    assert np.concatenate(right).mean() < 0.12


def test_flow_of_a_picture_to_itself_is_zero_and_visible():
    view, _ = pose_person(make_person("market", 0, 0), 0)
    flow, visible = true_flow(view, view)
    assert np.abs(flow).max() < 1e-4
    body = surface(view).face >= 0
    assert not visible[~body].any()
    assert visible[body].mean() > 0.97  # all but surfaces seen edge-on


def test_flow_of_a_shifted_picture_is_the_shift_and_ends_at_the_border():
    person = make_person("market", 0, 0)
    view, _ = faced(person, 20.0)
    moved, _ = faced(person, 20.0)
    moved.points = moved.points + np.array([7.0, -3.0])
    flow, visible = true_flow(view, moved)
    assert visible.sum() > 500
    np.testing.assert_allclose(flow[0][visible], -7, atol=1e-4)
    np.testing.assert_allclose(flow[1][visible], 3, atol=1e-4)
    moved.points = view.points + np.array(
        [-25.0, 0.0]
    )  # now the left part of the person is cut off
    flow, visible = true_flow(moved, view)
    columns = np.nonzero(visible)[1]
    assert columns.min() >= 25  # what is left of it has left the source


def test_front_and_back_share_little_and_a_hidden_arm_is_not_visible():
    person = make_person("market", 0, 0)
    front, _ = faced(person, 0.0)
    back, _ = faced(person, 180.0)
    _, same = true_flow(front, front)
    _, opposite = true_flow(front, back)
    assert opposite.sum() < 0.15 * same.sum()
    side, _ = faced(person, 90.0)  # facing right: its left arm is behind the trunk
    target_seen = surface(front)
    _, visible = true_flow(side, front)
    part = np.where(target_seen.face >= 0, front.mesh.part[target_seen.face], -1)
    names = front.mesh.names
    for name, low, high in (("hand_l", 0.0, 0.05), ("hand_r", 0.2, 1.0)):
        pixels = part == names.index(name)
        assert low <= visible[pixels].mean() <= high, name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flow_moves_key_points_along(layout):
    """At a visible joint, the flow is where the joint went, up to the limb's own turning: the
    surface lies at most a limb's radius (here 9 cm) in front of the joint."""
    distances = []
    for index in range(4):
        person = make_person(layout, 2, index)
        pictures = [render_picture(person, number) for number in range(4)]
        for a in range(4):
            for b in range(4):
                source, target = pictures[a], pictures[b]
                flow, visible = true_flow(source.view, target.view)
                for joint in (3, 4, 6, 7, 9, 10, 12, 13):
                    x, y = target.key_points[joint]
                    if a == b or x < 0 or not visible[y, x] or source.key_points[joint, 0] < 0:
                        continue
                    moved = source.view.joints[joint] - target.view.joints[joint]
                    face = target.seen.face[y, x]
                    depth = (target.view.depth[target.view.mesh.triangles[face]]).mean()
                    if depth - target.view.joint_depth[joint] > 0.09:
                        continue  # another part lies before this joint
                    distances.append(
                        np.linalg.norm(flow[:, y, x] - moved) / source.view.camera.scale
                    )
    assert len(distances) > 30
    assert np.median(distances) < 0.06
    assert np.mean(np.array(distances) < 0.13) > 0.95


# -- rasteriser --------------------------------------------------------------------------------


def test_rasterise_agrees_with_the_definition():
    """Slow direct definition: at each pixel centre, the nearest front face that contains it."""
    rng = np.random.default_rng(0)
    points, depth = rng.uniform(-2, 14, (60, 2)), rng.uniform(0, 1, 60)
    triangles = rng.integers(0, 60, (40, 3))
    face, weights = rasterise(points, depth, triangles, 10, 12)
    for row in range(10):
        for column in range(12):
            best, found, share = -np.inf, -1, None
            for index, corners in enumerate(triangles):
                (ax, ay), (bx, by), (cx, cy) = points[corners]
                area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
                if area >= -1e-9:
                    continue
                w1 = ((column - ax) * (cy - ay) - (cx - ax) * (row - ay)) / area
                w2 = ((bx - ax) * (row - ay) - (column - ax) * (by - ay)) / area
                w = np.array([1 - w1 - w2, w1, w2])
                if w.min() >= 0 and w @ depth[corners] > best:
                    best, found, share = w @ depth[corners], index, w
            assert face[row, column] == found
            if found >= 0:
                np.testing.assert_allclose(weights[row, column], share, atol=1e-5)
    assert (face >= 0).sum() > 40


def test_rasterise_nothing_in_sight():
    face, weights = rasterise(np.full((3, 2), -9.0), np.zeros(3), np.array([[0, 1, 2]]), 4, 5)
    assert (face == -1).all()
    assert not weights.any()
