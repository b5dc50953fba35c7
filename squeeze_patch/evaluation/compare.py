"""Two generators on the same latents: images, features between blocks, and the distributions of their images.

Images are looked at batch by batch and let go; what stays in memory are 64 features an image and at most
`MOST_PATCHES` patches a pyramid level, whatever the number and size of images.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch

from squeeze_patch.adapters import sampler, unwrapped
from squeeze_patch.adapters.content import Sampler
from squeeze_patch.adapters.layers import reference_of
from squeeze_patch.conditioning import in_words
from squeeze_patch.errors import MeasurementError, UnsupportedModelError
from squeeze_patch.evaluation.block_features import BlockFeatures, FeatureDistance
from squeeze_patch.evaluation.descriptors import PATCHES, RandomNetwork, normalised, patches, pyramid
from squeeze_patch.evaluation.distributions import NEIGHBOURS, frechet_distance, sliced_wasserstein
from squeeze_patch.evaluation.inception import InceptionDistances, InceptionNetwork
from squeeze_patch.evaluation.pixels import WINDOW, decibels, ssim
from squeeze_patch.progress import Progress, own_settings
from squeeze_patch.sampling import NOISE_MODES, draw, evaluation, latents

SAMPLES = 256
#: patches a pyramid level in all; Karras et al. (2018) take 128 an image, as is done here up to 256 images
MOST_PATCHES = 2**15
#: of the random network and of the directions: fixed, so that figures of different latents compare
FEATURE_SEED = 0
#: pixels a batch where no batch size is given: 16 images of 256x256, one of 1024x1024
_BATCH_PIXELS = 2**20
#: what has to be known of distances between distributions
HALVES = "halves: the same between two halves of A's images; these distances compare only with themselves"


@dataclass(frozen=True)
class Distance:
    """Between A's and B's images: ``value``. ``halves`` is the same between the two halves of A's own images, each
    half as many: what chance alone makes; None where there are fewer than four images."""

    value: float
    halves: Optional[float]


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; prints as a table.

    Attributes:
        images: number of latents.
        seed, noise_mode, truncation: how they were drawn and run.
        squared_error: mean over all pixels, images in [-1, 1].
        ssim: mean structural similarity, 1 = equal (Wang et al. 2004); None where images are smaller than its window.
        features: distance of the features between blocks, one a resolution.
        features_missing: why ``features`` lacks some or all resolutions, else "".
        frechet: squared Frechet distance on the features of `descriptors.RandomNetwork`.
        sliced_wasserstein: {resolution: sliced Wasserstein distance of normalised 7x7 patches of that level of a
            Laplacian pyramid} (Karras et al. 2018, section 5; they print it times 1,000).
        inception: FID, KID, precision and recall of B's images against A's, where asked for.
        labels: which ones the images had, in words; "" where generators take none.
    """

    images: int
    seed: int
    noise_mode: str
    truncation: float
    squared_error: float
    ssim: Optional[float]
    features: Tuple[FeatureDistance, ...]
    features_missing: str
    frechet: Distance
    sliced_wasserstein: Dict[int, Distance]
    inception: Optional[InceptionDistances] = None
    labels: str = ""

    @property
    def psnr(self) -> float:
        """Peak signal-to-noise ratio in dB over all images, peak 2; inf where they are equal."""
        return decibels(self.squared_error)

    def to_dict(self) -> Dict[str, Any]:
        """Plain numbers, strings, lists and dicts for JSON; ``psnr`` is None where the images are equal."""
        ratio = None if math.isinf(self.psnr) else self.psnr
        levels = {str(resolution): asdict(level) for resolution, level in self.sliced_wasserstein.items()}
        return {**asdict(self), "sliced_wasserstein": levels, "psnr": ratio}

    def rows(self) -> List[Tuple[str, str, str]]:
        """(name, value, what two halves of A's images give or "") of every figure, in words."""
        similarity = f"none: images are smaller than {WINDOW} pixels" if self.ssim is None else f"{self.ssim:.4f}"
        rows = [("PSNR", "equal" if math.isinf(self.psnr) else f"{self.psnr:.1f} dB", ""), ("SSIM", similarity, "")]
        rows += [
            (f"features {row.resolution}x{row.resolution}", f"{100 * row.relative:.2f} % apart", "")
            for row in self.features
        ]
        if self.features_missing:
            rows.append(("features", self.features_missing, ""))
        rows.append(_distance("Frechet, random network", self.frechet))
        rows += [
            _distance(f"sliced Wasserstein {resolution}", level)
            for resolution, level in self.sliced_wasserstein.items()
        ]
        if self.inception is not None:
            rows += [(name, f"{value:.4g}", "") for name, value in self.inception.rows()]
        return rows

    @property
    def setting(self) -> str:
        """How the latents were drawn and run, in words."""
        truncation = "" if self.truncation == 1 else f", truncation {self.truncation:g}"
        labels = f", labels {self.labels}" if self.labels else ""
        return f"{self.images} latents (seed {self.seed}), noise {self.noise_mode}{truncation}{labels}"

    def __str__(self) -> str:
        lines = [
            f"{name:<24} {value}" + (f"  (halves {halves})" if halves else "") for name, value, halves in self.rows()
        ]
        return "\n".join([self.setting, *lines, f"({HALVES})"])


