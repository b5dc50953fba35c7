"""Whether a host computes what squeeze_patch takes its blocks to: the generator itself is run, before it is changed.

In the place of every block to be squeezed comes its twin: a squeezed block as wide as the dense one, with the weights
of its conv1 and toRGB, and the identity for excite. The generator's images must be the dense ones but for float error.
A fork whose blocks do more than StyleGAN2's, or whose other layers read what goes, makes others, or none.
"""

from __future__ import annotations

import contextlib
import math
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Collection, Dict, Iterator, Mapping, Optional, Set, Tuple

import torch

from squeeze_patch.adapters.content import BlockShape
from squeeze_patch.adapters.layers import all_tensors, reference_of, write_tensors
from squeeze_patch.adapters.located import Located
from squeeze_patch.conditioning import any_will_do
from squeeze_patch.connection import Excite
from squeeze_patch.errors import ProofError, SqueezeError, UnprovedWarning, UnsupportedModelError
from squeeze_patch.precision import autocast_dtype, full_precision
from squeeze_patch.process_settings import ONE_AT_A_TIME, random_kept
from squeeze_patch.sampling import evaluation, latents

#: of the latents that the generator is run on
SEED = 1_146_047_572
#: resolution up to which two images are made at a time, so that one could change the other; above it that is dear
LARGEST_PAIR = 256
#: the call of one image
SHORTEST = "one image without noise"
#: beyond this share of the largest pixel float error proves nothing
COARSEST = 0.05

Images = Dict[str, torch.Tensor]


@dataclass(frozen=True)
class Trial:
    """Ways of running one generator, and its images while it was dense.

    Attributes:
        found: the generator.
        calls: {name: images by that way}.
        dense: {name: images [N, C, R, R]}.
        tolerance: largest float error of a pixel, see `float_error`.
    """

    found: Located
    calls: Mapping[str, Callable[[], torch.Tensor]]
    dense: Images
    tolerance: float

    def run(self) -> Images:
        return run(self.found, self.calls)

    def fault(self) -> str:
        """What is wrong with the images as the generator is now, "" where they are the dense ones."""
        try:
            images = self.run()
        except Exception as error:
            own = (error.__cause__ if isinstance(error, SqueezeError) else None) or error  # the host's words
            return f"it stops with {type(own).__name__}: {own}"
        for name, dense in self.dense.items():
            if images[name].shape != dense.shape:
                return f"images ({name}) are {[*images[name].shape]}, not {[*dense.shape]}"
            off = float((images[name] - dense).abs().max())
            if not off <= self.tolerance:
                return f"images ({name}) are off by {off:.2g}, where float error is {self.tolerance:.1g} at most"
        return ""

    def check_squeezed(self) -> None:
        """Raise `ProofError` where the generator, squeezed by now, does not run, or makes no finite image."""
        try:
            images = run(self.found, {SHORTEST: self.calls[SHORTEST]})
        except Exception as error:
            raise ProofError(
                f"{name_of(self.found)} does not run with squeezed blocks ({type(error).__name__}: {error}): something "
                f"beside its blocks reads what they no longer have. {UNCHANGED}"
            ) from error
        image, dense = images[SHORTEST], self.dense[SHORTEST]
        if image.shape != dense.shape or not image.isfinite().all():
            raise ProofError(
                f"{name_of(self.found)} makes an image of {[*image.shape]} with squeezed blocks, not a finite one of "
                f"{[*dense.shape]}. {UNCHANGED}"
            )


UNCHANGED = "The generator is as it was; verify=False (convert --no-verify) squeezes it nevertheless"


def prove(found: Located, twins: Mapping[str, torch.nn.Module]) -> Optional[Trial]:
    """Run a dense generator with twins of its blocks in their places; it is dense again afterwards.

    Args:
        found: the dense generator.
        twins: {block name: `build_twins`' block}; they get the dense blocks' weights.

    Returns:
        The trial; None, with an `UnprovedWarning`, where the generator cannot be run so; None where its adapter runs
        no generators, whose author has the contract suite to prove it with.

    Raises:
        ProofError: its images are others: the first block that makes them so, and by how much.
    """
    if found.adapter.running is None:
        return None
    try:
        trial = trial_of(found)
    except CannotRun as error:
        _warn(f"no proof was made that {name_of(found)} can be squeezed: {error}")
        return None
    dense = {name: found.get_block(name) for name in twins}
    _load_twins(found, twins, dense)
    with exchanged(found, twins, dense):
        fault = trial.fault()
    if not fault:
        return trial
    coarse = _autocast_inside(trial)
    if coarse is not None:
        raise ProofError(
            f"{name_of(found)} turns torch.autocast on in its own code and computes in {str(coarse)[len('torch.') :]}, "
            f"in which nothing can be proved: with equal blocks {fault}. Turn it off there while the generator is "
            f"squeezed (torch.autocast(..., enabled=False)). {UNCHANGED}"
        )
    for name, twin in twins.items():
        with exchanged(found, {name: twin}, dense):
            alone = trial.fault()
        if alone:
            raise ProofError(_refusal(found, name, dense[name], alone))
    raise ProofError(f"{name_of(found)}: with all blocks replaced by equal ones {fault}. {UNCHANGED}")


