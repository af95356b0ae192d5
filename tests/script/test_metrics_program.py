"""`python -m script.metrics` as a user runs it, on small sets and weight files made here."""

import csv
import json
import shutil
import sys
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data.annotations import read_poses
from script.metrics import image_sets
from script.metrics.__main__ import main
from tests.conftest import STANDING
from tests.support.helpers import PROJECT, assert_one_line_error, run_python
from util.errors import UserError

SIZE = (128, 64)
PLAIN = "SSIM,SSIM_256,PSNR,L1,MAE"


def picture(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A smooth random picture: noise would give every network the same features."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 3, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """12 results `p<i>_2_p<i+1>_vis.png`, each worse than the one before; 13 truths, 8 real."""
    for number in range(13):
        save(tmp_path / "truth" / f"p{number}.png", picture(number))
    for number in range(12):
        share = 0.05 + 0.05 * number
        mixed = (1 - share) * picture(number + 1) + share * picture(200 + number)
        save(tmp_path / "results" / f"p{number}_2_p{number + 1}_vis.png", mixed.astype(np.uint8))
    for number in range(8):
        save(tmp_path / "real" / f"r{number}.png", picture(100 + number))
    return tmp_path


@pytest.fixture
def weights(inception_file: Path, imagenet_inception_file: Path, alexnet_file: Path) -> list[str]:
    return [
        f"--inception_weights={inception_file}",
        f"--imagenet_inception_weights={imagenet_inception_file}",
        f"--lpips_weights={alexnet_file}",
    ]


class QuickInception(torch.nn.Module):
    """Stands for an Inception network where the plumbing around it is tested."""

    def __init__(self, seed: int, classes: int | None, protocol: str) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.features = torch.randn(3 * 8 * 4, 2048, generator=generator)
        self.logits = classes and torch.randn(2048, classes, generator=generator) / 50
        self.protocol = protocol

    def forward(self, pictures: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        small = torch.nn.functional.adaptive_avg_pool2d(pictures.float() / 255, (8, 4))
        features = (small.flatten(1) @ self.features).relu()
        return features if self.logits is None else (features, features @ self.logits)


@pytest.fixture
def quick_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "script.metrics.run.StandardInception", lambda *_: QuickInception(1, 1008, "quick")
    )
    monkeypatch.setattr(
        "script.metrics.run.ImageNetInception", lambda *_: QuickInception(2, None, "quick too")
    )


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is downloaded, and nothing downloaded earlier is found."""

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)


def run(folder: Path, *extra: str, real: bool = False, code: int = 0) -> dict:
    """Run the program on the sets in `folder`; gives metrics.json."""
    arguments = [
        f"--gt_path={folder / 'truth'}", f"--distorated_path={folder / 'results'}",
        f"--output={folder / 'out'}", "--name=./mine", "--workers=0", "--device=cpu",
    ]  # fmt: skip
    if real:
        arguments.append(f"--fid_real_path={folder / 'real'}")
    assert main([*arguments, *extra]) == code
    return json.loads((folder / "out" / "mine_metrics" / "metrics.json").read_text())


def values(report: dict) -> dict[str, float]:
    return {name: figure["value"] for name, figure in report["figures"].items()}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "out" / "mine_metrics" / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def write_annotation(path: Path, names: list[str]) -> None:
    y, x = [-1] * 18, [-1] * 18
    for joint, (row, column) in {0: (14, 31), 1: (24, 32), 8: (60, 28), 11: (60, 38)}.items():
        y[joint], x[joint] = row, column
    lines = [f"{name}: {json.dumps(y)}: {json.dumps(x)}" for name in names]
    path.write_text("\n".join(["name:keypoints_y:keypoints_x", *lines]) + "\n")


