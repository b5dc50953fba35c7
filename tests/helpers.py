"""What several tests need: hosts at hand, files as hosts write them, and what is compared."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import pytest
import torch

import squeeze_patch
from squeeze_patch.adapters import sampler
from squeeze_patch.adapters.content import BlockShape, BlockSpec, DenseBlock
from squeeze_patch.cli import main
from squeeze_patch.initialization import simulation
from squeeze_patch.initialization.simulation import WINDOW
from squeeze_patch.sampling import sample
from squeeze_patch.testing import float_error, trained
from tests import hosts
from tests.hosts import HERE, Host, flat
from tests.hosts.flat import FlatHost, optimiser_step
from tests.hosts.lucidrains import LucidrainsHost
from tests.hosts.lucidrains import lucidrains as lucidrains_host
from tests.processes import command_runner, environment_with, python

#: how tests read their own files of tensors and plans: torch 1.13's restricted loader refuses every float
RESTRICTED = not torch.__version__.startswith("1.")
#: of torch 2.0 alone, whose restricted loader uses what it warns of
TYPED = pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
#: of the repository
ROOT = Path(__file__).parent.parent
HOSTS = {host.name: host for host in hosts.nvidia_hosts()}
FORKS = {host.name: host for host in hosts.forks()}
FLAT_HOSTS = {host.name: host for host in flat.flat_hosts()}
LUCIDRAINS = lucidrains_host()
#: hosts whose files hold state dicts of this shape: draggan's copy, and rosinality's repository where it is at hand
ORIGINALS = [name for name, host in FLAT_HOSTS.items() if host.generator_class == "Generator"]
SMALL = {"resolution": 8, "w_dim": 16, "channel_base": 256}
QUICK: Dict[str, Any] = {"steps": 6, "batch": 4, "evaluate_every": 2}
#: What the hosts' scripts do with their Generator, for the host that ships none
GENERATE_SCRIPT = """
import argparse, torch
from model import Generator
options = argparse.ArgumentParser()
options.add_argument("--ckpt")
args = options.parse_args()
g = Generator(8, 64, 2)
optimiser = torch.optim.Adam(g.parameters())
if args.ckpt:
    checkpoint = torch.load(args.ckpt)
    g.load_state_dict(checkpoint["g_ema"], strict=False)
    if "g_optim" in checkpoint:
        optimiser.load_state_dict(checkpoint["g_optim"])
image, _ = g([torch.ones(2, 64)], randomize_noise=False)
image.square().mean().backward()
optimiser.step()
assert all(len(optimiser.state[p]) for p in g.parameters())
steps = [int(optimiser.state[p]["step"]) for p in g.parameters()]
torch.save({"g_ema": g.state_dict(), "image": image.detach(), "steps": steps}, "out.pt")
"""
#: Blocks our package, then runs the rest of the command line as a script; "cuda" means the CPU on machines without.
RUNNER = """
import runpy, sys, warnings
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "squeeze_patch":
            raise ModuleNotFoundError("squeeze_patch is not installed here", name=name)
sys.meta_path.insert(0, Blocked())
warnings.simplefilter("ignore")
import torch
device = torch.device
class Device:
    def __new__(cls, *args):
        return device("cpu")
torch.device = Device
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
#: What every host's generate.py does, for the host that ships none
SAMPLE_SCRIPT = """
import sys, numpy as np, torch, PIL.Image
import legacy
path, outdir = sys.argv[1:]
with open(path, "rb") as f:
    G = legacy.load_network_pkl(f)["G_ema"]
assert "squeeze_patch" not in sys.modules
for seed in (0, 1):
    z = torch.from_numpy(np.random.RandomState(seed).randn(1, G.z_dim))
    img = G(z, torch.zeros([1, G.c_dim]), truncation_psi=0.7, noise_mode="const")
    img = (img.permute(0, 2, 3, 1) * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    PIL.Image.fromarray(img[0].numpy(), "RGB").save(f"{outdir}/seed{seed:04d}.png")
"""


