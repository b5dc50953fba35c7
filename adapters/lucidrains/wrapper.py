"""lucidrains' training wrapper StyleGAN2: it holds the generator and its moving average, and the optimiser."""

from __future__ import annotations

from typing import Any, Collection, List

import torch

from squeeze_patch.adapters.layers import class_named


class LucidrainsWrapper:
    """The role of a training wrapper: S and G are trained, SE and GE their moving averages, G_opt the optimiser."""

    def find_ema_pair(self, root: Any) -> List[torch.nn.Module]:
        parts = {name: getattr(root, name, None) for name in ("S", "G", "SE", "GE")}
        if not (class_named(root, "StyleGAN2") and all(isinstance(part, torch.nn.Module) for part in parts.values())):
            return []
        return [torch.nn.ModuleDict({"S": parts[s], "G": parts[g]}) for s, g in (("SE", "GE"), ("S", "G"))]  # type: ignore[dict-item]

    def refresh_optimiser(self, root: Any, gone: Collection[torch.nn.Parameter]) -> None:
        optimiser = getattr(root, "G_opt", None)
        if not isinstance(optimiser, torch.optim.Optimizer):
            return
        now = [*root.G.parameters(), *root.S.parameters()]  # in the host's order, by which states are stored
        places = {id(parameter): place for place, parameter in enumerate(now)}
        lost = {id(parameter) for parameter in gone}
        known = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
        new = [parameter for parameter in now if id(parameter) not in known]
        for group in optimiser.param_groups:
            staying = [parameter for parameter in group["params"] if id(parameter) not in lost]
            if len(staying) < len(group["params"]):  # new parameters go to where the first old ones were
                group["params"] = sorted(staying + new, key=lambda parameter: places.get(id(parameter), len(now)))
                new = []
        for parameter in [parameter for parameter in optimiser.state if id(parameter) in lost]:
            del optimiser.state[parameter]
