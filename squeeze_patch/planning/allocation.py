"""Where to spend channels: widths of all blocks together, under one budget of parameters or multiply-adds.

Every block has two widths, behind conv0 (p) and behind conv1 (q). What the image loses by each is known from the
trained generator (`spectral`); losses add up. From all channels, again and again the step to fewer of them that loses
least for what it saves, then exchanges between two widths while they gain. Pure arithmetic; nothing here touches a
generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from squeeze_patch.adapters.content import BlockShape, BlockSpec
from squeeze_patch.planning.plans import BlockPlan
from squeeze_patch.planning.solver import MULTIPLE, BlockCost

#: (index of a block, whether its width is p (behind conv0), else q)
Place = Tuple[int, bool]
#: steps of a width that are tried at a time
STRIDES = (1, 2, 3, 4, 6, 8)
#: channels of a layer that is wide
WIDE = 128
#: no layer gets fewer channels, where it has as many
FEWEST = 3


@dataclass(frozen=True)
class Losses:
    """{block name: what the image loses with 0, 1, ... c channels}: behind conv1, and behind conv0."""

    outer: Mapping[str, Sequence[float]]
    inner: Mapping[str, Sequence[float]]


class Allocation:
    """Widths of all blocks, to be made smaller until they fit a budget.

    Args:
        specs: all blocks in running order, dense.
        losses: of each width.
        method: "squeeze" = blocks with excite where fewer channels are left behind conv1; "narrow" = none.
        cost: what a block costs.
        multiple: widths are multiples of this; None = 8, which tensor cores like, or 1 in generators without layers of
            `WIDE` channels, which keep no such hardware busy.
        has_inner: whether there may be fewer channels behind conv0; else all blocks are the paper's.
    """

    def __init__(
        self,
        specs: Sequence[BlockSpec],
        losses: Losses,
        method: str,
        cost: BlockCost,
        multiple: Optional[int] = None,
        has_inner: bool = True,
    ) -> None:
        self.specs, self.method, self.cost = list(specs), method, cost
        self.widths: Dict[Place, int] = {}
        self._costs: Dict[Tuple[Optional[int], ...], int] = {}  # of a block, by the widths that it depends on
        self.losses: Dict[Place, Sequence[float]] = {}
        self.steps: Dict[Place, int] = {}
        widest = max(spec.channels for spec in specs)
        for index, spec in enumerate(self.specs):
            places = ((True, losses.inner), (False, losses.outer)) if has_inner else ((False, losses.outer),)
            for is_inner, known in places:
                self.widths[index, is_inner] = spec.channels
                self.losses[index, is_inner] = known[spec.name]
                self.steps[index, is_inner] = multiple or (MULTIPLE if widest >= WIDE else 1)

    def spend(self, budget: int) -> None:
        """Make widths smaller until the cost is ``budget`` or less, as little less as steps allow."""
        while self.total() > budget:
            options = list(self._smaller(budget))
            if not options:
                return
            _, place, width = min(options)
            self.widths[place] = width
        self._fill(budget)
        while self._exchange(budget):
            pass

    def total(self) -> int:
        return sum(self._block(index) for index in range(len(self.specs)))

    def loss(self) -> float:
        return sum(float(self.losses[place][width]) for place, width in self.widths.items())

    def blocks(self) -> List[BlockPlan]:
        """What becomes of the blocks that do not stay dense."""
        found = []
        for index, spec in enumerate(self.specs):
            shape = self._shape(index)
            if shape is not None:
                planned = BlockPlan(spec.name, spec.resolution, spec.channels, shape.width)
                found.append(BlockPlan(**{**vars(planned), "inner": shape.inner, "excite": shape.excite}))
        return found

    def _shape(self, index: int) -> Optional[BlockShape]:
        spec = self.specs[index]
        p, q = self.widths.get((index, True), spec.channels), self.widths[index, False]
        narrow = self.method == "narrow"
        before = self.widths[index - 1, False] if narrow and index else None
        inputs = spec.dense_inputs if before is None else before
        if (inputs, p, q) == (spec.dense_inputs, spec.channels, spec.channels):
            return None
        return BlockShape(inputs, p, q, excite=not narrow and q < spec.channels)

    def _block(self, index: int) -> int:
        get = self.widths.get
        widths = (index, get((index - 1, False)), get((index, True)), get((index, False)))
        if widths not in self._costs:
            self._costs[widths] = self.cost(self.specs[index], self._shape(index))
        return self._costs[widths]

    def _near(self, index: int) -> int:
        """The cost of a block and of the one that reads it."""
        behind = self._block(index + 1) if index + 1 < len(self.specs) else 0
        return self._block(index) + behind

    def _smaller(self, budget: int) -> Iterator[Tuple[float, Place, int]]:
        """(loss for what is saved, place, width); where one step goes beyond the budget, only what the step needs to
        reach it counts as saved."""
        left = self.total() - budget
        for place, now in self.widths.items():
            before = self._near(place[0])
            for width in self._candidates(place):
                self.widths[place] = width
                saved = before - self._near(place[0])
                if saved > 0:
                    lost = float(self.losses[place][width]) - float(self.losses[place][now])
                    yield lost / min(saved, left), place, width
            self.widths[place] = now

    def _candidates(self, place: Place) -> List[int]:
        now, step, rounded = self.widths[place], self.steps[place], self._next_below(place)
        least = min(max(step, FEWEST), self.specs[place[0]].channels)
        is_full = now == self.specs[place[0]].channels
        if is_full:  # the first step has to pay for excite
            return list(range(rounded, least - 1, -step))
        return [rounded - k * step for k in range(max(STRIDES)) if rounded - k * step >= least]

    def _next_below(self, place: Place) -> int:
        """The next multiple below a width, which is none itself where all channels are left."""
        return self.widths[place] - (self.widths[place] % self.steps[place] or self.steps[place])

    def _fill(self, budget: int) -> None:
        """Give back what the last step saved beyond the budget, where it gains most for what it costs."""
        while True:
            options = []
            for place, now in self.widths.items():
                before, spec = self.total(), self.specs[place[0]]
                wider = min(now - now % self.steps[place] + self.steps[place], spec.channels)
                self.widths[place] = wider
                if wider > now and self.total() <= budget:
                    gained = float(self.losses[place][now]) - float(self.losses[place][wider])
                    options.append((gained / max(self.total() - before, 1), place, wider))
                self.widths[place] = now
            if not options:
                return
            _, place, wider = max(options)
            self.widths[place] = wider

    def _exchange(self, budget: int) -> bool:
        """The best exchange: fewer channels in one place, more in another."""
        best: Optional[Tuple[float, Dict[Place, int]]] = None
        loss, widths = self.loss(), dict(self.widths)
        for place in widths:
            for stride in STRIDES:
                width = self._next_below(place) - (stride - 1) * self.steps[place]
                if width < FEWEST:
                    break
                for other in widths:
                    self.widths = {**widths, place: width}
                    if other != place and self._grow(other, budget) and self.loss() < loss * (1 - 1e-9):
                        found = self.loss(), dict(self.widths)
                        best = found if best is None or found[0] < best[0] else best
        self.widths = widths if best is None else best[1]
        return best is not None

    def _grow(self, place: Place, budget: int) -> bool:
        """As many channels as the budget has room for; whether there are more than before."""
        before, most, step = self.widths[place], self.specs[place[0]].channels, self.steps[place]
        for width in (most, *range(before + (most - before) // step * step, before, -step)):
            self.widths[place] = width
            if width > before and self.total() <= budget:
                return True
        self.widths[place] = before
        return False