def write_checkpoint(host: Host, path: Path, **kwargs: Any) -> Dict[str, Any]:
    """A training snapshot as the hosts write it."""
    torch.manual_seed(0)
    data: Dict[str, Any] = {"training_set_kwargs": {"path": "somewhere"}, "augment_pipe": None}
    for name, module in (
        ("G", trained(host.generator(**kwargs), seed=1)),
        ("D", host.discriminator() if host.discriminator_kwargs is not None else torch.nn.Linear(1, 1)),
        ("G_ema", trained(host.generator(**kwargs), seed=2)),
    ):
        data[name] = module.eval().requires_grad_(False)
    with open(path, "wb") as stream:
        pickle.dump(data, stream)
    return data


def cli(*arguments: Any) -> Tuple[int, str, str]:
    result = command_runner().invoke(main, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def images_of(G: Any) -> torch.Tensor:
    """Images [256, C, R, R] of latents that no start is fitted on, noise off."""
    return sample(G, 256, seed=1000, noise_mode="none")


def check_images(host: FlatHost, G: Any, body: Any) -> None:
    """``body`` makes the images of the host's ``G``, without noise and with the stored one."""
    z, c = host.latents(G)
    seen = []
    for noise in ("none", "const"):
        expected = host.images(G, z, c, noise=noise).detach()
        found = sampler(body).images(z, c, noise, 1.0).detach()
        assert (found - expected).abs().max() <= float_error(G, expected), noise
        seen.append(expected)
    assert (seen[0] - seen[1]).abs().max() > 100 * float_error(G, expected)  # the noise matters


def transplant(nvidia: Any, rosinality: Any) -> None:
    """Copy the effective weights; what differs is how the layers are named, scaled and shaped."""

    def conv(source: Any, target: Any) -> None:
        target.conv.weight.copy_(source.weight[None] / target.conv.scale)
        affine(source.affine, target.conv.modulation)
        target.activate.bias.copy_(source.bias)
        target.noise.weight.fill_(source.noise_strength)

    def affine(source: Any, target: Any, gain: float = 1) -> None:
        target.weight.copy_(source.weight * source.weight_gain * gain / target.scale)
        target.bias.copy_(source.bias * source.bias_gain * gain / target.lr_mul)

    def torgb(source: Any, target: Any) -> None:
        target.conv.weight.copy_(source.weight[None])
        affine(source.affine, target.conv.modulation, source.weight_gain / target.conv.scale)
        target.bias.copy_(source.bias.reshape(1, -1, 1, 1))

    with torch.no_grad():
        for index in (0, 1):
            affine(getattr(nvidia.mapping, f"fc{index}"), rosinality.style[index + 1])
        rosinality.input.input.copy_(nvidia.synthesis.b4.const[None])
        for k, resolution in enumerate(nvidia.synthesis.block_resolutions):
            block = getattr(nvidia.synthesis, f"b{resolution}")
            if k:
                conv(block.conv0, rosinality.convs[2 * k - 2])
            conv(block.conv1, rosinality.convs[2 * k - 1] if k else rosinality.conv1)
            torgb(block.torgb, rosinality.to_rgbs[k - 1] if k else rosinality.to_rgb1)


def compare_windows(
    G: Any, blocks: List[DenseBlock], ws: torch.Tensor, seen: Dict[str, torch.Tensor], image: torch.Tensor
) -> None:
    """Every simulated value is the host's, whose features are ``seen``, at its place."""
    corners, touched, edges = torch.zeros([len(ws), 2], dtype=torch.int64), set(), set()
    own_image = torch.empty(0)
    for step in simulation.dense_run(blocks, [len(ws)] * len(blocks), ws, seed=0):
        block, own, own_image = step.block, step.y, step.image
        if step.window.crops is not None:
            corners = 2 * (corners + step.window.crops)
            for dim, side in enumerate(block.spec.height_width):
                last = max(side - WINDOW, 0)
                edges |= {(side, 0), (side, last)} if side <= 4 * WINDOW else set()  # farther up few samples are there
                touched |= {(side, int(edge)) for edge in corners[:, dim] if (side, int(edge)) in edges}
            assert list(own.shape[2:]) == [min(WINDOW, side) for side in block.spec.height_width]
        theirs = at(seen[block.spec.name], corners, own.shape[2:])
        assert (own - theirs).abs().max() <= float_error(G, theirs)
    assert (own_image - at(image, corners, own_image.shape[2:])).abs().max() <= float_error(G, image)
    assert touched == edges != set()  # all edges were among the samples


def at(x: torch.Tensor, corners: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """The windows of that height and width at ``corners`` [n, c, h, w]."""
    height, width = size
    return torch.stack([one[:, i : i + height, j : j + width] for one, (i, j) in zip(x, corners.tolist())])


def trained_wrapper(host: LucidrainsHost, **kwargs: Any) -> Any:
    gan = trained(host.wrapper(**kwargs), seed=1)
    trained(gan.G, seed=2)  # so that the average is another generator
    return gan


def save_wrapper(gan: Any, folder: Path) -> Path:
    """As the host's Trainer does."""
    path = folder / "model_5.pt"
    torch.save({"GAN": gan.state_dict(), "version": "1.9.0"}, path)
    return path


def tensors(G: Any) -> Dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in G.state_dict().items()}


def same(a: Dict[str, torch.Tensor], b: Dict[str, torch.Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def script_environment(host: FlatHost) -> Dict[str, str]:
    return environment_with(HERE / "rosinality_cpu", HERE / "bare", host.folder)


def run_in_host(host: Host, tmp_path: Path, *arguments: str) -> None:
    (tmp_path / "runner.py").write_text(RUNNER)
    done = python(str(tmp_path / "runner.py"), *arguments, cwd=host.folder, env=host.environment())
    assert done.returncode == 0, done.stderr


class Snapshot:
    """A training run of two steps and the file that rosinality's train.py would write."""

    def __init__(self, host: FlatHost, path: Path, **sizes: int) -> None:
        self.host, self.path = host, path
        self.g, self.g_ema = trained(host.generator(**sizes), seed=1).train(), trained(host.generator(**sizes), seed=2)
        self.g_optim = torch.optim.Adam(self.g.parameters(), lr=0.0016, betas=(0.0, 0.99**0.8))
        d = torch.nn.Conv2d(3, 4, 3)  # a discriminator, for what it matters here
        d_optim = torch.optim.Adam(d.parameters(), lr=0.002)
        for _ in range(2):
            optimiser_step(self.g_optim)
        optimiser_step(d_optim)
        self.entries = {
            "g": self.g.state_dict(),
            "d": d.state_dict(),
            "g_ema": self.g_ema.state_dict(),
            "g_optim": self.g_optim.state_dict(),
            "d_optim": d_optim.state_dict(),
            "args": argparse.Namespace(size=32, path="faces", lr=0.002),
            "ada_aug_p": 0.25,
        }
        torch.save(self.entries, path)


def scanned(data: bytes, folder: Path) -> squeeze_patch.Scan:
    (folder / "file").write_bytes(data)
    return squeeze_patch.scan(folder / "file")


def whats(found: squeeze_patch.Scan, level: str) -> List[str]:
    return [finding.what for finding in found.of_level(level)]


def latents(G: Any, n: int = 3, seed: int = 2) -> Any:
    """(z [n, z_dim], c [n, c_dim] one-hot)."""
    random = torch.Generator().manual_seed(seed)
    c = torch.zeros(n, G.c_dim)
    if G.c_dim:
        c[torch.arange(n), torch.arange(n) % G.c_dim] = 1
    return torch.randn(n, G.z_dim, generator=random), c


def squeezed_to(spec: BlockSpec, width: int) -> BlockShape:
    """The paper's block: conv0 as it was, q channels behind conv1, and excite."""
    return BlockShape(spec.dense_inputs, spec.channels, width)
