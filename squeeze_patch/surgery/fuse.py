"""fuse, unfuse: squeezed generators that sample faster, by the same parameters."""

from __future__ import annotations

import contextlib
import functools
import warnings
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set, Tuple, TypeVar

import torch

from squeeze_patch.adapters import search, unwrapped
from squeeze_patch.adapters.located import Located
from squeeze_patch.errors import ProofError, StateError, UnprovedWarning
from squeeze_patch.progress import Progress, own_settings
from squeeze_patch.sampling import draw, evaluation, latents
from squeeze_patch.surgery.originals import hooks_of, put_back_hooks
from squeeze_patch.surgery.proof import SEED, CannotRun, name_of, trial_of
from squeeze_patch.surgery.status import status_of_part

Module = TypeVar("Module", bound=torch.nn.Module)
#: images whose features say how close they come to being clamped, and how close they may come where excite is folded
#: into what reads them, which leaves that clamp out
LOOKED_AT, HEADROOM = 8, 0.5


def fuse(G: Module, *, verify: bool = True, progress: Optional[Progress] = None) -> Module:
    """Let a squeezed generator sample faster: the same parameters, and the same images but for float error.

    excite is folded into the up-convolution that reads its features (where that saves more than it costs), and the
    layers of squeezed blocks compute their convolutions in the faster one of the possible ways. Only inference changes:
    in training mode, under autocast, or where a gradient is asked for, the blocks run as they did. State dicts stay
    what they are, and hooks see c channels. Copies are fused, too, and so are pickles, of the NVIDIA family also
    without squeeze_patch.

    Args:
        G: a squeezed generator in evaluation mode, or what `apply` takes.
        verify: run G before and after; its images have to stay the same.
        progress: called with (what, steps done, steps in all).

    Returns:
        G itself.

    Warns:
        UnprovedWarning: G could not be run to verify it.

    Raises:
        StateError: G is dense, half squeezed, narrowed without excite, or in training mode.
        ProofError: its images are others than before. G is as it was.
        UnsupportedModelError: no adapter knows the generator, or how to fuse its family.

    Example:
        >>> from squeeze_patch.demo import trained_generator
        >>> G = squeeze_patch.fuse(squeeze_patch.apply(trained_generator(), init="weights").eval())
        >>> squeeze_patch.status(G).fused_blocks
        4
    """
    parts = search(unwrapped(G)).parts
    for found in parts:
        _check_fusible(found)
    with fusing_as_before(parts):
        for found in parts:
            fuse_part(found, verify, progress)
    return G


@contextlib.contextmanager
def fusing_as_before(parts: Sequence[Located]) -> Iterator[None]:
    """Where the block does not come to its end, squeezed blocks of ``parts`` run fused, or not, as they did."""
    before, hooks = [_switches(found) for found in parts], [hooks_of(found.root) for found in parts]
    try:
        yield
    except BaseException:
        for tables in hooks:
            put_back_hooks(tables)
        for found, switches in zip(parts, before):
            for name, switch in switches.items():
                found.fusing.set_fused(found.network, name, *switch)
        raise


def unfuse(G: Module) -> Module:
    """Let a generator run as it did before `fuse`.

    Returns:
        G itself; as it is where it is not fused.

    Raises:
        UnsupportedModelError: no adapter knows the generator.

    Example:
        >>> from squeeze_patch.demo import trained_generator
        >>> G = squeeze_patch.fuse(squeeze_patch.apply(trained_generator(), init="weights").eval())
        >>> squeeze_patch.status(squeeze_patch.unfuse(G)).fused_blocks
        0
    """
    for found in search(unwrapped(G)).parts:
        unfuse_part(found)
    return G


def _switches(found: Located) -> Dict[str, Tuple[bool, bool]]:
    """{squeezed block: whether it is fused, whether it defers excite}"""
    fusing, network = found.adapter.fusing, found.network
    if fusing is None:
        return {}
    return {name: (fusing.fused(network, name), fusing.defers(network, name)) for name in _squeezed_blocks(found)}