def test_every_figure_and_file(sets: Path, weights: list[str], capsys) -> None:
    write_annotation(sets / "annotation.csv", [f"p{number}.jpg" for number in range(13)])
    report = run(
        sets, *weights, "--calculate_mask", f"--annotation={sets / 'annotation.csv'}",
        "--gallery=2", real=True,
    )  # fmt: skip
    assert list(report["figures"]) == [
        "FID_published", "FID_standard", "KID", "IS", "LPIPS", "LPIPS_v0.0",
        "SSIM", "SSIM_256", "PSNR", "L1", "MAE",
        "mask_IS", "mask_LPIPS", "mask_LPIPS_v0.0", "mask_SSIM",
    ]  # fmt: skip
    assert all(np.isfinite(value) for value in values(report).values())
    for name in ("FID_published", "FID_standard", "KID"):
        protocol = report["figures"][name]["protocol"]
        for part in ("8 images, png, 128x64", "12 images, png, 128x64", "sha256", "not"):
            assert part in protocol
        assert any(warning.startswith(name) for warning in report["warnings"])
    assert report["results"]["images"] == 12
    rows = rows_of(sets)
    assert [row["result"] for row in rows] == sorted(row["result"] for row in rows)
    assert rows[0]["source"] == "p0.png"
    assert rows[0]["target"] == "p1.png"
    for name in ("SSIM", "LPIPS", "mask_SSIM", "mask_LPIPS"):
        mean = np.mean([float(row[name]) for row in rows])
        assert mean == pytest.approx(report["figures"][name]["value"], rel=1e-12)
    summary = (sets / "out" / "mine.csv").read_text().splitlines()
    assert summary[0].split(",")[:4] == ["name", "images", "FID_published", "FID_standard"]
    assert summary[1].split(",")[:2] == ["mine", "12"]
    output = capsys.readouterr().out
    for name, figure in report["figures"].items():
        assert name in output
        assert f"{figure['value']:.4f}" in output
    page = (sets / "out" / "mine_metrics" / "gallery.html").read_text()
    assert "p11_2_p12" in page  # the most mixed is among the worst


def test_batch_size_workers_and_order_do_not_matter(
    sets: Path, quick_networks: None, alexnet_file: Path
) -> None:
    weights = [f"--lpips_weights={alexnet_file}"]
    for name, pixels in (("odd", picture(50, (96, 80))), ("p_odd", picture(51, (96, 80)))):
        save(sets / "truth" / f"{name}.png", pixels)
    odd = picture(52, (96, 80))
    save(sets / "results" / "p0_2_odd_vis.png", odd)
    save(sets / "results" / "p3_2_p_odd_vis.png", odd)
    first = run(sets, *weights, "--batch_size=1", real=True)
    rows = rows_of(sets)
    other = sets / "other"  # the same files, made in another order
    for folder in ("truth", "results", "real"):
        for path in sorted((sets / folder).iterdir(), reverse=True):
            (other / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, other / folder)
    second = run(other, *weights, "--batch_size=5", "--workers=2", real=True)
    assert values(first) == pytest.approx(values(second), rel=2e-5, abs=1e-7)
    assert first["figures"]["KID"]["std"] == pytest.approx(
        second["figures"]["KID"]["std"], rel=1e-3, abs=1e-8
    )
    for one, two in zip(rows, rows_of(other), strict=True):
        assert one["result"] == two["result"]
        assert float(one["LPIPS"]) == pytest.approx(float(two["LPIPS"]), rel=1e-4)


def test_set_figures_are_those_of_torch_fidelity(sets: Path, inception_file: Path) -> None:
    import torch_fidelity
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    weights = f"--inception_weights={inception_file}"
    ours = run(sets, weights, "--figures=FID_standard,IS,KID", real=True)["figures"]
    theirs = torch_fidelity.calculate_metrics(
        input1=str(sets / "results"), input2=str(sets / "real"), isc=True, kid=True,
        kid_subset_size=8, cuda=False, cache=False, verbose=False,
        feature_extractor_weights_path=str(inception_file),
    )  # fmt: skip
    assert ours["IS"]["value"] == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    assert ours["IS"]["std"] == pytest.approx(theirs["inception_score_std"], rel=1e-3)
    assert ours["KID"]["value"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)

    extractor = FeatureExtractorInceptionV3(
        "test", ["2048"], feature_extractor_weights_path=str(inception_file)
    )
    means, roots = [], []
    for folder in ("results", "real"):
        pictures = np.stack([np.asarray(Image.open(path)) for path in (sets / folder).iterdir()])
        (features,) = extractor(torch.from_numpy(pictures).movedim(3, 1))
        features = features.double().numpy()
        means.append(features.mean(axis=0))
        roots.append((features - means[-1]) / np.sqrt(len(features) - 1))  # covariance = R'R
    expected = np.square(means[0] - means[1]).sum() + sum(np.square(root).sum() for root in roots)
    expected -= 2 * np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    assert ours["FID_standard"]["value"] == pytest.approx(expected, rel=1e-4)


def test_no_network_names_the_files_and_gives_the_rest(sets: Path, no_network, capsys) -> None:
    report = run(sets, real=True, code=1)
    assert list(report["figures"]) == PLAIN.split(",")
    assert {item["figure"] for item in report["left_out"]} == {
        "FID_published", "FID_standard", "KID", "IS", "LPIPS", "LPIPS_v0.0",
    }  # fmt: skip
    output = capsys.readouterr().out
    for part in (
        "6726825d", "0cc3c7bd", "7be5be79",
        "--inception_weights", "--imagenet_inception_weights", "--lpips_weights",
    ):  # fmt: skip
        assert part in output
    assert "not complete" in output


