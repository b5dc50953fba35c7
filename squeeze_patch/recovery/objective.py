"""What the student is trained for: the teacher's images and features of the same styles.

Training a small network on the outputs of a large one is distillation (Hinton et al. 2015); matching features of inner
layers beside them comes from FitNets (Romero et al. 2015, eq. 3). Both generators' features have c channels, so the
regressor that FitNets puts between the two is not needed; what a narrowed block hands on is compared with the channels
that it has kept, in the size that demodulation gives them.
"""

from __future__ import annotations

import contextlib
import importlib
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

import torch

from squeeze_patch.adapters.located import Located
from squeeze_patch.errors import SqueezeError
from squeeze_patch.recovery.pair import Pair
from squeeze_patch.recovery.settings import Settings

#: (student's images, teacher's images) [N, C, R, R] in [-1, 1] -> mean distance, a scalar
Distance = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class FeatureTaps:
    """Catches the features that named blocks of a network hand on."""

    def __init__(self) -> None:
        self.features: Dict[str, torch.Tensor] = {}

    @contextlib.contextmanager
    def on(self, side: Located, names: Sequence[str]) -> Iterator[None]:
        """Listen for the length of a ``with`` block; the hooks are gone afterwards, so that no file has them."""
        handles = [side.surgery.watch(side.network, name, self._catcher(name)) for name in names]
        try:
            yield
        finally:
            for handle in filter(None, handles):  # an adapter may have blocks that cannot be watched
                handle.remove()
            self.features.clear()

    def _catcher(self, name: str) -> Callable[[torch.Tensor], None]:
        def catch(x: torch.Tensor) -> None:
            self.features[name] = x.float()

        return catch

    def take(self) -> Dict[str, torch.Tensor]:
        taken, self.features = self.features, {}
        return taken


class Targets:
    """The teacher's images and features for given styles.

    Args:
        probe: styles [N, num_ws, w_dim] on which the sizes of a narrowed student's channels are measured, before it is
            trained.
    """

    def __init__(self, pair: Pair, noise_mode: str, probe: torch.Tensor) -> None:
        self.pair, self.noise_mode, self.taps = pair, noise_mode, FeatureTaps()
        self.sizes = self._sizes(probe) if pair.handed else {}

    @torch.no_grad()
    def __call__(self, w: torch.Tensor, first: int = 0) -> Tuple[torch.Tensor, Dict[str, torch.Tensor]]:
        """Styles [N, num_ws, w_dim] at the places from ``first`` on of a batch -> images [N, C, R, R], {block: features
        [N, c or q, r, r]}, float32."""
        images, features = self._run(self.pair.teacher, w, first)
        for name, size in self.sizes.items():
            if name in features:
                features[name] = self._handed(name, features[name]) * size
        return images, features

    def _run(self, side: Located, w: torch.Tensor, first: int = 0) -> Tuple[torch.Tensor, Dict[str, torch.Tensor]]:
        with self.taps.on(side, self.pair.tapped):
            return self.pair.images(side, w, self.noise_mode, first), self.taps.take()

    def _handed(self, name: str, features: torch.Tensor) -> torch.Tensor:
        return features[:, self.pair.handed[name].to(features.device)]

    @torch.no_grad()
    def _sizes(self, w: torch.Tensor) -> Dict[str, torch.Tensor]:
        """{block: how large the student's channels are beside the teacher's [q, 1, 1]}, by least squares."""
        mine, theirs = (self._run(side, w)[1] for side in (self.pair.student, self.pair.teacher))
        found = {}
        for name in self.pair.handed:
            a, b = (x - x.mean(dim=[0, 2, 3], keepdim=True) for x in (mine[name], self._handed(name, theirs[name])))
            power = b.square().sum(dim=[0, 2, 3]).clamp_min(torch.finfo(torch.float32).tiny)
            found[name] = ((a * b).sum(dim=[0, 2, 3]) / power)[:, None, None]
        return found


class Objective(torch.nn.Module):
    """The loss of a batch: mean squared error of the images plus, weighted, that of every block's features.

    It is a mean over the batch of terms of single images, so the mean over equal shares is the loss of the whole:
    features are divided by a power that is measured once, not by that of the batch at hand.

    Args:
        pair: the student is trained, in place.
        settings: the weight of LPIPS, and the noise.
        power: {block: mean square of the teacher's features}.
        distance: LPIPS, or None.
    """

    def __init__(self, pair: Pair, settings: Settings, power: Dict[str, float], distance: Optional[Distance]) -> None:
        super().__init__()
        self.pair, self.network = pair, pair.student.network
        self.noise_mode = settings.noise_mode
        self.distance_weight = settings.lpips_weight
        self.power, self.distance, self.taps = power, distance, FeatureTaps()

    def forward(
        self,
        w: torch.Tensor,
        images: torch.Tensor,
        features: Dict[str, torch.Tensor],
        feature_weight: float,
        first: int = 0,
    ) -> torch.Tensor:
        """Styles [N, num_ws, w_dim] at the places from ``first`` on of a batch, the teacher's images and features ->
        the loss, a scalar."""
        made = self.pair.images(self.pair.student, w, self.noise_mode, first)
        loss = (made - images).square().mean()
        for name, mine in self.taps.take().items():
            loss = loss + feature_weight * (mine - features[name]).square().mean() / self.power[name]
        if self.distance is not None:
            loss = loss + self.distance_weight * self.distance(made, images)
        return loss


def feature_power(targets: Targets, w: torch.Tensor) -> Dict[str, float]:
    """{block: mean square of the teacher's features} over styles [N, num_ws, w_dim]; never 0."""
    _, features = targets(w)
    tiny = torch.finfo(torch.float32).tiny
    return {name: max(float(value.square().mean()), tiny) for name, value in features.items()}


def lpips_distance(device: torch.device) -> Distance:
    """LPIPS with VGG features (Zhang et al. 2018), by the package lpips.

    Raises:
        SqueezeError: the package is not installed.
    """
    try:
        lpips = importlib.import_module("lpips")
    except ImportError as error:
        raise SqueezeError(
            f"LPIPS needs the package lpips ({error}): pip install lpips, or leave the LPIPS weight at 0"
        ) from error
    measure = lpips.LPIPS(net="vgg", verbose=False).to(device).eval().requires_grad_(False)

    def distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Grey images [N, 1, R, R] count as three equal channels."""
        colour: List[torch.Tensor] = [x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x[:, :3] for x in (a, b)]
        return measure(*colour).mean()

    return distance