def unfuse_part(found: Located) -> None:
    """As `unfuse`, of one generator."""
    fusing = found.adapter.fusing
    for name in _squeezed_blocks(found) if fusing is not None else []:
        found.fusing.set_fused(found.network, name, False, False)


def _squeezed_blocks(found: Located) -> List[str]:
    return [spec.name for spec in found.again().specs if spec.is_squeezed]


def _check_fusible(found: Located) -> None:
    now = status_of_part(found)
    if now.state == "irregular":
        raise StateError(f"the generator is half squeezed ({now.detail}); load it anew")
    if now.state == "dense":
        raise StateError("fuse is for squeezed generators; this one is dense: call squeeze_patch.apply(G) first")
    training = next((path for path, module in found.network.named_modules() if module.training), None)
    if training is not None:
        where = f" ({training})" if training else ""
        raise StateError(
            f"{name_of(found)} is in training mode{where}, in which nothing runs fused; call G.eval() first"
        )
    found.fusing  # noqa: B018  raises where the family has no such role


@own_settings(eager=True)
def fuse_part(found: Located, verify: bool = True, progress: Optional[Progress] = None) -> None:
    """As `fuse`, of one squeezed generator, in whatever mode it is."""
    step = functools.partial(progress or _silent, "fuse")
    total = LOOKED_AT + 2
    step(0, total)
    names = _squeezed_blocks(found)
    if not names:
        raise nothing_to_fuse(name_of(found))
    unfuse_part(found)  # what follows looks at the images as they are then
    trial = None
    if verify:
        try:
            trial = trial_of(found)
        except CannotRun as error:
            words = f"no proof was made that {name_of(found)} makes the same images when it is fused: {error}"
            warnings.warn(words, UnprovedWarning, stacklevel=4)
    step(1, total)
    clamped = _close_to_clamp(found, names, lambda done: step(1 + done, total))
    order = [spec.name for spec in found.specs]
    for name in names:
        behind = order[order.index(name) + 1 :][:1]
        found.fusing.set_fused(found.network, name, True, behind != [] and behind[0] in names and name not in clamped)
    fault = "" if trial is None else trial.fault()
    step(total, total)
    if fault:
        raise ProofError(
            f"{name_of(found)} cannot be fused: {fault}. Its layers compute something else than StyleGAN2's. The "
            "generator is as it was"
        )


def nothing_to_fuse(name: str) -> StateError:
    """The error for a narrowed generator."""
    return StateError(
        f"{name} has no block with excite to run fused: it is narrowed, and runs by the host's own layers; use it as "
        "it is"
    )


def _silent(_what: str, _done: int, _total: int) -> None:
    pass


def _close_to_clamp(found: Located, names: List[str], step: Callable[[int], None]) -> Set[str]:
    """Blocks whose excite comes close to its clamp in some images, or of which that cannot be told."""
    excites: Dict[str, Any] = {name: getattr(found.get_block(name), "excite", None) for name in names}
    clamps = {name: float(excite.conv_clamp) for name, excite in excites.items() if getattr(excite, "conv_clamp", None)}
    largest: Dict[str, List[float]] = {name: [] for name in clamps}

    def watch(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: torch.Tensor) -> None:
            largest[name].append(float(output.abs().max()))

        return excites[name].register_forward_hook(hook)

    handles = [watch(name) for name in clamps]
    try:
        if clamps:
            source = found.sampler()
            z, c = latents(source, LOOKED_AT, SEED)
            with evaluation(found.root):
                for done, pair in enumerate(zip(torch.split(z, 1), torch.split(c, 1)), start=1):
                    draw(source, *pair)
                    step(done)
    except Exception:  # a generator that wants more than latents keeps its clamps
        return set(clamps)
    finally:
        for handle in handles:
            handle.remove()
    far = {name: all(peak < HEADROOM * clamps[name] for peak in peaks) for name, peaks in largest.items() if peaks}
    return {name for name in clamps if not far.get(name, False)}  # also where a peak is no number
