"""Trains one generator from scratch with a host's own networks and loss, evaluated on the way, resumable.

Phases, lazy regularisation, Adam's corrections for it and the averaging of weights follow the hosts' training loop
(Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", section 3.1 and appendix B).
"""

from __future__ import annotations

import copy
import functools
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch

from benchmarks.average_files import average_file, on_cpu
from benchmarks.curves import read_curve, write_curve
from benchmarks.data import Data
from benchmarks.evaluating import Evaluation
from benchmarks.graphs import Graphed
from squeeze_patch.checkpoints.atomic import atomic_write
from squeeze_patch.checkpoints.tensor_files import fault_in_words, load_tensors, save_tensors
from squeeze_patch.errors import CheckpointError
from tests.hosts import Host
from tests.hosts.training import accumulate, loss_of, settle_kernels

#: steps that the GPU may be behind
IN_FLIGHT = 32


@dataclass(frozen=True)
class Settings:
    """Hyper-parameters: the hosts' ``--cfg=cifar`` (no path length, no style mixing) with the averaging of ``auto``.

    The R1 weight is 10 as in Mescheder et al. 2018: at the hosts' rule, 0.0016 here, the dense generator collapses on
    the digits (Frechet distance 190 to 270, recall below 0.01 from 16 to 32 kimg; at 10 it falls to 80).
    """

    resolution: int = 16
    channels: int = 32
    d_channels: int = 32  # a discriminator that is wider than the generator makes the latter's capacity the bottleneck
    channel_base: int = 256
    dim: int = 64
    mapping_layers: int = 2
    batch: int = 32
    lr: float = 0.0025
    r1_gamma: float = 10.0  # 0: the hosts' rule 0.0002 * resolution^2 / batch
    pl_weight: float = 0.0
    style_mixing: float = 0.0
    samples: int = 5000

    @property
    def gamma(self) -> float:
        return self.r1_gamma or 0.0002 * self.resolution**2 / self.batch

    @property
    def ema_nimg(self) -> float:
        return self.batch * 10 / 32 * 1000


