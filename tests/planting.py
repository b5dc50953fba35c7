"""How regressions are planted: each function changes a repository's generators in place."""

from __future__ import annotations

import copy
import math
import pickle
import statistics
import time
from typing import Any, Callable, Dict

import torch

import squeeze_patch
from squeeze_patch.adapters import locate, sampler
from squeeze_patch.adapters.located import Located
from squeeze_patch.checks.fixed_inputs import fixed_latents
from squeeze_patch.progress import one_thread
from squeeze_patch.sampling import draw, evaluation
from squeeze_patch.testing import trained

Generators = Dict[str, torch.nn.Module]
#: name of the block in which most are planted
SIDE = 16


def make_dense(host: Any) -> torch.nn.Module:
    """One that looks trained; the same at every call."""
    torch.manual_seed(0)
    return trained(host.generator())


def make_generators(host: Any, pair: bool = False, **request: Any) -> Generators:
    """A squeezed generator that looks trained, or one and its moving average; the same ones at every call."""
    how = {"init": "weights", "keep_original": False, "verify": False, **(request or {"ratio": 2.0})}
    G_ema = squeeze_patch.apply(make_dense(host), **how)
    if not pair:
        return {"": G_ema}
    G = copy.deepcopy(G_ema)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in G.parameters():
            parameter.mul_(1 + 0.02 * torch.randn(parameter.shape, generator=random))
    return {"G": G, "G_ema": G_ema}


def only(generators: Generators) -> Any:
    return next(iter(generators.values()))


def block_at(G: torch.nn.Module, side: int = SIDE) -> Any:
    found = locate(G)
    return found.get_block(spec_at(found, side).name)


def spec_at(found: Located, side: int = SIDE) -> Any:
    return next(spec for spec in found.specs if spec.resolution == side)


def module_name(found: Located, module: torch.nn.Module) -> str:
    return next(name for name, one in found.root.named_modules() if one is module)


def _largest(module: torch.nn.Module) -> torch.nn.Parameter:
    return max(module.parameters(), key=lambda parameter: parameter.numel())


def scale_one_number(generators: Generators) -> None:
    with torch.no_grad():
        _largest(block_at(only(generators)).conv1).view(-1)[5] *= 1.01


def scale_a_weight(generators: Generators) -> None:
    with torch.no_grad():
        next(iter(block_at(only(generators)).excite.parameters())).mul_(1.01)


def scale_noise(generators: Generators) -> None:
    """A constant of the code: tensors stay."""
    block_at(only(generators)).conv1.register_forward_hook(_louder)


def _louder(_module: Any, _inputs: Any, output: Any) -> Any:
    return output * 1.01


def clamp_output(generators: Generators) -> None:
    block_at(only(generators)).conv1.register_forward_hook(_clamped)


def _clamped(_module: Any, _inputs: Any, output: Any) -> Any:
    return output.clamp(-1e4, 1e4)


def skip_excite(generators: Generators) -> None:
    """Its tensors stay; nobody asks it."""
    block_at(only(generators)).excite.register_forward_hook(_passed_by)


def _passed_by(module: Any, inputs: Any, output: Any) -> Any:
    x = inputs[0]
    return torch.cat([x, torch.zeros_like(output[:, x.shape[1] :])], dim=1)


def drop_excite(generators: Generators) -> None:
    G = only(generators)
    name = module_name(locate(G), block_at(G).excite)
    holder, _, leaf = name.rpartition(".")
    delattr(G.get_submodule(holder), leaf)


def wrong_style(generators: Generators) -> None:
    block_at(only(generators)).torgb.register_forward_pre_hook(_reads_another_style)


def _reads_another_style(_module: Any, inputs: Any) -> Any:
    x, w, *more = inputs
    return (x, w.roll(1, dims=0), *more)


def rename_key(generators: Generators) -> None:
    block = block_at(only(generators))
    block.torgb.register_parameter("offset", block.torgb._parameters.pop("bias"))
    block.torgb.register_forward_pre_hook(_old_name)


def _old_name(module: Any, _inputs: Any) -> None:
    object.__setattr__(module, "bias", module.offset)


def lose_noise(generators: Generators) -> None:
    G = only(generators)
    holder, name = next(
        (module, name)
        for path, module in list(G.named_modules())
        for name, _ in module.named_buffers(recurse=False)
        if "noise" in name
    )
    noise = holder._buffers.pop(name)
    object.__setattr__(holder, name, noise)


def another_order(generators: Generators) -> None:
    """Of two channels of the generator that is trained: its images stay."""
    block, width = block_at(generators["G"]), spec_at(locate(generators["G"])).width
    order = torch.arange(width)
    order[[2, 7]] = order[[7, 2]]
    with torch.no_grad():
        for parameter in [*block.conv1.parameters(), *block.torgb.parameters()]:
            p = parameter[0] if parameter.dim() == 5 else parameter
            if p.shape[:1] == (width,):  # conv1's weight and bias, and the style of torgb; its own style is over more
                p.copy_(p[order])
            elif p.dim() > 1 and p.shape[1] == width:  # torgb's weight
                p.copy_(p[:, order])
        block.excite.weight.copy_(block.excite.weight[:, order])


def cut_gradient(generators: Generators) -> None:
    block_at(only(generators)).conv1.register_forward_pre_hook(_detached)


def _detached(_module: Any, inputs: Any) -> Any:
    return (inputs[0].detach(), *inputs[1:])


