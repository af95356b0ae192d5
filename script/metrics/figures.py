"""The figures that `script.metrics` knows, with the protocol that makes each of them."""

from dataclasses import dataclass

from script.metrics.scoring import PictureScore
from util import image_scores as reconstruction

PROTOCOLS = ("gfla", "pg2")


@dataclass(frozen=True)
class FigureKind:
    """One figure.

    Attributes:
        better: "lower" or "higher".
        protocol: how it is computed, as far as the run does not change it.
        network: "standard", "imagenet", "lpips" or None: what it needs.
        real: it compares with the real set.
        masked: it looks at the body only.
        score: of one pair of pictures; for a masked figure, of pictures black outside the body.
    """

    better: str
    protocol: str
    network: str | None = None
    real: bool = False
    masked: bool = False
    score: PictureScore | None = None

    @property
    def per_image(self) -> bool:
        """Whether each pair has a value of its own (the figure is their mean)."""
        return self.network in (None, "lpips")


_SSIM = "scikit-image SSIM, uniform window 51, data range 1, mean over channels"
_SSIM_PG2 = "scikit-image SSIM, uniform window 7, data range 255, mean over channels"
_LPIPS = "LPIPS, AlexNet, head {}, lpips package, image in [-1, 1]"
_IS = "Inception score, 10 splits, shuffled with torch-fidelity's seed"
_BLACK = "pictures black outside the body"

_GFLA = {
    "FID_published": FigureKind(
        "lower", "FID as published in this line of work, not comparable with FID_standard",
        "imagenet", real=True,
    ),
    "FID_standard": FigureKind("lower", "FID as in pytorch-fid, torch-fidelity", "standard", True),
    "KID": FigureKind("lower", "polynomial kernel of degree 3, unbiased", "standard", True),
    "IS": FigureKind("higher", _IS, "standard"),
    "LPIPS": FigureKind("lower", _LPIPS.format("v0.1"), "lpips"),
    "LPIPS_v0.0": FigureKind("lower", _LPIPS.format("v0.0"), "lpips"),
    "SSIM": FigureKind("higher", _SSIM, score=reconstruction.ssim),
    "SSIM_256": FigureKind(
        "higher",
        "scikit-image SSIM, Gaussian sigma 1.5, population covariance, data range = max - min of "
        "the generated picture in [0, 255]",
        score=reconstruction.ssim_256,
    ),
    "PSNR": FigureKind("higher", "data range 1, dB", score=reconstruction.psnr),
    "L1": FigureKind("lower", "mean |a-b| of pictures in [0, 1]", score=reconstruction.l1),
    "MAE": FigureKind("lower", "sum |a-b| / sum (a+b)", score=reconstruction.mae),
    "mask_IS": FigureKind("higher", f"{_IS}; {_BLACK}", "standard", masked=True),
    "mask_LPIPS": FigureKind(
        "lower", f"{_LPIPS.format('v0.1')}, mid-grey outside the body", "lpips", masked=True
    ),
    "mask_LPIPS_v0.0": FigureKind(
        "lower", f"{_LPIPS.format('v0.0')}, mid-grey outside the body", "lpips", masked=True
    ),
    "mask_SSIM": FigureKind(
        "higher", f"{_SSIM}; {_BLACK}", masked=True, score=reconstruction.ssim
    ),
    "EPE": FigureKind(
        "lower", "flow end-point error in pixels of the picture, mean over a pair's visible pixels"
    ),
}  # fmt: skip

_PG2_PLAIN = {
    "SSIM_7x7": ("higher", _SSIM_PG2, reconstruction.ssim_7x7),
    "PSNR": ("higher", "data range 255, dB", reconstruction.psnr),
    "L1_255": ("lower", "mean |a-b| of pictures in [0, 255]", reconstruction.l1_255),
    "L2_255": ("lower", "sqrt(sum (a-b)^2) / N, pictures in [0, 255]", reconstruction.l2_255),
}
_PG2 = {
    "IS": FigureKind("higher", _IS, "standard"),
    **{name: FigureKind(*kind[:2], score=kind[2]) for name, kind in _PG2_PLAIN.items()},
    "mask_IS": FigureKind("higher", f"{_IS}; {_BLACK}", "standard", masked=True),
    **{
        f"mask_{name}": FigureKind(
            better, f"{text}; {_BLACK} (uint8)", masked=True, score=score
        )
        for name, (better, text, score) in _PG2_PLAIN.items()
    },
}  # fmt: skip

FIGURES: dict[str, dict[str, FigureKind]] = {"gfla": _GFLA, "pg2": _PG2}
