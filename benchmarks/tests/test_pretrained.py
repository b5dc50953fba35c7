"""KID on a pretrained network's features: it sees blur, it is measured behind a training and stands in the table."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from benchmarks import jobs, quality
from benchmarks.__main__ import main
from benchmarks.data import load
from benchmarks.pretrained import Pretrained
from squeeze_patch.evaluation.distributions import kernel_distance


@pytest.mark.skipif(not os.environ.get("SQUEEZE_SLOW"), reason="half a minute; SQUEEZE_SLOW=1 runs it")
def test_blur_is_seen() -> None:
    """Two halves of one data set are nearer to each other than either is to its blurred self: by ten times."""
    images = load("photos", 32).images[:600]
    network = Pretrained()
    left, right = (network.features(half) for half in images.split(300))
    assert left.shape == (300, 1280)
    soft = torch.nn.functional.avg_pool2d(images[300:], 3, stride=1, padding=1, count_include_pad=False)
    apart = abs(kernel_distance(left, right))
    assert kernel_distance(left, network.features(soft)) > 10 * apart


def test_grey_images() -> None:
    """As the same ones in three channels; ``--data digits`` has one."""
    images = torch.rand(2, 1, 16, 16) * 2 - 1
    grey, coloured = (Pretrained().features(given) for given in (images, images.repeat(1, 3, 1, 1)))
    assert torch.equal(grey, coloured)


def test_kid_of_a_training(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Of the moving average of every evaluation, which differ, in the table; and nothing is measured twice."""
    monkeypatch.setattr(jobs, "KID_IMAGES", 60)
    monkeypatch.setattr(
        quality, "settings_of", lambda **_: quality.Settings(channels=8, channel_base=64, d_channels=8, samples=64)
    )
    for name in ("a", "b"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(40):
            Image.effect_noise((16, 16), 10 + index).save(tmp_path / "data" / name / f"{index}.png")
    out = tmp_path / "out"
    command = f"quality --out {out} --data {tmp_path / 'data'} --variants dense --seeds 0 --kimg 0.064 --every 0.032"

    def done(*options: str) -> str:
        result = CliRunner().invoke(main, [*command.split(), *options], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    done("--averages")
    (out / "dense-seed0.pt").unlink()  # the averages are enough
    output = done("--kid", "--report")
    found = json.loads((out / "dense-seed0.kid.json").read_text())
    assert found.keys() == {"0.032", "0.064"}
    assert len({*found.values()}) == 2
    assert f"{1000 * found['0.064']:.2f}" in output.splitlines()[-2].split()
    assert [line.split(": ")[0] for line in output.splitlines()].count("dense seed 0") == 2
    assert "dense seed 0" not in done("--kid", "--report")
