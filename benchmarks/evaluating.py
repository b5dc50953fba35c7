"""Generators against the data, on a classifier's features."""

from __future__ import annotations

from typing import Any, Dict

import torch

from benchmarks.data import Classifier, Data
from squeeze_patch.evaluation.distributions import frechet_distance, precision_recall, sliced_wasserstein
from squeeze_patch.sampling import sample

#: seed of the latents that every evaluation of every run uses
EVALUATION_SEED = 12345


def generated(G: Any, count: int) -> torch.Tensor:
    """[count, C, R, R] in [-1, 1], on the CPU: of the same latents and noise every time on a device."""
    device = next(G.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(EVALUATION_SEED)  # of the noise inputs
        return sample(G, count, EVALUATION_SEED, noise_mode="random", batch=100).clamp(-1, 1)


class Evaluation:
    """Compares generators with the data, on the classifier's features; the same latents every time."""

    def __init__(self, data: Data, classifier: Classifier, samples: int) -> None:
        self.classifier, self.samples = classifier, samples
        self.real = classifier.features(data.images).cpu()
        random = torch.Generator().manual_seed(EVALUATION_SEED)
        # every pair is compared for precision, recall and the sliced distance: as many real images as generated ones
        self.part = self.real[torch.randperm(len(self.real), generator=random)[:samples]]

    def __call__(self, G: Any) -> Dict[str, float]:
        there = self.classifier.features(generated(G, self.samples))
        precision, recall = precision_recall(self.part.to(there.device), there)  # all pairs: where that is fast
        features = there.cpu()
        return {
            "frechet": frechet_distance(self.real, features),
            "sliced_wasserstein": sliced_wasserstein(self.part, features),
            "precision": precision,
            "recall": recall,
        }
