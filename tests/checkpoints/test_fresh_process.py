"""A converted file in processes where squeeze_patch cannot be imported, through the hosts' own code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import List

import numpy as np
import pytest
import torch
from PIL import Image

import squeeze_patch
from squeeze_patch.checkpoints.convert import convert
from squeeze_patch.checkpoints.io import read
from squeeze_patch.testing import trained
from squeeze_patch.testing.shapes_contract import plan_of_kind
from tests.helpers import HOSTS, SAMPLE_SCRIPT, run_in_host
from tests.hosts import Host


def images_of(path: Path, host: Host) -> List[np.ndarray]:  # type: ignore[type-arg]
    """The same images, made in this process."""
    G = read(path, trust=True)["G_ema"]
    images = []
    for seed in (0, 1):
        z = torch.from_numpy(np.random.RandomState(seed).randn(1, G.z_dim))
        image = G(z, torch.zeros([1, G.c_dim]), truncation_psi=0.7, noise_mode="const")
        images.append((image.permute(0, 2, 3, 1) * 127.5 + 128).clamp(0, 255).to(torch.uint8)[0].numpy())
    return images


def snapshot(host: Host, path: Path) -> None:
    data = {name: trained(host.generator(num_fp16_res=0)).requires_grad_(False) for name in ("G", "G_ema")}
    has_d = host.discriminator_kwargs is not None
    data["D"] = host.discriminator() if has_d else torch.nn.Linear(1, 1)
    with open(path, "wb") as stream:
        pickle.dump({"training_set_kwargs": None, "augment_pipe": None, **data}, stream)


def check_sampling(host: Host, script: str, pickle_file: Path, expected_from: Host, tmp_path: Path) -> None:
    out = tmp_path / f"out-{host.name}"
    out.mkdir()
    if script:
        arguments = [script, f"--network={pickle_file}", "--seeds=0,1", "--trunc=0.7", f"--outdir={out}"]
        run_in_host(host, tmp_path, *arguments)
    else:
        (tmp_path / "sample.py").write_text(SAMPLE_SCRIPT)
        run_in_host(host, tmp_path, str(tmp_path / "sample.py"), str(pickle_file), str(out))
    for seed, expected in enumerate(images_of(pickle_file, expected_from)):
        with Image.open(out / f"seed{seed:04d}.png") as image:
            # one grey level: processes may use other kernels for the same sums
            assert np.abs(np.asarray(image).astype(int) - expected.astype(int)).max() <= 1
            assert np.asarray(image).std() > 5  # a picture, not a plain field


def test_converted_file_in_the_untouched_host(host: Host, tmp_path: Path) -> None:
    """The host's own script where it has one (eg3d's renders a scene; its networks are sampled as the others are)."""
    snapshot(host, tmp_path / "dense.pkl")
    convert(tmp_path / "dense.pkl", tmp_path / "squeezed.pkl", trust=True)
    check_sampling(host, host.script, tmp_path / "squeezed.pkl", host, tmp_path)


def test_other_shapes_in_the_untouched_host(full_host: Host, tmp_path: Path) -> None:
    """Narrowed blocks, a squeezed one among them, are sampled and rebuilt in half precision by the host."""
    snapshot(full_host, tmp_path / "dense.pkl")
    dense = read(tmp_path / "dense.pkl", trust=True)["G_ema"]
    for kind in ("narrow", "mixed"):
        plan = plan_of_kind(dense, kind)
        convert(tmp_path / "dense.pkl", tmp_path / f"{kind}.pkl", trust=True, plan=plan, init="weights")
        inert = squeeze_patch.status(read(tmp_path / f"{kind}.pkl", trust=False)["G_ema"])
        assert (inert.plan, inert.parameters_after) == (plan, plan.parameters_after)
    check_sampling(full_host, full_host.script, tmp_path / "mixed.pkl", full_host, tmp_path)
    script = tmp_path / "fp16.py"
    script.write_text(
        "import sys, legacy\n"
        "G = legacy.load_network_pkl(open(sys.argv[1], 'rb'), force_fp16=True)['G_ema']\n"
        "assert G.synthesis.b32.use_fp16 and type(G.synthesis.b8).__name__ == 'SynthesisBlock'\n"
        "assert sum(p.numel() for p in G.parameters()) == int(sys.argv[2])\n"
    )
    narrowed = plan_of_kind(dense, "narrow").parameters_after
    run_in_host(full_host, tmp_path, str(script), str(tmp_path / "narrow.pkl"), str(narrowed))


@pytest.mark.parametrize("other", [name for name, host in HOSTS.items() if name not in ("ggdr", "projected-gan")])
def test_the_same_file_in_a_sister_repo(other: str, host: Host, tmp_path: Path) -> None:
    """A squeezed pickle loads wherever the dense one did. GGDR's and projected-gan's import modules of their own."""
    if host.name in ("ggdr", "projected-gan"):
        host = HOSTS["draggan"]  # theirs load at home only, dense or squeezed
        with host.active():
            snapshot(host, tmp_path / "dense.pkl")
            convert(tmp_path / "dense.pkl", tmp_path / "squeezed.pkl", trust=True)
            check_sampling(HOSTS[other], HOSTS[other].script, tmp_path / "squeezed.pkl", host, tmp_path)
        return
    snapshot(host, tmp_path / "dense.pkl")
    convert(tmp_path / "dense.pkl", tmp_path / "squeezed.pkl", trust=True)
    check_sampling(HOSTS[other], HOSTS[other].script, tmp_path / "squeezed.pkl", host, tmp_path)


def test_fp16_in_the_untouched_host(full_host: Host, tmp_path: Path) -> None:
    snapshot(full_host, tmp_path / "dense.pkl")
    convert(tmp_path / "dense.pkl", tmp_path / "squeezed.pkl", trust=True)
    script = tmp_path / "fp16.py"
    script.write_text(
        "import sys, legacy\n"
        "G = legacy.load_network_pkl(open(sys.argv[1], 'rb'), force_fp16=True)['G_ema']\n"
        "assert G.synthesis.b32.use_fp16 and G.synthesis.b32.squeezed_channels < 16\n"
        "assert sum(p.numel() for p in G.parameters()) == int(sys.argv[2])\n"
    )
    squeezed = squeeze_patch.status(read(tmp_path / "squeezed.pkl", trust=True)["G_ema"]).parameters_after
    run_in_host(full_host, tmp_path, str(script), str(tmp_path / "squeezed.pkl"), str(squeezed))