def test_pairs_split_on_the_last_mark(sets: Path) -> None:
    shutil.copy(sets / "truth" / "p0.png", sets / "truth" / "a_2_b.png")
    save(sets / "results" / "a_2_b_2_p3_vis.png", picture(3))
    report = run(sets, f"--figures={PLAIN}")
    row = next(row for row in rows_of(sets) if row["result"] == "a_2_b_2_p3_vis.png")
    assert row["source"] == "a_2_b.png"
    assert row["target"] == "p3.png"
    assert float(row["L1"]) == 0
    assert float(row["PSNR"]) == float("inf")
    assert np.isfinite(report["figures"]["PSNR"]["value"])
    assert any("PSNR" in warning and "infinite" in warning for warning in report["warnings"])


def test_what_cannot_be_compared_is_reported_and_the_rest_scored(sets: Path, capsys) -> None:
    (sets / "results" / "p0_2_p1_vis.png").write_bytes(b"no picture")
    save(sets / "results" / "p1_2_p2_vis.png", picture(2, (64, 64)))
    save(sets / "results" / "p2_2_absent_vis.png", picture(2))
    save(sets / "results" / "stray.png", picture(2))
    report = run(sets, f"--figures={PLAIN}", code=1)
    assert report["figures"]["SSIM"]["images"] == 10
    text = "\n".join(report["problems"])
    for part in (
        "p0_2_p1_vis.png", "cannot be read", "64x64", "128x64",
        "no ground truth absent", "stray.png",
    ):  # fmt: skip
        assert part in text
    assert len(report["problems"]) == 4
    assert "left out" in capsys.readouterr().out
    empty = [row["result"] for row in rows_of(sets) if not row["SSIM"]]
    assert empty == [
        "p0_2_p1_vis.png", "p1_2_p2_vis.png", "p2_2_absent_vis.png", "stray.png"
    ]  # fmt: skip


def test_greyscale_and_transparency_are_said(sets: Path) -> None:
    truth = picture(1)
    grey = np.asarray(Image.fromarray(truth).convert("L"))
    save(sets / "results" / "p0_2_p1_vis.png", grey)
    Image.fromarray(picture(2)).convert("RGBA").save(sets / "results" / "p1_2_p2_vis.png")
    report = run(sets, f"--figures={PLAIN}")
    assert any("stored as L" in warning for warning in report["warnings"])
    assert any("RGBA" in warning for warning in report["warnings"])
    rows = {row["result"]: row for row in rows_of(sets)}
    expected = np.abs(grey[..., None].astype(float) - truth).mean() / 255
    assert float(rows["p0_2_p1_vis.png"]["L1"]) == pytest.approx(expected, rel=1e-12)
    assert float(rows["p1_2_p2_vis.png"]["L1"]) == 0