class Run:
    """A training that can be stopped and goes on where it was: networks, optimisers, averages and random state."""

    def __init__(
        self,
        host: Host,
        settings: Settings,
        build: Callable[[Any], Any],
        data: Data,
        seed: int,
        graphs: bool = False,
        labels: Optional[torch.Tensor] = None,
    ) -> None:
        """``build`` turns the host's dense generator into the one to train. The host is active. It trains where the
        data is, from weights that are drawn on the CPU; with ``graphs`` by `Graphed` phases, off the default stream.
        ``labels`` [n, c_dim] of the data's images make it conditional.
        """
        self.settings, self.data, self.seed = settings, data, seed
        self.device = data.images.device
        self.graphs = graphs and not settings.style_mixing  # whose place the hosts wait for
        if self.device.type == "cuda":
            settle_kernels()
        self.labels = torch.zeros([len(data.images), 0]) if labels is None else labels
        self.labels = self.labels.to(self.device)
        channels = {"img_channels": data.images.shape[1], "c_dim": self.labels.shape[1]}
        sizes = {"channel_base": settings.channel_base, "channel_max": settings.channels}
        torch.manual_seed(seed)
        d_sizes = {"channel_base": settings.d_channels // 2 * settings.resolution, "channel_max": settings.d_channels}
        D = host.discriminator(settings.resolution, **d_sizes, **channels)
        self.D = D.to(self.device).train().requires_grad_(False)
        torch.manual_seed(seed)
        self.G = build(lambda **changes: self._dense(host, {**sizes, **changes}, channels))
        for block in self.G.synthesis.children():
            if getattr(block, "fused_modconv_default", None) is True:
                block.fused_modconv_default = (
                    False  # the hosts' training scripts fuse neither: on a CPU it takes longer
                )
        self.G.to(self.device).train().requires_grad_(False)
        self.G_ema = copy.deepcopy(self.G).eval()
        torch.manual_seed(seed)
        regularisation = {"style_mixing_prob": settings.style_mixing, "pl_weight": settings.pl_weight}
        self.loss = loss_of(host, self.G, self.D, r1_gamma=settings.gamma, **regularisation)
        self.intervals = {"G": 4, "D": 16} if settings.pl_weight else {"D": 16}
        self.optimizers = {name: self._adam(name) for name in ("G", "D")}
        self.nimg = 0
        self.seconds = 0.0
        self._finite = torch.ones([], dtype=torch.bool, device=self.device)
        self._phases: Dict[str, Callable[..., None]] = {}
        self._epoch: Tuple[int, torch.Tensor] = (-1, torch.empty([0]))

    def _dense(self, host: Host, sizes: Dict[str, Any], channels: Dict[str, int]) -> Any:
        s = self.settings
        return host.generator(s.resolution, w_dim=s.dim, layers=s.mapping_layers, **sizes, **channels)

    def _adam(self, name: str) -> torch.optim.Adam:
        interval = self.intervals.get(name)
        share = interval / (interval + 1) if interval else 1.0
        network = getattr(self, name)
        faster: Dict[str, Any] = {"fused": True, "capturable": self.graphs} if self.device.type == "cuda" else {}
        return torch.optim.Adam(
            network.parameters(), lr=self.settings.lr * share, betas=(0.0, 0.99**share), eps=1e-8, **faster
        )

    def step(self) -> None:
        """One batch through the main phases, and through those regularisation phases whose turn it is."""
        began = time.perf_counter()
        index = self.nimg // self.settings.batch
        places = self._order(index)
        real, real_c = self.data.images[places], self.labels[places]
        for name in ("G", "D"):
            interval = self.intervals.get(name)
            self._phase(name, "main", real, real_c, 1)
            if interval and index % interval == 0:
                self._phase(name, "reg", real, real_c, interval)
        self.nimg += len(real)
        self._average()
        self.seconds += time.perf_counter() - began
        if (index + 1) % IN_FLIGHT == 0:
            self.require_finite()

    def _phase(self, name: str, kind: str, real: torch.Tensor, real_c: torch.Tensor, gain: int) -> None:
        if name + kind not in self._phases:
            accumulated = functools.partial(self._descend, name, kind, gain)
            self._phases[name + kind] = Graphed(accumulated) if self.graphs else accumulated
        z = torch.randn([len(real), self.settings.dim]).to(self.device)  # drawn on the CPU: alike for all variants
        conditional = self.labels.shape[1] > 0
        gen_c = self.labels[torch.randint(len(self.labels), [len(real)])] if conditional else real_c
        self._phases[name + kind](real, z, real_c, gen_c)

    def _descend(self, name: str, kind: str, gain: int, *inputs: torch.Tensor) -> None:
        real, z, *labels = inputs
        network, optimizer = getattr(self, name), self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        network.requires_grad_(True)
        accumulate(self.loss, name + kind, real, z, gain, self.nimg, (labels[0], labels[1]))
        network.requires_grad_(False)
        self._look_at([p.grad for p in network.parameters() if p.grad is not None], name + kind)
        optimizer.step()

    def _look_at(self, gradients: List[torch.Tensor], phase: str) -> None:
        """Raises FloatingPointError where one is not finite; on a GPU `require_finite` does, as asking is to wait."""
        if self.device.type == "cuda":
            norms = torch.stack(torch._foreach_norm(gradients))
            self._finite.logical_and_(torch.isfinite(norms).all())
        elif not all(bool(torch.isfinite(gradient).all()) for gradient in gradients):
            raise FloatingPointError(f"{phase} at image {self.nimg}: gradients are not finite")

    def require_finite(self) -> None:
        """Raises FloatingPointError where a gradient was not; waits for the GPU, which counts as training."""
        began = time.perf_counter()
        finite = bool(self._finite)
        self.seconds += time.perf_counter() - began
        if not finite:
            raise FloatingPointError(f"before image {self.nimg}: gradients were not finite")

    def _order(self, index: int) -> torch.Tensor:
        """Places of the ``index``-th batch: shuffled anew every epoch, the same for every variant of a seed."""
        per_epoch = len(self.data.images) // self.settings.batch
        epoch, start = index // per_epoch, index % per_epoch * self.settings.batch
        if epoch != self._epoch[0]:
            random = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
            self._epoch = epoch, torch.randperm(len(self.data.images), generator=random).to(self.device)
        return self._epoch[1][start : start + self.settings.batch]

    @torch.no_grad()
    def _average(self) -> None:
        half_life = min(self.settings.ema_nimg, self.nimg * 0.05)
        beta = 0.5 ** (self.settings.batch / max(half_life, 1e-8))
        if self.device.type == "cuda":  # all parameters at once
            torch._foreach_lerp_([*self.G_ema.parameters()], [*self.G.parameters()], 1 - beta)
            torch._foreach_copy_([*self.G_ema.buffers()], [*self.G.buffers()])
            return
        for average, now in zip(self.G_ema.parameters(), self.G.parameters()):
            average.copy_(now.lerp(average, beta))
        for average, now in zip(self.G_ema.buffers(), self.G.buffers()):
            average.copy_(now)

    def save(self, path: Path, curve: List[Dict[str, float]]) -> None:
        """Everything, on the CPU, so that `load` goes on from it on any device."""
        self.require_finite()
        state = {
            "networks": {name: getattr(self, name).state_dict() for name in ("G", "D", "G_ema")},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "loss": {name: value for name, value in vars(self.loss).items() if name == "pl_mean"},
            "random": torch.get_rng_state(),
            **({"random_cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {}),
            "place": {"nimg": self.nimg, "seconds": self.seconds},
            "settings": asdict(self.settings),
            "curve": curve,
        }
        with atomic_write(path) as stream:
            save_tensors(on_cpu(state), stream)

    def load(self, path: Path) -> List[Dict[str, float]]:
        """Go on from a file of `save`; returns the curve so far.

        Raises:
            CheckpointError: it is damaged, or was made with other settings.
        """
        try:
            state = load_tensors(path)
            there, here = state["settings"], asdict(self.settings)
        except Exception as error:
            raise CheckpointError(
                f"{path} is damaged ({fault_in_words(error)}); move it and {path.stem}.json away to train anew"
            ) from error
        if there != here:
            others = (
                f"{name} {value}, not {here.get(name)}" for name, value in there.items() if value != here.get(name)
            )
            raise CheckpointError(f"{path} was made with other settings: {', '.join(others)}")
        for name, values in state["networks"].items():
            getattr(self, name).load_state_dict(values, strict=True)
        for name, values in state["optimizers"].items():
            for group, present in zip(values["param_groups"], self.optimizers[name].param_groups):
                for how in ("fused", "capturable"):  # the device's, not the file's
                    group[how] = present.get(how)
            self.optimizers[name].load_state_dict(values)
        vars(self.loss).update({name: value.to(self.device) for name, value in state["loss"].items()})
        vars(self).update(state["place"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and "random_cuda" in state:
            torch.cuda.set_rng_state(state["random_cuda"], self.device)
        return list(state["curve"])


def train(
    run: Run,
    evaluate: Evaluation,
    kimg: float,
    every: float,
    state: Path,
    report: Callable[[Dict[str, float]], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
    averages: bool = False,
) -> List[Dict[str, float]]:
    """Train to ``kimg`` thousand images, evaluating and saving ``every`` so many and at the end; goes on from ``state``
    if it exists.

    ``stopped`` is asked before every step: the training then ends, its state saved. With ``averages``, what was
    evaluated stays in `average_file`, too.

    Returns:
        the curve: one dict of kimg, seconds and figures an evaluation. It is also at ``state`` with suffix .json.

    Raises:
        CheckpointError: as `Run.load`; or there is a curve that the training would replace, and no state; or another
            process trains the same and has saved it.
    """
    there = version_of(state)

    def save() -> None:
        nonlocal there
        if version_of(state) != there:
            raise CheckpointError(f"{state} has been saved by another run meanwhile, which goes on; this one has ended")
        run.save(state, curve)
        there = version_of(state)

    curve = going_on(run, state, kimg)
    if curve and curve[-1]["kimg"] >= kimg:
        return curve
    saved = run.nimg
    while run.nimg < kimg * 1000:
        if stopped():
            if run.nimg > saved:
                save()
            break
        run.step()
        due = run.nimg // (every * 1000) > (run.nimg - run.settings.batch) // (every * 1000)
        if due or run.nimg >= kimg * 1000:
            run.require_finite()
            point = {"kimg": run.nimg / 1000, "seconds": run.seconds, **evaluate(run.G_ema)}
            curve.append(point)
            if averages:  # first: of what the state says has been evaluated, all is there
                with atomic_write(average_file(state, point["kimg"])) as stream:
                    save_tensors(on_cpu(run.G_ema.state_dict()), stream)
            save()
            saved = run.nimg
            write_curve(state.with_suffix(".json"), curve)
            report(point)
    return curve


def version_of(file: Path) -> Optional[int]:
    """Another one when it is written anew; None where it is not there."""
    return file.stat().st_mtime_ns if file.is_file() else None


def going_on(run: Run, state: Path, kimg: float) -> List[Dict[str, float]]:
    """The curve so far; ``run`` has gone on to where it ends, if that is in ``state``."""
    file = state.with_suffix(".json")
    written = read_curve(file)
    if not state.exists():
        if written and written[-1]["kimg"] < kimg:
            raise CheckpointError(
                f"{file} has been evaluated up to {written[-1]['kimg']:g} kimg, and {state.name} is not there: put it "
                "back to go on, or move the curve away to train anew"
            )
        return written
    curve = run.load(state)
    if len(written) < len(curve):  # it was killed between the two
        write_curve(file, curve)
    return curve