def _autocast_inside(trial: Trial) -> Optional[torch.dtype]:
    """The dtype that autocast chooses somewhere in the generator, which is run with it off; None where it is off."""
    kind = reference_of(trial.found.network).device.type
    seen = []

    def look(*_: Any) -> None:
        seen.append(autocast_dtype(kind))

    handles = [module.register_forward_pre_hook(look) for module in trial.found.root.modules()]
    try:
        with contextlib.suppress(Exception), torch.autocast(kind, enabled=False):
            trial.run()
    finally:
        for handle in handles:
            handle.remove()
    return next(filter(None, seen), None)


def _refusal(found: Located, name: str, block: torch.nn.Module, fault: str) -> str:
    return (
        f"{name_of(found)} is no StyleGAN2 generator to the letter: with block {name} ({type(block).__name__}) "
        f"replaced by an equal one {fault}. The block, or what reads it, does more than squeeze_patch knows. "
        f"{UNCHANGED}"
    )


def _told(error: Exception) -> str:
    """An error of the host's, which asserts without words, with its place."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}{': ' if str(error) else ''}{error} ({Path(frame.filename).name}:{frame.lineno})"


class CannotRun(Exception):
    """Why a generator cannot be tried."""


def trial_of(found: Located) -> Trial:
    """Run the dense generator."""
    if any(parameter.is_meta for parameter in found.root.parameters()):
        raise CannotRun("its parameters are on the meta device, without values")
    broken = found.not_finite()
    if broken:
        raise CannotRun(f"{broken} holds values that are not finite: it has diverged")
    try:
        with _feature_dtypes(found) as dtypes:
            calls, images, as_whole = ways(found)
    except Exception as error:
        raise CannotRun(f"it does not run on latents or styles alone, {_told(error)}") from error
    if not all(isinstance(image, torch.Tensor) and image.isfinite().all() for image in images.values()):
        raise CannotRun("its images hold values that are not finite")
    tolerance = float_error(found, images, dtypes)
    peak = max(float(image.abs().max()) for image in images.values())
    if tolerance > COARSEST * peak:
        names = ", ".join(sorted(str(dtype)[len("torch.") :] for dtype in dtypes)) or "float32"
        raise CannotRun(f"float error is {tolerance:.1g} in images up to {peak:.1g}, computed in {names}")
    if not as_whole and _holds_more(found):
        _warn(
            f"of {name_of(found)} only {found.place} was run to prove that it can be squeezed: "
            "as a whole it wants more than a latent. Whether other parts of it read the layers that are replaced was "
            "not tried"
        )
    return Trial(found, calls, images, tolerance)


def _holds_more(found: Located) -> bool:
    """Whether the module that was passed has layers beside its generator, and something to do with them."""
    own = {id(parameter) for parameter in found.generator.parameters()}
    runs = getattr(type(found.root), "forward", None) is not torch.nn.Module.forward
    return runs and any(id(parameter) not in own for parameter in found.root.parameters())


def _warn(words: str) -> None:
    warnings.warn(words, UnprovedWarning, stacklevel=2)


@contextlib.contextmanager
def _feature_dtypes(found: Located) -> Iterator[Set[torch.dtype]]:
    """Of the features between blocks, which some forks cast to float16; not where autocast does so, see `prove`."""
    seen: Set[torch.dtype] = set()

    def look(x: torch.Tensor) -> None:
        seen.update([x.dtype] if autocast_dtype(x.device.type) is None else [])

    handles = [found.surgery.watch(found.network, spec.name, look) for spec in found.specs if not spec.is_last]
    try:
        yield seen
    finally:
        for handle in filter(None, handles):
            handle.remove()


def float_error(found: Located, images: Images, dtypes: Collection[torch.dtype] = ()) -> float:
    """A bound of what rounding changes in a pixel; ``dtypes`` are those of its features, where they are known.

    Each of the two layers of a block sums 9 c products, whose relative error is about ``u sqrt(9 c)`` for the unit
    roundoff u = 2^-24 of float32; demodulation keeps the features' size, so the layers' errors add up, relative to the
    largest pixel. Twice that for the two runs that are compared, and twice for good measure.
    """
    spec = max(found.specs, key=lambda each: each.channels)
    computed = {torch.float32, reference_of(found.network).dtype, *dtypes}
    unit = max(torch.finfo(dtype).eps for dtype in computed if dtype.is_floating_point) / 2
    peak = max(float(image.abs().max()) for image in images.values())
    return 8 * len(found.specs) * math.sqrt(spec.kernel_size**2 * spec.channels) * unit * peak


Call = Callable[[], torch.Tensor]


def ways(found: Located) -> Tuple[Dict[str, Call], Images, bool]:
    """The calls that users make, and their images: styles of their own for every layer, with the stored noise; and one
    image without noise, of a latent into the whole module, or of styles where it makes none of that alone; and which of
    these it was."""
    running, network = found.running, found.network
    num_ws = running.num_ws(network)
    n = 2 if found.specs[-1].resolution <= LARGEST_PAIR else 1
    ws = _styles(found, n * num_ws).reshape(n, num_ws, -1).to(reference_of(network).device)
    calls: Dict[str, Call] = {"styles": lambda: running.synthesis(network, ws, "const")}
    images = run(found, calls)
    if found.root is not network and isinstance(getattr(found.root, "z_dim", None), int):
        z, c = latents(found.sampler(), 1, SEED)
        calls[SHORTEST] = lambda: running.whole(found.root, network, z, c)
        with contextlib.suppress(Exception):  # it wants a camera, or answers with more than an image
            return calls, {**images, **run(found, {SHORTEST: calls[SHORTEST]})}, True
    calls[SHORTEST] = lambda: running.synthesis(network, ws[:1], "none")
    return calls, {**images, **run(found, {SHORTEST: calls[SHORTEST]})}, False


def _styles(found: Located, n: int) -> torch.Tensor:
    """[n, w_dim]; of a synthesis network without its mapping, which makes none, normal ones: any will do."""
    try:
        with any_will_do():
            return found.sample_w(n, SEED)
    except UnsupportedModelError:
        return torch.randn([n, found.specs[0].w_dim], generator=torch.Generator().manual_seed(SEED))


def run(found: Located, calls: Mapping[str, Callable[[], torch.Tensor]], *, with_hooks: bool = False) -> Images:
    """Float32 in evaluation mode; random numbers, modes and settings of the caller stay as they are. ``with_hooks``:
    hooks of the user's are part of the generator."""
    unobserved = contextlib.nullcontext() if with_hooks else _unobserved(found)
    with ONE_AT_A_TIME, evaluation(found.root), _exact(found), unobserved:
        return {name: call().detach().float() for name, call in calls.items()}


