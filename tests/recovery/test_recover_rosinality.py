"""Recovery of generators of the rosinality family, in memory and from file to file."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest
import torch

import squeeze_patch
from squeeze_patch.checkpoints.convert import convert
from squeeze_patch.checkpoints.state_dicts import read_entries
from squeeze_patch.evaluation.compare import compare
from squeeze_patch.progress import one_thread
from squeeze_patch.recovery import inputs
from squeeze_patch.recovery.pair import pair_of
from squeeze_patch.recovery.settings import Settings
from squeeze_patch.testing import trained
from tests.helpers import FLAT_HOSTS, ORIGINALS, QUICK, Snapshot, cli, same, tensors
from tests.hosts.flat import FlatHost

SMALL = {"resolution": 8, "w_dim": 16}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """On networks as small as these, threads only wait for one another."""
    with one_thread():
        yield


def pair(host: FlatHost) -> Tuple[Any, Any]:
    """(squeezed, dense), the squeezed one started from the dense one's weights."""
    torch.manual_seed(0)
    dense = trained(host.generator(**SMALL))
    return squeeze_patch.apply(copy.deepcopy(dense), ratio=2, init="weights", keep_original=False), dense


def mapping(G: Any) -> Dict[str, torch.Tensor]:
    return tensors(getattr(G, "style", None) or G.style_mlp)


def test_images_come_back(flat_host: FlatHost) -> None:
    """On latents that neither the training nor its evaluations saw; the mapping network and the rest stay."""
    student, dense = pair(flat_host)
    student.requires_grad_(False)
    before, teacher = compare(student, dense, samples=64, seed=99, noise_mode="none"), tensors(dense)
    styles, names = mapping(student), list(student.state_dict())
    random = torch.get_rng_state()
    result = squeeze_patch.recover(student, dense, steps=40, batch=8, evaluate_every=10)
    after = compare(student, dense, samples=64, seed=99, noise_mode="none")
    # these generators of random weights gain 3.8 dB (gfpgan) to 4.6 dB in 40 steps; half of it is no chance
    assert after.psnr > before.psnr + 1.9
    assert result.improved
    assert same(tensors(dense), teacher)
    assert same(mapping(student), styles)
    assert list(student.state_dict()) == names
    assert torch.equal(torch.get_rng_state(), random)
    assert not student.training
    assert not any(p.requires_grad or p.grad is not None for p in student.parameters())
    readers = [module for module in student.modules() if hasattr(module, "excite")]
    assert [len(module._forward_pre_hooks) for module in readers] == [1]  # excite's own
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in dense.modules())


def test_a_broken_run_goes_on_to_the_bit(flat_host: FlatHost, tmp_path: Path) -> None:
    arguments: Dict[str, Any] = {"steps": 20, "batch": 4, "evaluate_every": 5, "learning_rate": 3e-3}
    whole, dense = pair(flat_host)
    assert squeeze_patch.recover(whole, dense, **arguments).improved

    def stop(step: Any) -> None:
        if step.step == 12:
            raise KeyboardInterrupt

    broken, _ = pair(flat_host)
    with pytest.raises(KeyboardInterrupt):
        squeeze_patch.recover(broken, dense, progress=stop, state=tmp_path / "state", **arguments)
    again, _ = pair(flat_host)
    result = squeeze_patch.recover(again, dense, state=tmp_path / "state", **arguments)
    assert result.resumed_at == 10
    assert same(tensors(again), tensors(whole))


def test_without_noise(flat_host: FlatHost) -> None:
    """Noise strengths [1] stay as they are then; with it they are trained."""
    moved = {}
    for noise_mode in ("none", "const"):
        student, dense = pair(flat_host)
        before = tensors(student)
        squeeze_patch.recover(student, dense, noise_mode=noise_mode, learning_rate=1e-3, **QUICK)
        moved[noise_mode] = {n for n, value in tensors(student).items() if not torch.equal(value, before[n])}
    strengths = {name for name, value in before.items() if value.shape == (1,)}
    assert len(strengths) == 3
    assert moved["none"]
    assert not moved["none"] & strengths
    assert strengths <= moved["const"]


def test_styles_are_mixed_and_truncated(flat_host: FlatHost) -> None:
    student, dense = pair(flat_host)
    both = pair_of(student, dense)
    settings = Settings(batch=40, mixed=0.5, truncated=0)
    centre = inputs.mean_style(both, settings)
    w = inputs.training_styles(both, settings, 3, centre)
    assert w.shape == (40, 4, 16)
    mixed = (w != w[:, :1]).flatten(1).any(dim=1)
    assert 0 < mixed.sum() < 40  # all or none have a chance of 2 / 2**40
    assert torch.equal(inputs.training_styles(both, settings, 3, centre), w)
    assert centre.shape == (16,)


def test_pairs_that_do_not_belong_together(flat_host: FlatHost) -> None:
    """The mapping network is a part of the network that is trained here, and is told apart."""
    student, _ = pair(flat_host)
    before = tensors(student)
    stranger = trained(flat_host.generator(**SMALL), seed=5)
    with pytest.raises(squeeze_patch.StateError, match="another style.* 4 of 4 parameters of the mapping network"):
        squeeze_patch.recover(student, stranger, **QUICK)
    wider = trained(flat_host.generator(8, w_dim=24))
    with pytest.raises(squeeze_patch.StateError, match="differ in more than the squeezed blocks"):
        squeeze_patch.recover(student, wider, **QUICK)
    assert same(tensors(student), before)


