"""Write the squeezed generator as ONNX, latents in, images out: python export.py."""

from __future__ import annotations

import torch
from discs import WEIGHTS, squeezed
from discs.network import Generator


class Images(torch.nn.Module):
    """Latents z [1, 16] -> images [1, 3, 16, 16], with the stored noise."""

    def __init__(self, G: Generator) -> None:
        super().__init__()
        self.G = G

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.G(z, noise_mode="const")


if __name__ == "__main__":
    G = squeezed()
    how = {"input_names": ["z"], "output_names": ["images"], "dynamo": False}
    torch.onnx.export(Images(G).eval(), (torch.zeros(1, G.z_dim),), str(WEIGHTS / "discs.onnx"), **how)