class _OnceOnly(torch.autograd.Function):
    """Right gradients, of which there are none."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return torch.tanh(x)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return (slope * (1 - torch.tanh(x) ** 2)).detach()


def cut_second_derivative(generators: Generators) -> None:
    block_at(only(generators)).excite.register_forward_hook(_once_only)


def _once_only(_module: Any, _inputs: Any, output: Any) -> Any:
    return _OnceOnly.apply(output)


class _Damped(torch.autograd.Function):
    """Gradients of another function."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> Any:
        return slope * 0.2


def wrong_gradient(generators: Generators) -> None:
    for side in (8, 16):
        block_at(only(generators), side).excite.register_forward_hook(_damped)


def _damped(_module: Any, _inputs: Any, output: Any) -> Any:
    return _Damped.apply(output)


def share_with_the_average(generators: Generators) -> None:
    own = block_at(generators["G"]).excite
    block_at(generators["G_ema"]).excite._parameters["weight"] = own._parameters["weight"]


def copies_share(generators: Generators) -> None:
    G = only(generators)
    own = type(G)
    G.__class__ = type(own.__name__, (own,), {"__deepcopy__": _shallow, "__module__": own.__module__})


def _shallow(self: Any, memo: Any) -> Any:
    twin = copy.copy(self)
    twin.__dict__ = dict(self.__dict__)
    return twin


def tie_parameters(generators: Generators) -> None:
    """A constructor that fills what its state dict does not hold."""
    block = block_at(only(generators))
    weight = block.excite._parameters.pop("weight")
    block.excite.register_buffer("weight", weight.detach(), persistent=False)
    block.excite.register_forward_pre_hook(_fills)


def _fills(module: Any, _inputs: Any) -> None:
    if not hasattr(module, "filled"):
        module.filled = True
        module.weight = module.weight.abs()


def needs_squeeze_patch(generators: Generators) -> None:
    block_at(only(generators)).excite.register_forward_hook(_unchanged)


def _unchanged(_module: Any, _inputs: Any, output: Any) -> Any:
    return output


def slower(generators: Generators, clock: Callable[[], float] = time.process_time, share: float = 0.3) -> None:
    """Three tenths of its time more, or another share of it."""
    G = only(generators)
    source, seconds = sampler(G), []
    z, c = fixed_latents(source, 1)
    with one_thread(), evaluation(G):
        for _ in range(20):
            start = time.process_time()
            draw(source, z, c)
            seconds.append(time.process_time() - start)
    G.more, G.clock = share * statistics.median(seconds), clock
    G.register_forward_hook(_dawdles)


def waiting(generators: Generators) -> None:
    """As `slower`, asleep: no work of the processor's."""
    slower(generators, time.perf_counter)


def _dawdles(module: Any, _inputs: Any, _output: Any) -> None:
    if module.clock is time.perf_counter:
        time.sleep(module.more)
    end = time.process_time() + module.more
    while module.clock is time.process_time and time.process_time() < end:
        pass


def more_memory(generators: Generators) -> None:
    block_at(only(generators)).conv1.register_forward_hook(_hoards)


def _hoards(_module: Any, _inputs: Any, output: Any) -> Any:
    large = torch.cat([output] * 60)
    return large[: len(output)].clone()


def departs_when_exported(generators: Generators) -> None:
    block_at(only(generators)).torgb.register_forward_hook(_compiled_otherwise)


def _compiled_otherwise(_module: Any, _inputs: Any, output: Any) -> Any:
    return output * 1.05 if torch.compiler.is_compiling() else output


def round_when_pickled(generators: Generators) -> None:
    G = only(generators)
    own = type(G)
    G.__class__ = type(own.__name__, (own,), {"__reduce_ex__": _rounded, "__module__": own.__module__})


def _rounded(self: Any, _protocol: Any) -> Any:
    """Weights in bfloat16."""
    twin = copy.copy(self)
    twin.__class__ = type(self).__mro__[1]
    twin = copy.deepcopy(twin)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(parameter.bfloat16())
    return pickle.loads, (pickle.dumps(twin),)


def forget_in_state_dicts(generators: Generators) -> None:
    only(generators)._register_state_dict_hook(_leaves_out)


def _leaves_out(_module: Any, state: Any, _prefix: Any, _metadata: Any) -> None:
    for name in [name for name in state if "excite.bias" in name]:
        del state[name]


def drift(generators: Generators) -> None:
    """Trained on, to the worse."""
    with torch.no_grad():
        block_at(only(generators)).excite.weight.mul_(0.7)


def one_in_a_thousand(generators: Generators) -> None:
    """The latent of the thousand with the largest first number."""
    G = only(generators)
    G.limit = float(fixed_latents(sampler(G), 1000, seed=1)[0][:, 0].max()) - 1e-4
    reads = getattr(G, "style", G)  # rosinality's mapping network is called by itself
    reads.limit = G.limit
    reads.register_forward_pre_hook(_rarely_nan)


def _rarely_nan(module: Any, inputs: Any) -> Any:
    z = inputs[0][0] if isinstance(inputs[0], (list, tuple)) else inputs[0]
    with torch.no_grad():
        z[z[:, 0] >= module.limit] = math.nan


def random_noise(generators: Generators) -> None:
    block_at(only(generators)).conv1.register_forward_hook(_noisy)


def _noisy(_module: Any, _inputs: Any, output: Any) -> Any:
    return output + 0.01 * torch.randn_like(output)


def forget_truncation(generators: Generators) -> None:
    """Towards another centre: images without truncation stay."""
    G = only(generators)
    next(buffer for name, buffer in G.named_buffers() if name.endswith("w_avg")).zero_()