@pytest.fixture(params=ORIGINALS)
def snapshot(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Snapshot]:
    """A training run's file dense.pt, beside it squeezed.pt."""
    with FLAT_HOSTS[request.param].active():
        found = Snapshot(FLAT_HOSTS[request.param], tmp_path / "dense.pt", **SMALL)
        convert(found.path, tmp_path / "squeezed.pt", ratio=2, init="weights")
        yield found


def call(command: str, *arguments: Any) -> str:
    code, out, err = cli(command, *arguments, "--device", "cpu")
    assert code == 0, err
    return out


def recover(folder: Path, out: str, *arguments: Any) -> str:
    dense = (folder / "dense.pt",) if "--ratio" in arguments else (folder / "dense.pt", folder / "squeezed.pt")
    return call("recover", *dense, *arguments, "--out", folder / out, "--steps", 20, "--every", 5, "--batch", 4)


def names(folder: Path) -> List[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_in_a_file_out_that_the_host_loads(snapshot: Snapshot, tmp_path: Path) -> None:
    """Without the host: what runs is the body that state dicts get. The host's own class then has the images."""
    sources = [(tmp_path / name).read_bytes() for name in ("dense.pt", "squeezed.pt")]
    assert "dB PSNR to the dense generator (128 unseen latents, 20 steps" in recover(tmp_path, "out.pt")
    assert names(tmp_path) == ["dense.pt", "out.jsonl", "out.pt", "squeezed.pt"]
    assert [(tmp_path / name).read_bytes() for name in ("dense.pt", "squeezed.pt")] == sources

    before, after = (read_entries(tmp_path / name, trust=False) for name in ("squeezed.pt", "out.pt"))
    assert list(after) == list(before)
    assert after["squeeze_plan"] == before["squeeze_plan"]
    assert list(after["g_ema"]) == list(before["g_ema"])
    assert same(after["d"], before["d"])
    assert same(after["g"], after["g_ema"])
    moved = {name for name, value in after["g_ema"].items() if not torch.equal(value, before["g_ema"][name])}
    assert "convs.0.excite.weight" in moved
    assert not any(name.startswith(("style.", "noises.")) for name in moved)

    loaded = [
        squeeze_patch.load(snapshot.host.generator(**SMALL), tmp_path / name).eval()
        for name in ("squeezed.pt", "out.pt")
    ]
    near, far = (compare(snapshot.g_ema, G, samples=32, seed=99, noise_mode="none").psnr for G in loaded[::-1])
    assert near > far + 1.6  # half of the 3.3 dB that these 20 steps gain
    assert len(torch.optim.Adam(loaded[1].parameters()).param_groups[0]["params"]) == len(
        after["g_optim"]["param_groups"][0]["params"]
    )


def test_a_run_out_of_time_goes_on(snapshot: Snapshot, tmp_path: Path) -> None:
    assert "unfinished" in recover(tmp_path, "out.pt", "--minutes", 1e-9)
    assert "out.pt.state" in names(tmp_path)
    assert "taken up at step 1" in recover(tmp_path, "out.pt")
    recover(tmp_path, "whole.pt")
    out, whole = (read_entries(tmp_path / name, trust=False)["g_ema"] for name in ("out.pt", "whole.pt"))
    assert same(out, whole)


def test_a_dense_file_alone_is_squeezed_first(snapshot: Snapshot, tmp_path: Path) -> None:
    recover(tmp_path, "out.pt", "--ratio", 3)
    G = squeeze_patch.load(snapshot.host.generator(**SMALL), tmp_path / "out.pt")
    plan = squeeze_patch.status(G).plan
    assert plan is not None
    assert plan.same_widths(squeeze_patch.plan(snapshot.g, ratio=3))


@pytest.mark.skipif(not os.environ.get("SQUEEZE_SLOW"), reason="half a minute; SQUEEZE_SLOW=1 runs it")
def test_compare_and_report(snapshot: Snapshot, tmp_path: Path) -> None:
    dense, squeezed = tmp_path / "dense.pt", tmp_path / "squeezed.pt"
    assert "PSNR                     equal" in call("compare", dense, dense, "--samples", 4, "--truncation", 0.5)
    arguments = ("--samples", 6, "--grid", tmp_path / "grid.png", "--json", tmp_path / "figures.json")
    assert "features 4x4" in call("compare", dense, squeezed, *arguments)
    assert (tmp_path / "grid.png").is_file()
    figures = json.loads((tmp_path / "figures.json").read_text())
    G = squeeze_patch.load(snapshot.host.generator(**SMALL), squeezed).eval()
    # the same figures as of the host's generators; decibels of errors far above rounding (1e-6) differ by 1e-3 or less
    assert figures["psnr"] == pytest.approx(compare(snapshot.g_ema, G, samples=6).psnr, abs=1e-3)
    other = json.loads(call("compare", dense, squeezed, "--samples", 6, "--key", "g", "--json"))
    G = squeeze_patch.load(snapshot.host.generator(**SMALL), squeezed, entry="g").eval()
    assert other["psnr"] == pytest.approx(compare(snapshot.g.eval(), G, samples=6).psnr, abs=1e-3)
    for rest in ((dense, "--ratio", 2), (squeezed,), (squeezed, "--against", dense)):
        found = json.loads(call("report", *rest, "--repeats", 2, "--json"))
        assert found["cost"]["parameters_before"] == sum(p.numel() for p in snapshot.g.parameters())
        assert found["cost"]["parameters_after"] == sum(p.numel() for p in G.parameters())
    code, _, err = cli("compare", dense, dense, "--key", "h")
    assert code == 2
    assert "it has g, g_ema; choose one with --key" in err
