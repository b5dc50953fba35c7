"""Other readings of the connection can be trained, at the stated size; their table is made of what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from benchmarks.variants import VARIANTS, count
from experiments.__main__ import main
from experiments.readings import READINGS
from tests.hosts import Host


@pytest.mark.parametrize("name", READINGS)
def test_readings_train_at_the_stated_size(name: str, draggan: Host) -> None:
    """Within 1.5 % of the squeezed generator's parameters, ratios apart (channels come whole), no parameter unused."""

    def dense(**changes: Any) -> Any:
        sizes = {"channel_base": 256, "channel_max": 32, **changes}
        return draggan.generator(16, w_dim=64, img_channels=1, **sizes)

    G = READINGS[name](dense).train()
    if not name.startswith("ratio"):
        target = count(VARIANTS["squeezed"](dense))
        assert abs(count(G) / target - 1) < 0.015, (count(G), target)
    G(torch.randn(2, 64), torch.zeros(2, 0)).square().sum().backward()
    assert [key for key, parameter in G.named_parameters() if parameter.grad is None] == []


def test_the_table(tmp_path: Path) -> None:
    point = {"seconds": 1.0, "sliced_wasserstein": 0.1, "precision": 0.5, "recall": 0.5}
    for name, distance in (("dense", 4.0), ("excite-activated", 2.0)):
        curve = [{"kimg": kimg, "frechet": distance, **point} for kimg in (10.0, 20.0)]
        (tmp_path / f"{name}-seed0.json").write_text(json.dumps(curve))
    options = ["--out", str(tmp_path), "--report", "--kimg", "20"]
    done = CliRunner().invoke(main, ["ablation", *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    line = done.output.splitlines()[2]
    assert line.split() == [
        "excite",
        "activated",
        "0",
        "1",
        "2.00",
        "(2.00",
        "to",
        "2.00)",
        "0.50",
        "(0.00",
        "to",
        "inf)",
    ]
    assert (tmp_path / "ablation.png").is_file()
    done = CliRunner().invoke(main, ["ablation", *options, "--variants", "excited"])
    assert done.exit_code == 2
    assert "no variant 'excited'; there are dense, squeezed, narrowed, excite starts" in done.output
