"""Other readings of the connection can be trained, at the stated size; their table is made of what is there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from benchmarks.variants import VARIANTS, Dense, count
from experiments.__main__ import main
from experiments.readings import READINGS
from tests.hosts import Host

#: variants that only let toRGB read fewer channels: one in so many
SHARES = {"torgb reads half": 2, "torgb reads a quarter": 4, "torgb reads an eighth": 8}


def dense_of(host: Host) -> Dense:
    """Channels 32, 32, 16."""

    def dense(**changes: Any) -> Any:
        sizes = {"channel_base": 256, "channel_max": 32, **changes}
        return host.generator(16, w_dim=64, img_channels=1, **sizes)

    return dense


SLOW = pytest.mark.skipif(
    not os.environ.get("SQUEEZE_SLOW"), reason="its size is searched for a quarter of a minute; SQUEEZE_SLOW=1 runs it"
)
SEARCHED = ("torgb reads a quarter budget", "ratio 4 widened", "torgb reads behind excite")


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW if name in SEARCHED else ()) for name in READINGS])
def test_readings_train_at_the_stated_size(name: str, draggan: Host) -> None:
    """Within 1.5 % of the squeezed generator's parameters, or of the dense one's where the name says dense (channels
    come whole; ratios and shares are as large as they come out); no parameter unused."""
    dense = dense_of(draggan)
    G = READINGS[name](dense).train()
    if not name.startswith("ratio ") and name not in SHARES:
        target = count(VARIANTS["dense" if name.startswith("dense") else "squeezed"](dense))
        assert abs(count(G) / target - 1) < 0.015, (count(G), target)
    G(torch.randn(2, 64), torch.zeros(2, 0)).square().sum().backward()
    assert [key for key, parameter in G.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize(("name", "part"), SHARES.items())
def test_torgb_on_few_channels(name: str, part: int, draggan: Host) -> None:
    """A channel that toRGB reads costs a weight an image channel and a row of its affine, 64 + 1; one of the last
    block's conv1, which nobody else reads, nine weights an input and its bias, too."""
    dense = dense_of(draggan)
    unread = {c: c - c // part for c in (32, 16)}
    fewer = (2 * unread[32] + unread[16]) * (1 + 65) + unread[16] * (9 * 16 + 1)
    G = READINGS[name](dense).eval()
    assert count(G) == count(dense()) - fewer
    features = torch.randn(1, 32, 4, 4)
    w = torch.randn(1, 64)
    torgb = G.synthesis.b4.torgb
    changed = features.clone()
    changed[:, 32 // part :] += 1
    assert torch.equal(torgb(features, w), torgb(changed, w))
    changed[:, 32 // part - 1] += 1
    assert not torch.equal(torgb(features, w), torgb(changed, w))


@pytest.mark.parametrize(("name", "factor"), [("dense torgb learns at half", 0.5), ("excite learns threefold", 3.0)])
def test_learning_rates_leave_the_function_alone(name: str, factor: float, draggan: Host) -> None:
    """The same images as without, until the weights move: by the same step in a weight the function moves ``factor``
    times as far."""
    dense = dense_of(draggan)
    torch.manual_seed(0)
    plain = VARIANTS["dense" if name.startswith("dense") else "squeezed"](dense).eval()
    torch.manual_seed(0)
    slower = READINGS[name](dense).eval()
    z, c = torch.randn(2, 64), torch.zeros(2, 0)
    images = [G(z, c, noise_mode="none") for G in (plain, slower)]
    assert torch.allclose(*images, atol=1e-5)  # of images up to 4: float32 rounds the scaled weights anew
    kind = "torgb" if name.startswith("dense") else "excite"
    layers = [getattr(G.synthesis.b4, kind) for G in (plain, slower)]
    assert layers[1].weight_gain == pytest.approx(factor * layers[0].weight_gain)
    assert torch.allclose(layers[1].weight * factor, layers[0].weight)


def test_the_table(tmp_path: Path) -> None:
    point = {"seconds": 1.0, "sliced_wasserstein": 0.1, "precision": 0.5, "recall": 0.5}
    for name, distance in (("dense", 4.0), ("excite-activated", 2.0)):
        curve = [{"kimg": kimg, "frechet": distance, **point} for kimg in (10.0, 20.0)]
        (tmp_path / f"{name}-seed0.json").write_text(json.dumps(curve))
    options = ["--out", str(tmp_path), "--report", "--kimg", "20"]
    done = CliRunner().invoke(main, ["ablation", *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    line = done.output.splitlines()[2]
    assert " ".join(line.split()) == "excite activated 0 1 2.00 (2.00 to 2.00) 0.50 (0.00 to inf); 0.00"
    assert (tmp_path / "ablation.png").is_file()
    done = CliRunner().invoke(main, ["ablation", *options, "--variants", "excited"])
    assert done.exit_code == 2
    assert "no variant 'excited'; there are dense, squeezed, narrowed, half" in done.output
