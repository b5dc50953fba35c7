"""FID, KID, precision and recall on InceptionV3's features, through torch-fidelity (an optional extra).

The figures are torch-fidelity's own: its network, its statistics; images are only handed over batch by batch.
"""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass
from typing import Any, List, Sequence, Tuple

import torch

from squeeze_patch.errors import MeasurementError

LAYER = "2048"
#: images in a subset of KID, at most (Binkowski et al. 2018)
KID_SUBSET = 1000


@dataclass(frozen=True)
class InceptionDistances:
    """B's images against A's, A in the place of real images.

    Attributes:
        fid: Frechet inception distance (Heusel et al. 2017, equation 6). It is biased upwards at few images: 50,000
            are usual, and figures of different numbers do not compare.
        kid: kernel inception distance, mean over subsets (Binkowski et al. 2018); may be slightly below 0.
        precision, recall: improved precision and recall, 0 to 1 (Kynkäänniemi et al. 2019), here on InceptionV3's
            features like the others; the paper takes VGG16's, which give other figures.
    """

    fid: float
    kid: float
    precision: float
    recall: float

    def rows(self) -> List[Tuple[str, float]]:
        return [(name if len(name) > 3 else name.upper(), value) for name, value in asdict(self).items()]


class InceptionNetwork:
    """torch-fidelity's InceptionV3.

    Raises:
        MeasurementError: torch-fidelity is not installed, or its weights are not there and cannot be downloaded.
    """

    def __init__(self, device: torch.device) -> None:
        extractor = _module("feature_extractor_inceptionv3").FeatureExtractorInceptionV3
        try:
            self.network: Any = extractor("inception-v3-compat", [LAYER], verbose=False).to(device)
        except (OSError, RuntimeError) as error:  # no network, a broken download
            raise MeasurementError(
                f"InceptionV3's weights are missing and cannot be downloaded ({error}). Run once with access to "
                f"github.com, or put torch-fidelity's weights file into {torch.hub.get_dir()}/checkpoints"
            ) from error

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images [N, 1 or 3, H, W] in [-1, 1] -> features [N, 2048], float32."""
        if images.shape[1] not in (1, 3):
            raise MeasurementError(f"FID is defined for images of 1 or 3 channels, not {images.shape[1]}")
        pixels = (images * 127.5 + 128).clamp(0, 255).to(torch.uint8)
        return self.network(pixels.expand(-1, 3, -1, -1))[0]

    def distances(self, a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> InceptionDistances:
        """Of the features of A's and B's images, batch by batch."""
        real, generated = torch.cat(list(a)), torch.cat(list(b))
        fid, kid, prc = (_module(f"metric_{name}") for name in ("fid", "kid", "prc"))
        statistics = [fid.fid_features_to_statistics(x) for x in (generated, real)]
        subset = min(KID_SUBSET, len(real))
        kernel = kid.kid_features_to_metric(generated, real, kid_subset_size=subset, verbose=False)
        precision, recall = prc.calculate_precision_recall_full(generated, real)
        return InceptionDistances(
            fid=float(fid.fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]),
            kid=float(kernel["kernel_inception_distance_mean"]),
            precision=float(precision),
            recall=float(recall),
        )


def _module(name: str) -> Any:
    try:
        return importlib.import_module(f"torch_fidelity.{name}")
    except (ImportError, RuntimeError) as error:  # the latter from a torchvision that was built for another torch
        raise MeasurementError(
            f"FID needs torch-fidelity 0.4 or newer, which cannot be imported ({error}): "
            "pip install 'squeeze-patch[fid]'"
        ) from error
