"""Generators of lucidrains' family are run, compared, measured and recovered: in memory, and as files."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Iterator

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import locate, sampler
from squeeze_patch.adapters.lucidrains.running import PLACES, fixed_noise
from squeeze_patch.checkpoints.bodies import stand_in
from squeeze_patch.errors import SqueezeError
from squeeze_patch.evaluation.compare import compare
from squeeze_patch.evaluation.grids import first_images
from squeeze_patch.progress import one_thread
from squeeze_patch.recovery.pair import pair_of
from squeeze_patch.recovery.processes import current
from squeeze_patch.recovery.settings import Settings
from squeeze_patch.recovery.trainer import Training, training_mode
from squeeze_patch.sampling import sample
from squeeze_patch.testing import float_error, trained
from tests.helpers import cli, same, save_wrapper, tensors, trained_wrapper
from tests.hosts.lucidrains import LucidrainsHost


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On networks as small as these, threads only wait for one another."""
    with one_thread():
        yield


def run(*arguments: Any) -> str:
    code, out, err = cli(*arguments)
    assert code == 0, err
    return out


def averaged(gan: Any) -> torch.nn.ModuleDict:
    return torch.nn.ModuleDict({"S": gan.SE, "G": gan.GE})


@pytest.mark.parametrize("ratio", [None, 2])
@pytest.mark.parametrize("transparent", [False, True])
def test_a_state_dict_makes_the_hosts_images(lucidrains: LucidrainsHost, ratio: Any, transparent: bool) -> None:
    G = trained(lucidrains.generator(transparent=transparent))
    if ratio:
        squeeze_patch.apply(G, ratio=ratio)
    body = stand_in(G.state_dict())
    assert type(body["G"]).__module__.startswith("squeeze_patch.")
    z, c = lucidrains.latents(G)
    w = torch.randn([3, G["G"].num_layers, 32], generator=torch.Generator().manual_seed(0))
    noise = lucidrains.noise(G, 3)
    expected = G["G"](w, noise).detach()
    assert (body["G"](w, noise).detach() - expected).abs().max() <= float_error(G, expected)
    quiet = sampler(body).images(z, c, "none", 1.0).detach()
    expected = lucidrains.images(G, z, c, "none").detach() * 2 - 1  # 0 to 1 becomes -1 to 1
    assert (quiet - expected).abs().max() <= float_error(G, expected)
    noisy = sampler(body).images(z, c, "const", 1.0).detach()
    assert torch.equal(noisy, sampler(body).images(z, c, "const", 1.0).detach())
    assert (noisy - quiet).abs().max() > 100 * float_error(G, expected)  # the noise matters


def test_truncation_moves_towards_the_mean_style(lucidrains: LucidrainsHost) -> None:
    G = trained(lucidrains.generator())
    found = locate(G)
    z, c = lucidrains.latents(G)
    mean = found.sample_w(2000, 0).mean(dim=0)
    w = mean + 0.7 * (G["S"](z) - mean)
    ws = w[:, None].expand(-1, found.running.num_ws(found.network), -1)
    expected = found.running.synthesis(found.network, ws, "none").detach()
    made = sampler(G).images(z, c, "none", 0.7).detach()
    assert (made - expected).abs().max() <= float_error(G, expected)


def test_every_image_has_noise_of_its_own(lucidrains: LucidrainsHost) -> None:
    """However many are made at a time: in pictures and pages, too, and in the batches of a recovery."""
    torch.manual_seed(0)
    G = trained(lucidrains.generator(resolution=8))
    whole = sample(G, 5, seed=0)
    assert (sample(G, 5, seed=0, batch=2) - whole).abs().max() <= float_error(G, whole)
    assert (first_images(G, G, 5)[0] - whole).abs().max() <= float_error(G, whole)
    noise = fixed_noise([1, PLACES + 1, 2], 8)
    assert torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[1], noise[2])

    both = pair_of(squeeze_patch.apply(copy.deepcopy(G), ratio=2, init="weights", keep_original=False), G)
    losses = []
    for at_a_time in (4, 1):
        with training_mode(both):
            training = Training(both, Settings(batch=4), current(), at_a_time)
            losses.append(float(training._backward(training.held_out[:4], 0)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)  # by half apart, were the noise another


def test_a_generator_without_its_mapping_says_so(lucidrains: LucidrainsHost) -> None:
    G = trained(lucidrains.generator())
    with pytest.raises(SqueezeError, match=r"holds 0 mapping networks.*ModuleDict"):
        compare(G["G"], G["G"])
    with pytest.raises(SqueezeError, match="holds 2 generators"):
        compare(lucidrains.wrapper(), lucidrains.wrapper())


def test_attention_is_run_by_the_host_only(lucidrains: LucidrainsHost) -> None:
    G = trained(lucidrains.generator(attn_layers=[1]))
    assert sample(G, 2, seed=0).shape == (2, 3, 32, 32)
    with pytest.raises(SqueezeError, match="attention layers"):
        sample(stand_in(G.state_dict()), 2, seed=0)


def test_images_come_back(lucidrains: LucidrainsHost) -> None:
    """On latents that neither the training nor its evaluations saw; the mapping network stays."""
    torch.manual_seed(0)
    dense = trained(lucidrains.generator(resolution=8))
    student = squeeze_patch.apply(copy.deepcopy(dense), ratio=2, init="weights", keep_original=False)
    before, styles = compare(student, dense, samples=64, seed=99, noise_mode="none"), tensors(dense["S"])
    result = squeeze_patch.recover(student, dense, steps=40, batch=32, evaluate_every=10)
    after = compare(student, dense, samples=64, seed=99, noise_mode="none")
    # gains of 2.8 to 5.5 dB were seen with three seeds; half of the least is no chance
    assert after.psnr > before.psnr + 1.4
    assert result.improved
    assert same(tensors(student["S"]), styles)
    assert same(tensors(dense["S"]), styles)


def test_files_without_the_host(lucidrains: LucidrainsHost, tmp_path: Path) -> None:
    """convert, compare, report, recover, and the recovered file in the host's wrapper: G and GE alike."""
    source = trained_wrapper(lucidrains)
    dense = save_wrapper(source, tmp_path)
    squeezed, recovered = tmp_path / "squeezed.pt", tmp_path / "recovered.pt"
    sample = ("--samples", "32", "--noise", "none", "--json")
    run("convert", dense, squeezed, "--ratio", "2", "--init", "weights")
    run("compare", dense, squeezed, *sample, tmp_path / "before.json")
    said = run("report", squeezed, "--repeats", "2", "--json", tmp_path / "report.json")
    assert "parameters" in said
    assert "written" in run(
        "recover", dense, squeezed, "--out", recovered, "--steps", "20", "--batch", "8", "--every", "10"
    )
    run("compare", dense, recovered, *sample, tmp_path / "after.json")
    before, after = (json.loads((tmp_path / f"{name}.json").read_text())["psnr"] for name in ("before", "after"))
    assert after > before
    gan = squeeze_patch.load(lucidrains.wrapper(), recovered)
    assert same(tensors(gan.G), tensors(gan.GE))
    found = compare(averaged(source), averaged(gan), samples=32, noise_mode="none")
    assert found.psnr == pytest.approx(after, abs=0.01)  # printed by our body, made by the host's
    assert squeeze_patch.status(gan).state == "squeezed"