@pytest.mark.parametrize(
    ("module", "figure"),
    [("lpips", "LPIPS"), ("torch_fidelity.feature_extractor_inceptionv3", "FID_standard")],
)
def test_without_a_package_the_other_figures_are_there(
    sets: Path, monkeypatch, capsys, module: str, figure: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    report = run(sets, f"--figures=SSIM,{figure}", real=True, code=1)
    assert list(report["figures"]) == ["SSIM"]
    (left_out,) = report["left_out"]
    package = module.partition(".")[0].replace("_", "-")
    assert left_out["figure"] == figure and f"pip install {package}" in left_out["reason"]
    assert f"left out: {figure}: {package} is not installed" in capsys.readouterr().out


def test_one_image_has_no_fid(sets: Path, quick_networks: None) -> None:
    for path in sorted((sets / "results").iterdir())[1:]:
        path.unlink()
    report = run(sets, "--figures=FID_standard,IS,SSIM", real=True, code=1)
    assert list(report["figures"]) == ["SSIM"]
    reasons = {item["figure"]: item["reason"] for item in report["left_out"]}
    assert "1 generated" in reasons["FID_standard"]
    assert "10 splits" in reasons["IS"]


def test_broken_features_cost_their_figures_alone(
    sets: Path, quick_networks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scores that took hours are written all the same."""
    figures = "--figures=KID,FID_standard,IS,SSIM"
    with monkeypatch.context() as spoilt:
        network = QuickInception(1, 1008, "quick")
        network.features[0] = float("nan")
        spoilt.setattr("script.metrics.run.StandardInception", lambda *_: network)
        report = run(sets, figures, real=True, code=1)
    assert list(report["figures"]) == ["SSIM"] and len(rows_of(sets)) == 12
    reasons = {item["figure"]: item["reason"] for item in report["left_out"]}
    assert sorted(reasons) == ["FID_standard", "IS", "KID"]
    for reason in reasons.values():
        assert "broken; check the weight file of the network" in reason
    # Nor does the cache keep them.
    assert set(run(sets, figures, real=True)["figures"]) == {*reasons, "SSIM"}


def test_cached_statistics_notice_a_changed_folder(
    sets: Path, quick_networks: None, capsys, monkeypatch
) -> None:
    arguments = ["--figures=FID_standard,KID,FID_published"]
    first = run(sets, *arguments, real=True)
    cache = sets / "out" / "real_statistics"
    kept = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert len(kept) == 3
    assert not list((sets / "real").glob("*.np*"))
    with monkeypatch.context() as patch:  # nothing is read again
        patch.setattr("script.metrics.image_sets._extract", None)
        assert values(run(sets, *arguments, real=True)) == values(first)
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == kept
    capsys.readouterr()

    save(sets / "real" / "r0.png", picture(77))
    changed = run(sets, *arguments, real=True)
    assert "the images changed since" in capsys.readouterr().out
    assert values(changed)["FID_standard"] != pytest.approx(values(first)["FID_standard"], rel=1e-6)

    for path in cache.iterdir():
        path.write_bytes(path.read_bytes()[:-100])
    assert values(run(sets, *arguments, real=True)) == values(changed)
    assert "damaged" in capsys.readouterr().out


def test_two_runs_may_fill_one_cache_at_the_same_time(
    sets: Path, quick_networks: None, monkeypatch
) -> None:
    arguments = ["--figures=FID_standard,KID", "--batch_size=3"]
    alone = values(run(sets, *arguments, real=True))
    shutil.rmtree(sets / "out")
    original, other = image_sets._Pictures.__getitem__, []

    def in_the_middle(self: object, index: int) -> object:
        if index == 4 and not other:  # the whole of another run between two of our images
            other.append(True)
            with monkeypatch.context() as patch:
                patch.setattr("os.getpid", lambda: 1)
                other.append(values(run(sets, *arguments, real=True)))
        return original(self, index)

    monkeypatch.setattr(image_sets._Pictures, "__getitem__", in_the_middle)
    assert values(run(sets, *arguments, real=True)) == alone
    assert other[1] == alone
    cache = sets / "out" / "real_statistics"
    assert len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({}, "no body"),
        ({1: (24, 32), 8: (300, 28)}, "outside the frame of 128×64"),
    ],
)
def test_key_points_that_make_no_mask_make_no_score(
    sets: Path, points: dict[int, tuple[int, int]], message: str
) -> None:
    write_annotation(sets / "annotation.csv", [f"p{number}.jpg" for number in range(12)])
    y, x = [-1] * 18, [-1] * 18
    for joint, (row, column) in points.items():
        y[joint], x[joint] = row, column
    with open(sets / "annotation.csv", "a") as file:
        file.write(f"p12.jpg: {json.dumps(y)}: {json.dumps(x)}\n")
    masked = ["--calculate_mask", f"--annotation={sets / 'annotation.csv'}"]
    report = run(sets, *masked, "--figures=SSIM,mask_SSIM", code=1)
    assert report["figures"]["mask_SSIM"]["images"] == 11
    assert report["figures"]["SSIM"]["images"] == 12
    assert "p11_2_p12_vis.png: masked figures" in report["problems"][0]
    assert message in report["problems"][0]
    assert "frame of 128x64" in report["figures"]["mask_SSIM"]["protocol"]


def test_annotation_rows_of_the_very_name_count(tmp_path: Path) -> None:
    spelt = "fashionMENa_bid0000000202_1front.jpg"
    write_annotation(tmp_path / "a.csv", ["1_11.jpg", "b.2.jpg", spelt, "./d.jpg"])
    other = "fasionMENabid00000002021front"
    names = ["1_11", "b.2", other, "b", "11_1", "d"]
    poses, notices = read_poses(tmp_path / "a.csv", dict.fromkeys(names), frame=(128, 64))
    assert isinstance(poses["1_11"], np.ndarray)
    assert isinstance(poses["b.2"], np.ndarray)
    assert isinstance(poses[other], np.ndarray) and isinstance(poses["d"], np.ndarray)
    assert "no row" in poses["b"] and "no row" in poses["11_1"]
    assert "2 image names" in notices[-1]


def test_of_25_key_points_the_18_of_the_masks_are_read(tmp_path: Path) -> None:
    of_25 = [*range(30, 38), 99, *range(38, 48), *[99] * 6]
    rows = {"a": [*range(30, 48)], "b": of_25, "c": of_25[1:]}
    lines = [f"{name}.jpg: {values}: {values}" for name, values in rows.items()]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["name:keypoints_y:keypoints_x", *lines]))
    poses, _ = read_poses(path, dict.fromkeys(rows), frame=(128, 64))
    assert poses["a"].tolist() == poses["b"].tolist() == [[value] * 2 for value in range(30, 48)]
    assert poses["c"].endswith("has 24 values, 18 or 25 are needed")


def test_a_picture_too_small_for_a_figure_lacks_only_that(sets: Path, alexnet_file: Path) -> None:
    save(sets / "truth" / "tiny.png", picture(60, (24, 20)))
    save(sets / "results" / "p0_2_tiny_vis.png", picture(61, (24, 20)))
    report = run(sets, "--figures=LPIPS,SSIM,L1", f"--lpips_weights={alexnet_file}", code=1)
    counts = {name: figure["images"] for name, figure in report["figures"].items()}
    assert counts == {"LPIPS": 12, "SSIM": 12, "L1": 13}
    problems = [text for text in report["problems"] if "p0_2_tiny_vis.png" in text]
    assert ["51x51" in problems[0], "LPIPS" in problems[1], len(problems)] == [True, True, 2]


def test_a_gallery_of_earlier_figures_does_not_stay(sets: Path) -> None:
    folder = sets / "out" / "mine_metrics"
    run(sets, "--figures=SSIM", "--gallery=1")
    assert (folder / "gallery.html").is_file()
    run(sets, "--figures=L1")
    assert not (folder / "gallery.html").exists()


def test_flow_error_against_the_true_flow(sets: Path) -> None:
    truth = sets / "flow"
    truth.mkdir()
    for number in range(12):
        visible = np.zeros(SIZE, bool)
        visible[:64] = True
        flow = np.full((2, *SIZE), 10, np.float16)
        flow[:, 64:] = 99  # not visible: does not count
        pair = f"p{number}_2_p{number + 1}"
        np.savez(truth / f"{pair}.npz", flow=flow, visible=visible)
        saved = sets / "results" / "flow" / f"{pair}_flow.npz"
        saved.parent.mkdir(exist_ok=True)
        # At a quarter of the size: (13, 14) px of the picture, off by (3, 4).
        np.savez(saved, flow=np.stack([np.full((32, 16), 13 / 4), np.full((32, 16), 14 / 4)]))
    report = run(sets, f"--flow_path={truth}", "--figures=EPE")
    assert values(report)["EPE"] == pytest.approx(5, rel=1e-5)
    saved.unlink()
    report = run(sets, f"--flow_path={truth}", "--figures=EPE", code=1)
    assert report["figures"]["EPE"]["images"] == 11
    assert "--save_flow" in report["problems"][0]


def test_pg2_protocol(sets: Path) -> None:
    write_annotation(sets / "annotation.csv", [f"p{number}.jpg" for number in range(12)])
    masks = ["--calculate_mask", f"--annotation={sets / 'annotation.csv'}", "--protocol=pg2"]
    figures = "--figures=SSIM_7x7,L1_255,L2_255,PSNR,mask_SSIM_7x7,mask_L1_255"
    report = run(sets, *masks, figures, "--mask_pose=source")
    row = rows_of(sets)[0]
    result = np.asarray(Image.open(sets / "results" / row["result"])).astype(float)
    target = np.asarray(Image.open(sets / "truth" / row["target"])).astype(float)
    assert float(row["L1_255"]) == pytest.approx(np.abs(result - target).mean(), rel=1e-12)
    assert 0 < float(row["mask_L1_255"]) < float(row["L1_255"])
    assert "source pose" in report["figures"]["mask_L1_255"]["protocol"]
    # The last target, p12, has no key points; as a source it is not needed.
    report = run(sets, *masks, figures, code=1)
    assert report["figures"]["mask_SSIM_7x7"]["images"] == 11
    assert report["figures"]["SSIM_7x7"]["images"] == 12
    assert "p12" in report["problems"][0]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--figures=SSIM,FIT"], ["--figures", "FIT", "SSIM_256"]),
        (["--figures=FID_standard"], ["FID_standard", "--fid_real_path"]),
        (["--calculate_mask"], ["--calculate_mask", "--annotation"]),
        (["--device=cuda:99"], ["--device=cuda:99", "cpu"]),
        (["--lpips_weights=nowhere.pth"], ["--lpips_weights", "nowhere.pth"]),
        (["--fid_real_path=nowhere"], ["--fid_real_path", "no folder nowhere"]),
        (["--annotation=nowhere"], ["--annotation", "no file nowhere"]),
        (["--figures=,"], ["--figures is empty"]),
        (["--figures=SSIM", "--gallery=3", "--gallery_by=L1"], ["--gallery_by=L1", "SSIM"]),
        (["--name=.."], ["--name=..", "--output"]),
        (["--device=meta"], ["--device=meta"]),
    ],
)
def test_bad_options_name_the_fix(sets: Path, arguments: list[str], parts: list[str]) -> None:
    with pytest.raises(UserError) as error:
        run(sets, *arguments)
    for part in parts:
        assert part in str(error.value)
    assert not (sets / "out").exists()


def test_bad_folders(sets: Path) -> None:
    shutil.copy(sets / "truth" / "p1.png", sets / "truth" / "p1.jpg")
    with pytest.raises(UserError, match=r"p1\.jpg and p1\.png"):
        run(sets, f"--figures={PLAIN}")
    (sets / "truth" / "p1.jpg").unlink()
    shutil.copy(sets / "results" / "p0_2_p1_vis.png", sets / "results" / "p0_2_p1_vis.jpg")
    with pytest.raises(UserError, match="results of one pair"):
        run(sets, f"--figures={PLAIN}")
    shutil.rmtree(sets / "results")
    with pytest.raises(UserError, match="--distorated_path: there is no folder"):
        run(sets)
    (sets / "results").mkdir()
    with pytest.raises(UserError, match="has no images"):
        run(sets)


def test_the_old_command_line_runs_as_a_program(sets: Path) -> None:
    arguments = [
        "--gt_path=./truth", "--distorated_path=./results", "--name=./fashion",
        f"--figures={PLAIN}",
    ]  # fmt: skip
    script = (
        f"import sys; sys.path.insert(0, {str(PROJECT)!r}); "
        "import runpy; runpy.run_module('script.metrics', run_name='__main__')"
    )
    process = run_python("-c", script, *arguments, folder=sets)
    assert process.returncode == 0, process.stderr
    assert (sets / "eval_results" / "fashion.csv").is_file()
    shutil.rmtree(sets / "results")
    assert_one_line_error(run_python("-c", script, *arguments, folder=sets), "results")


def write_people(path: Path, points: np.ndarray, header: str = "keypoints_y:keypoints_x") -> None:
    """Everybody p0 to p12 with key points [18, 2], (x, y)."""
    columns = [json.dumps(points[:, k].tolist()) for k in (1, 0)]
    rows = [f"p{number}.jpg:{':'.join(columns)}" for number in range(13)]
    path.write_text("\n".join([f"name:{header}", *rows]) + "\n")


def test_key_points_of_another_frame_are_refused_before_any_work(
    sets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = np.array(STANDING, float)
    path = sets / "annotation.csv"

    def refused(*extra: str) -> str:
        with monkeypatch.context() as context, pytest.raises(UserError) as caught:
            context.setattr("script.metrics.run.score_pictures", None)
            run(sets, "--figures=mask_SSIM", "--calculate_mask", f"--annotation={path}", *extra)
        assert "\n" not in str(caught.value) and not (sets / "out").exists()
        return str(caught.value)

    write_people(path, body[:, ::-1])
    assert "x and y seem to be swapped" in refused()
    write_people(path, body / (64, 128))
    assert "in [0, 1]" in refused() and "--old_size 1,1" in refused()
    write_people(path, body * (4, 2))
    assert "outside the frame of 128×64" in refused()
    write_people(path, body)
    assert "--old_size 128,64" in refused("--old_size=256,176")
    write_people(path, np.where(np.arange(18)[:, None] == 4, 0, body))
    assert "12 of 216" in refused() and "--missing 0" in refused()
    for number in range(13):  # pictures of no published size
        save(sets / "truth" / f"p{number}.png", picture(number, (100, 50)))
    assert "100x50" in refused("--missing=0") and "--old_size" in refused("--missing=0")


def test_frames_of_key_points_that_metrics_is_told(sets: Path) -> None:
    body, path = np.array(STANDING, float), sets / "annotation.csv"
    masks = ["--calculate_mask", f"--annotation={path}", "--figures=mask_SSIM"]
    write_people(path, body)
    expected = values(run(sets, *masks))
    assert values(run(sets, *masks, "--old_size=image")) == pytest.approx(expected)
    write_people(path, body / (64, 128))
    assert values(run(sets, *masks, "--old_size=1,1")) == pytest.approx(expected)
    write_people(path, body * 4)
    assert values(run(sets, *masks, "--old_size=512,256")) == pytest.approx(expected)
    write_people(path, body / 4)
    run(sets, *masks, "--old_size=128,64", "--trust_keypoints")


def test_masked_figures_by_hand(sets: Path) -> None:
    from data.body_mask import limb_body_mask
    from util.image_scores import ssim

    write_annotation(sets / "annotation.csv", [f"p{number}.jpg" for number in range(13)])
    run(
        sets, "--calculate_mask", f"--annotation={sets / 'annotation.csv'}", "--figures=mask_SSIM"
    )  # fmt: skip
    row = rows_of(sets)[3]
    pose = read_poses(sets / "annotation.csv", {"p1": None}, frame=SIZE)[0]["p1"]
    mask = limb_body_mask(pose, SIZE)
    assert 100 < mask.sum() < 4000
    result, target = (
        np.asarray(Image.open(sets / folder / row[column])) * mask[..., None]
        for folder, column in (("results", "result"), ("truth", "target"))
    )
    assert float(row["mask_SSIM"]) == pytest.approx(ssim(result, target), rel=1e-12)


@pytest.mark.parametrize(
    ("size", "truth", "advice"),
    [
        ((128, 192), SIZE, "strip"),
        ((64, 32), SIZE, "script.resize_dataset --size=64,32"),
        ((256, 128), SIZE, "script.resize_dataset --size=256,128"),
        ((64, 64), SIZE, "script.resize_dataset --size=64,64"),
        ((120, 100), SIZE, "is this their ground truth?"),
    ],
)
def test_results_of_another_size_than_the_ground_truth(
    sets: Path, size: tuple[int, int], truth: tuple[int, int], advice: str
) -> None:
    save(sets / "truth" / "other.png", picture(60, truth))
    save(sets / "results" / "p0_2_other_vis.png", picture(61, size))
    (problem,) = run(sets, "--figures=L1", code=1)["problems"]
    assert advice in problem
    assert ("resize_dataset" in problem) == ("resize_dataset" in advice)


def turn(path: Path, orientation: int) -> None:
    """Store a PNG so that its EXIF orientation makes of it what it was."""
    method = {3: "ROTATE_180", 5: "TRANSPOSE", 6: "ROTATE_90", 8: "ROTATE_270"}[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        stored = image.transpose(Image.Transpose[method])
    stored.save(path, exif=exif)


def test_turned_pictures_in_every_set_give_the_same_report(
    sets: Path, quick_networks: None
) -> None:
    figures = "SSIM,L1,FID_standard,FID_published,KID,mask_SSIM"
    write_annotation(sets / "annotation.csv", [f"p{number}.jpg" for number in range(13)])
    asked = [f"--figures={figures}", "--calculate_mask", "--gallery=1"]
    asked.append(f"--annotation={sets / 'annotation.csv'}")
    upright, rows = run(sets, *asked, real=True), rows_of(sets)
    page = (sets / "out" / "mine_metrics" / "gallery.html").read_text()
    for folder in ("results", "truth", "real"):
        for number, path in enumerate(sorted((sets / folder).glob("*.png"))):
            turn(path, (3, 5, 6, 8)[number % 4])
    turned = run(sets, *asked, real=True)
    assert rows_of(sets) == rows
    assert values(turned) == values(upright)
    assert {figure: each["protocol"] for figure, each in turned["figures"].items()} == {
        figure: each["protocol"] for figure, each in upright["figures"].items()
    }
    assert (sets / "out" / "mine_metrics" / "gallery.html").read_text() == page


def test_files_that_are_not_read_are_counted_in_every_set(sets: Path, quick_networks: None) -> None:
    report = run(sets, "--figures=L1,FID_standard", real=True)
    assert not [text for text in report["warnings"] if "not read" in text]
    for folder, names in (
        ("results", ["a.heic"]), ("truth", ["a.heic", "b"]), ("real", ["a.raw", "notes.txt", ".x"])
    ):  # fmt: skip
        for name in names:
            (sets / folder / name).write_bytes(b"something")
    report = run(sets, "--figures=L1,FID_standard", real=True)
    told = [text for text in report["warnings"] if "not read" in text]
    assert [text.partition(";")[0] for text in told] == [
        f"{sets / 'results'}: files of types that are not read: 1, namely .heic (1)",
        f"{sets / 'truth'}: files of types that are not read: 2, namely no suffix (1), .heic (1)",
        f"{sets / 'real'}: files of types that are not read: 1, namely .raw (1)",
    ]


def test_a_gallery_of_masked_figures_alone(sets: Path) -> None:
    write_annotation(sets / "annotation.csv", [f"p{number}.jpg" for number in range(13)])
    masks = ["--calculate_mask", f"--annotation={sets / 'annotation.csv'}", "--figures=mask_SSIM"]
    assert "gallery" not in run(sets, *masks, "--gallery=1")["left_out"]
    assert "mask_SSIM" in (sets / "out" / "mine_metrics" / "gallery.html").read_text()


def test_a_turned_picture_is_told_once_by_all_workers(sets: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    for path in sets.glob("*/*.png"):
        Image.open(path).save(path, exif=exif)
    process = run_python(
        "-m", "script.metrics", f"--gt_path={sets / 'truth'}", "--figures=L1",
        f"--distorated_path={sets / 'results'}", f"--output={sets}", "--workers=2",
        "--batch_size=2", "--device=cpu",
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert process.stderr.count("turned upright") == 1
    assert "points, where there are any" in process.stderr


def test_options_that_the_figures_have_no_use_for_are_told(sets: Path, capsys) -> None:
    write_annotation(sets / "annotation.csv", ["p1.jpg"])
    run(
        sets, "--figures=L1", "--calculate_mask", f"--annotation={sets / 'annotation.csv'}",
        f"--flow_path={sets}", "--lpips_weights=x", "--mask_pose=source", "--missing=0",
        "--scratch_dir=x", real=True,
    )  # fmt: skip
    output = capsys.readouterr().out
    for option, what in (
        ("calculate_mask", "mask_SSIM"), ("annotation", "mask_SSIM"), ("flow_path", "EPE"),
        ("fid_real_path", "KID"), ("lpips_weights", "a figure"), ("mask_pose", "mask_SSIM"),
        ("missing", "mask_SSIM"), ("scratch_dir", "temporary files"),
    ):  # fmt: skip
        assert any(
            line.startswith(f"--{option} has no effect without") and what in line
            for line in output.splitlines()
        )


def test_statistics_serve_as_the_real_set(sets: Path, quick_networks: None, capsys) -> None:
    arguments = ["--figures=FID_standard,L1"]
    from_images = values(run(sets, *arguments, real=True))["FID_standard"]
    (cached,) = (sets / "out" / "real_statistics").glob("*-standard.npz")
    with np.load(cached) as arrays:
        mean, covariance = arrays["mean"], arrays["covariance"]
    file = sets / "fid stats.npz"
    np.savez(file, mu=mean, sigma=covariance)
    report = run(sets, *arguments, f"--fid_real_path={file}")
    assert values(report)["FID_standard"] == pytest.approx(from_images, rel=1e-6)
    protocol = report["figures"]["FID_standard"]["protocol"]
    assert "fid stats.npz" in protocol and "not known" in protocol
    assert any("network of FID_standard" in warning for warning in report["warnings"])
    report = run(sets, "--figures=FID_published", f"--fid_real_path={file}")
    assert any("network of FID_published" in warning for warning in report["warnings"])
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mean": np.zeros(2048)}, "holds mean; it must hold mu and sigma"),
        ({"mu": np.zeros(64), "sigma": np.eye(64)}, r"mu is \[64\].*must be \[2048\]"),
        ({"mu": np.full(2048, np.nan), "sigma": np.eye(2048)}, "mu holds NaN"),
        ({"mu": np.zeros(2048), "sigma": np.tri(2048)}, "sigma is no covariance"),
        (None, "cannot be read as statistics"),
    ],
)
def test_files_that_are_no_statistics(sets: Path, quick_networks: None, arrays, message) -> None:
    file = sets / "stats.npz"
    file.write_bytes(b"no archive") if arrays is None else np.savez(file, **arrays)
    with pytest.raises(UserError, match=f"--fid_real_path=.*{message}"):
        run(sets, "--figures=FID_standard", f"--fid_real_path={file}")
    with pytest.raises(UserError, match="KID needs a folder of images"):
        run(sets, "--figures=KID", f"--fid_real_path={file}")
    with pytest.raises(UserError, match="statistics of one network"):
        run(sets, "--figures=FID_standard,FID_published", f"--fid_real_path={file}")


def test_real_folders_of_long_names(sets: Path, quick_networks: None) -> None:
    long = sets / ("ä" * 125)
    (sets / "real").rename(long)
    run(sets, "--figures=KID", f"--fid_real_path={long}")
    (long / "statistics.npz").write_bytes(b"")
    for path in long.glob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match=r"no images; to use statistics\.npz, name that file"):
        run(sets, "--figures=KID", f"--fid_real_path={long}")
