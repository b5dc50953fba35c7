"""Train the dense generator: python train.py, about two minutes of one core. README.md says how it is squeezed."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from discs import WEIGHTS
from discs.network import Generator


def discs(z: torch.Tensor, size: int) -> torch.Tensor:
    """The images [N, 3, size, size] that latents [N, 16] mean."""
    axis = torch.linspace(-1, 1, size)
    x, y = axis[None, None, :], axis[None, :, None]
    place, said = 0.6 * z[:, :2].tanh(), z[:, 2:].tanh()
    far = ((x - place[:, 0, None, None]).square() + (y - place[:, 1, None, None]).square()).sqrt()
    radius = 0.45 + 0.2 * said[:, 0, None, None]
    inside = torch.sigmoid((radius - far) * 12)[:, None]  # [N, 1, size, size]
    colour, behind = said[:, 1:4, None, None], said[:, 4:7, None, None]
    return inside * colour + (1 - inside) * behind * (0.7 + 0.3 * y[:, None])


def train(steps: int, batch: int = 32) -> Generator:
    """Least squares; as the latents say what is to be seen, no discriminator is needed."""
    torch.manual_seed(0)
    G = Generator()
    rates = [{"params": G.synthesis.parameters(), "lr": 0.01}, {"params": G.mapping.parameters(), "lr": 0.5}]
    optimiser = torch.optim.Adam(rates, betas=(0.0, 0.99))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        z = torch.nn.functional.normalize(torch.randn(batch, G.z_dim)) * G.z_dim**0.5
        loss = (G(z, noise_mode="const") - discs(z, G.img_resolution)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step + 1}: loss {loss.item():.4f}", flush=True)
    with torch.no_grad():
        G.mapping.w_avg.copy_(G.mapping(torch.randn(10_000, G.z_dim)).mean(dim=0))
    return G


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=WEIGHTS / "dense.pt")
    given = parser.parse_args()
    torch.save({"G_ema": train(given.steps).state_dict()}, given.out)


if __name__ == "__main__":
    main()