@own_settings()
def compare(
    a: Any,
    b: Any,
    samples: int = SAMPLES,
    seed: int = 0,
    noise_mode: str = "const",
    *,
    truncation: float = 1.0,
    batch: Optional[int] = None,
    fid: bool = False,
    progress: Optional[Progress] = None,
) -> Comparison:
    """Compare two generators on the same latents and labels; changes neither, nor torch's random state.

    Args:
        a, b: generators of equal latents, labels (`squeeze_patch.labels`) and image size, of any families; one that no
            adapter knows is called as ``G(z, c, noise_mode=...)``. They may be on different devices; figures are
            computed on that of ``a``.
        samples: number of latents, 2 or more. Distances between distributions shrink as it grows: compare them at
            equal numbers only.
        seed: of the latents, the random network and the patches.
        noise_mode: "const" or "none". "const" takes each generator's own noise, which `apply` and `convert` keep.
        truncation: psi, 1 = none; towards w_avg, or, in families that store none, the mean of thousands of styles.
        batch: images at a time; default 16, fewer above 256x256.
        fid: also FID, KID, precision and recall, through torch-fidelity (``pip install squeeze-patch[fid]``).
        progress: called with ("images", done, in all).

    Raises:
        MeasurementError: the generators do not fit each other, an argument is out of range, images hold values that
            are not finite, or torch-fidelity or its weights are missing.

    Example:
        >>> from squeeze_patch.demo import trained_generator
        >>> squeezed = squeeze_patch.apply(trained_generator())
        >>> found = squeeze_patch.compare(trained_generator(), squeezed, samples=16, noise_mode="none")
        >>> 25 < found.psnr < 40
        True
    """
    _check(samples, noise_mode, batch, truncation)
    a, b = unwrapped(a), unwrapped(b)
    sources = _samplers(a, b)
    if fid and samples <= NEIGHBOURS:
        raise MeasurementError(f"precision and recall need more than {NEIGHBOURS} samples, not {samples}")
    device = reference_of(a).device
    inception = InceptionNetwork(device) if fid else None
    z, c = latents(sources[0], samples, seed)
    size = batch or default_batch(sources[0].img_resolution)
    pixels = _Pixels()
    sets: Optional[Tuple[_Set, _Set]] = None
    with evaluation(a), evaluation(b), BlockFeatures(a, b) as taps:
        for start in range(0, samples, size):
            chosen = slice(start, start + size)
            x = draw(sources[0], z[chosen], c[chosen], noise_mode, truncation, start)
            y = draw(sources[1], z[chosen], c[chosen], noise_mode, truncation, start).to(device)
            _check_images(x, y)
            if sets is None:
                network = RandomNetwork(x.shape[1], FEATURE_SEED, device)
                sets = (_Set(network, samples, seed, inception), _Set(network, samples, seed, inception))
            pixels.add(x, y)
            sets[0].add(x)
            sets[1].add(y)
            if progress is not None:
                progress("images", min(start + size, samples), samples)
        features, missing = taps.distances()
    assert sets is not None
    return Comparison(
        images=samples,
        seed=seed,
        noise_mode=noise_mode,
        truncation=truncation,
        squared_error=pixels.squared_error(),
        ssim=pixels.ssim(),
        features=features,
        features_missing=missing,
        frechet=_between(sets[0].features, sets[1].features, samples, frechet_distance),
        sliced_wasserstein={
            resolution: _between(level, sets[1].levels[resolution], samples, _swd)
            for resolution, level in sets[0].levels.items()
        },
        inception=None if inception is None else inception.distances(sets[0].inception, sets[1].inception),
        labels=in_words(sources[0].c_dim),
    )