@contextlib.contextmanager
def _exact(found: Located) -> Iterator[None]:
    """No TF32 or bfloat16, whose 10 or 7 bits would drown faults; and the caller's random numbers."""
    devices = sorted({p.device.index for p in found.root.parameters() if p.device.type == "cuda"})
    with full_precision(cuda=bool(devices)), torch.random.fork_rng(devices=devices):
        yield


@contextlib.contextmanager
def _unobserved(found: Located) -> Iterator[None]:
    """Hooks of the user's do not see these runs; those that compute something, an adapter's or torch's, go on."""
    computing = {"torch", "squeeze_patch", type(found.surgery).__module__.partition(".")[0]}
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    before = [(hooks, dict(hooks)) for module in found.root.modules() for hooks in (getattr(module, k) for k in kinds)]
    try:
        for hooks, users in before:
            for key, hook in users.items():
                module = getattr(hook, "__module__", None) or ""  # Python 3.9's partial functions have none
                if module.partition(".")[0] not in computing:
                    hooks.pop(key, None)
        yield
    finally:
        for hooks, users in before:
            hooks.clear()
            hooks.update(users)


@contextlib.contextmanager
def exchanged(
    found: Located, new: Mapping[str, torch.nn.Module], dense: Mapping[str, torch.nn.Module]
) -> Iterator[None]:
    """``new`` blocks in their places for the length of a ``with`` block, ``dense`` ones afterwards."""
    try:
        for name, block in new.items():
            found.set_block(name, block)
        yield
    finally:
        for name in new:
            found.set_block(name, dense[name])


def build_twins(found: Located, shapes: Mapping[str, BlockShape]) -> Dict[str, torch.nn.Module]:
    """Squeezed or narrowed blocks as wide as the dense ones, as the adapter builds them; the caller's random numbers
    stay."""
    full: Dict[str, BlockShape] = {}
    for spec in found.specs:
        if spec.name in shapes:
            shape, inputs, c = shapes[spec.name], spec.dense_inputs, spec.channels
            is_new = (shape.inputs, shape.inner) != (inputs, c)
            full[spec.name] = BlockShape(inputs, c, c, shape.excite, anew=is_new)
    with random_kept(), torch.inference_mode(False):
        return {name: found.surgery.build(found.network, name, shape) for name, shape in full.items()}


def _load_twins(found: Located, twins: Mapping[str, Any], dense: Mapping[str, Any]) -> None:
    """Have the twins compute what the dense blocks do, if those are StyleGAN2 blocks."""
    with torch.inference_mode(False), torch.no_grad():
        for name, twin in twins.items():
            for child, layer in twin.named_children():
                old = getattr(dense[name], child, None)
                if isinstance(layer, Excite):
                    layer.weight.copy_(torch.eye(len(layer.weight))[:, :, None, None] / layer.weight_gain)
                    layer.bias.zero_()
                elif isinstance(old, torch.nn.Module) and layer is not old:
                    write_tensors(layer, all_tensors(old))


def name_of(found: Located) -> str:
    return type(found.root).__name__
