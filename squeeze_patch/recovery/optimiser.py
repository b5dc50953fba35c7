"""Optimisers of a recovery: orthogonalised momentum for matrices, Adam for everything else.

Adam treats every number of a weight alone. Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural
networks") moves a weight matrix along its momentum with all singular values brought near 1, so that the directions that
only few latents need are learnt as fast as the common ones. Its gain: settings.py.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Sequence

import torch

#: decay rates of Adam's two moments (Kingma and Ba 2015, algorithm 1)
BETAS = (0.9, 0.999)
#: decay of Muon's momentum, which is looked ahead by as much (Nesterov)
MOMENTUM = 0.9
#: root mean square of Muon's step in units of the learning rate, as large as Adam's steps usually are (Liu et al. 2025,
#: "Muon is scalable for LLM training", section 2.2)
STEP_SIZE = 0.2
#: the quintic of Jordan et al., applied this many times
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """[m, n] -> [m, n] with the same singular vectors, all singular values between about 0.7 and 1.2.

    Zero stays zero. Newton and Schulz's iteration with the coefficients of Jordan et al. (2024).
    """
    a, b, c = QUINTIC
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.t()
    x = x / (x.norm() + torch.finfo(x.dtype).tiny)
    for _ in range(ITERATIONS):
        square = x @ x.t()
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide else x.t()


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum. Parameters [m, ...] count as matrices [m, n], m and n above 1.

    Args:
        parameters: the matrices.
        lr: their learning rate.
        relative: steps are in units of each matrix's root mean square at the start, instead of 1.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], lr: float, relative: bool = False) -> None:
        groups: List[Any] = list(parameters)
        if relative:
            groups = [{"params": [p], "scale": float(p.detach().square().mean().sqrt())} for p in parameters]
        super().__init__(groups, {"lr": lr, "scale": 1.0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step along the gradients; parameters without a gradient stay."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"]
                momentum.lerp_(parameter.grad, 1 - MOMENTUM)
                direction = orthogonalised(parameter.grad.lerp(momentum, MOMENTUM).flatten(1))
                size = STEP_SIZE * math.sqrt(max(direction.shape))
                parameter.sub_(direction.reshape_as(parameter), alpha=group["lr"] * group["scale"] * size)


class Optimiser:
    """Muon for the matrices among ``parameters``, Adam for vectors and numbers; one learning rate for both.

    It suits weights at unit scale (equalised learning rate); others want ``relative``.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], lr: float, relative: bool = False) -> None:
        matrices = [p for p in parameters if p.ndim > 1 and min(p.flatten(1).shape) > 1]
        taken = {id(parameter) for parameter in matrices}
        others = [parameter for parameter in parameters if id(parameter) not in taken]
        self.parts: List[torch.optim.Optimizer] = [
            *([Muon(matrices, lr, relative)] if matrices else []),
            *([torch.optim.Adam(others, lr=lr, betas=BETAS)] if others else []),
        ]

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def step(self, lr: float) -> None:
        """One step with this learning rate."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = lr
            part.step()

    def state_dict(self) -> List[Dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: List[Dict[str, Any]]) -> None:
        """Raises `ValueError` where it is of other parameters."""
        if len(states) != len(self.parts):
            raise ValueError(f"{len(states)} parts, not {len(self.parts)}")
        for part, state in zip(self.parts, states):
            part.load_state_dict(state)
            for parameter, moments in part.state.items():
                wrong = [name for name, moment in moments.items() if moment.shape not in (parameter.shape, ())]
                if wrong:
                    raise ValueError(f"{wrong[0]} of another shape than its parameter")