def default_batch(resolution: int) -> int:
    """Images at a time: 16, fewer above 256x256."""
    return max(1, min(16, _BATCH_PIXELS // resolution**2))


class _Pixels:
    """Sums over pairs of images."""

    def __init__(self) -> None:
        self.error, self.count = 0.0, 0
        self.similarities: List[torch.Tensor] = []

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.error += float((x.double() - y.double()).square().sum())
        self.count += x.numel()
        if min(x.shape[2:]) >= WINDOW:
            self.similarities.append(ssim(x, y).cpu())

    def squared_error(self) -> float:
        return self.error / self.count

    def ssim(self) -> Optional[float]:
        return float(torch.cat(self.similarities).mean()) if self.similarities else None


class _Set:
    """What is kept of one generator's images: one tensor a batch in every list."""

    def __init__(
        self,
        network: RandomNetwork,
        samples: int,
        seed: int,
        inception: Optional[Callable[[torch.Tensor], torch.Tensor]],
    ) -> None:
        self.network, self.inception_network = network, inception
        self.per_image = max(1, min(PATCHES, MOST_PATCHES // samples))
        # One stream of places a level, the same for both generators: equal images are then at distance 0
        self.places: Dict[int, torch.Generator] = {}
        self.seed = seed
        self.features: List[torch.Tensor] = []
        self.inception: List[torch.Tensor] = []
        self.levels: Dict[int, List[torch.Tensor]] = {}

    def add(self, images: torch.Tensor) -> None:
        self.features.append(self.network(images).cpu())
        for level in pyramid(images):
            resolution = level.shape[-1]
            places = self.places.setdefault(resolution, torch.Generator().manual_seed(self.seed))
            self.levels.setdefault(resolution, []).append(patches(level, self.per_image, places).cpu())
        if self.inception_network is not None:
            self.inception.append(self.inception_network(images).cpu())


def _between(
    a: Sequence[torch.Tensor],
    b: Sequence[torch.Tensor],
    samples: int,
    distance: Callable[[torch.Tensor, torch.Tensor], float],
) -> Distance:
    """``a`` and ``b`` have as many rows for each of ``samples`` images; no image is in both halves."""
    whole = torch.cat(list(a))
    half = samples // 2 * (len(whole) // samples)
    halves = distance(whole[:half], whole[half : 2 * half]) if samples >= 4 else None
    return Distance(distance(whole, torch.cat(list(b))), halves)


def _swd(x: torch.Tensor, y: torch.Tensor) -> float:
    return sliced_wasserstein(normalised(x), normalised(y), FEATURE_SEED)


def _check(samples: int, noise_mode: str, batch: Optional[int], truncation: float) -> None:
    if samples < 2:
        raise MeasurementError(f"samples has to be 2 or more, not {samples}: distances need covariances")
    if batch is not None and batch < 1:
        raise MeasurementError(f"batch has to be 1 or more, not {batch}")
    if noise_mode not in NOISE_MODES:
        raise MeasurementError(
            f"noise_mode has to be one of {', '.join(NOISE_MODES)}, not {noise_mode!r}; random noise would differ"
        )
    if not math.isfinite(truncation):
        raise MeasurementError(f"truncation has to be a finite number, not {truncation}")


def _samplers(a: Any, b: Any) -> Tuple[Sampler, Sampler]:
    """How both are run, where their latents and images fit each other."""
    found = []
    for which, G in (("A", a), ("B", b)):
        try:
            found.append(sampler(G))
        except UnsupportedModelError as error:
            raise MeasurementError(f"{which}: {error}") from error
    for name, what in (("z_dim", "latent size"), ("c_dim", "number of classes"), ("img_resolution", "image size")):
        one, other = (getattr(source, name) for source in found)
        if one != other:
            raise MeasurementError(f"A has {what} {one}, B {other}; only generators of one {what} can be compared")
    return found[0], found[1]


def _check_images(x: torch.Tensor, y: torch.Tensor) -> None:
    if x.shape != y.shape:
        raise MeasurementError(f"A makes images [N, C, H, W] of {[*x.shape]}, B of {[*y.shape]}; they have to be equal")
    for which, images in (("A", x), ("B", y)):
        if not torch.isfinite(images).all():
            raise MeasurementError(f"{which}'s images hold values that are not finite: that generator has diverged")


def _distance(name: str, found: Distance) -> Tuple[str, str, str]:
    return name, f"{found.value:.4g}", "" if found.halves is None else f"{found.halves:.4g}"
