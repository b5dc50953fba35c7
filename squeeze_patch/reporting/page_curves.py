"""Curves as inline SVG, in the colours of the page's style sheet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, List, Mapping, Sequence, Tuple

from squeeze_patch.reporting.markup import escaped, table

Point = Tuple[float, float]

#: of the drawing, in its own units; the page scales it
WIDTH, HEIGHT = 420, 280
LEFT, RIGHT, TOP, BOTTOM = 66, 24, 14, 48
#: colours and forms of points that the style sheet and `_marker` have, given out in turns
FORMS = 6
#: points of a series above which the line alone is drawn
MOST_MARKERS = 30
#: between two ticks of an axis, in units of the drawing
NEAREST = {"x": 40, "y": 22}
#: beyond it, axes would overflow
LARGEST = 1e300
#: values no further apart than this, relatively, are drawn as one
ALIKE = 1e-9


@dataclass(frozen=True)
class Curve:
    """Lines in one coordinate system, with their points as a table that is opened by a click.

    Attributes:
        series: {name: points (x, y)}. What an axis cannot show (nan, infinity, 0 and less where it is logarithmic) is
            left out of the drawing, and the page says how many points that were; the table has them.
        log_x, log_y: logarithmic axes.
        note: a paragraph above the drawing.
    """

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, Sequence[Point]]
    log_x: bool = False
    log_y: bool = False
    note: str = ""

    def html(self) -> str:
        """What stands below the title."""
        shown = {
            name: [(x, y) for x, y in points if _fits(x, self.log_x) and _fits(y, self.log_y)]
            for name, points in self.series.items()
        }
        points = [point for line in shown.values() for point in line]
        missing = sum(map(len, self.series.values())) - len(points)
        parts = [self._legend(), self._drawing(shown, points)] if points else []
        if missing:
            words = "1 point is" if missing == 1 else f"{missing} points are"
            parts.append(f"<p>{words} not drawn: no place on these axes.</p>")
        elif not points:
            parts.append("<p>There are no points to draw.</p>")
        return "\n".join([*parts, self._numbers()])

    def _legend(self) -> str:
        items = (
            f'<li><svg class="key" viewBox="0 0 28 14" aria-hidden="true"><g class="line{index % FORMS}">'
            f'<path class="line" d="M1 7H27"/>{_marker(index, 14, 7)}</g></svg> {escaped(name)}</li>'
            for index, name in enumerate(self.series)
        )
        return f'<ul class="legend">{"".join(items)}</ul>'

    def _drawing(self, shown: Mapping[str, Sequence[Point]], points: Sequence[Point]) -> str:
        x = Axis.of([point[0] for point in points], self.log_x, LEFT, WIDTH - RIGHT)
        y = Axis.of([point[1] for point in points], self.log_y, HEIGHT - BOTTOM, TOP)
        what = escaped(f"{self.title}: {self.y_label} over {self.x_label} of {', '.join(shown)}")
        lines = "\n".join(_line(index, name, line, x, y) for index, (name, line) in enumerate(shown.items()))
        bottom, middle = HEIGHT - BOTTOM, (TOP + HEIGHT - BOTTOM) / 2
        ticks = [
            f'<path class="grid" d="M{LEFT} {_n(place)}H{WIDTH - RIGHT}"/>'
            f'<text x="{LEFT - 7}" y="{_n(place + 4)}" text-anchor="end">{label}</text>'
            for place, label in y.ticks(NEAREST["y"])
        ] + [
            f'<path class="grid" d="M{_n(place)} {TOP}V{bottom}"/>'
            f'<text x="{_n(place)}" y="{bottom + 17}" text-anchor="middle">{label}</text>'
            for place, label in x.ticks(NEAREST["x"])
        ]
        return (
            f'<svg class="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{what}">\n'
            + "\n".join(ticks)
            + f'\n<path class="axis" d="M{LEFT} {TOP}V{bottom}H{WIDTH - RIGHT}"/>\n'
            f'<text class="label" x="{(LEFT + WIDTH - RIGHT) // 2}" y="{HEIGHT - 8}" text-anchor="middle">'
            f"{escaped(self.x_label)}</text>\n"
            f'<text class="label" x="13" y="{_n(middle)}" text-anchor="middle" transform="rotate(-90 13 {_n(middle)})">'
            f"{escaped(self.y_label)}</text>\n{lines}\n</svg>"
        )

    def _numbers(self) -> str:
        """Every point, for those who do not see the drawing, or want the numbers."""
        rows: Dict[float, Dict[str, List[str]]] = {}
        for name, points in self.series.items():
            for x, y in points:
                rows.setdefault(x, {}).setdefault(name, []).append(f"{y:.6g}")
        cells = [
            [f"{x:.6g}", *(", ".join(rows[x].get(name, [])) for name in self.series)]
            for x in sorted(rows, key=lambda x: (math.isnan(x), x))
        ]
        columns = [escaped(self.x_label), *map(escaped, self.series)]
        return f"<details><summary>Numbers</summary>\n{table(self.title, columns, cells)}\n</details>"


@dataclass(frozen=True)
class Axis:
    """From the values ``low`` to ``high``, which stand at the places ``start`` and ``end`` of the drawing; ``values``
    are those that are drawn."""

    low: float
    high: float
    start: float
    end: float
    log: bool
    values: Tuple[float, ...]

    @staticmethod
    def of(values: Sequence[float], log: bool, start: float, end: float) -> Axis:
        """An axis that has room for the values; from 0, unless the values lie close together."""
        low, high = min(values), max(values)
        same = high - low <= ALIKE * max(abs(low), abs(high))
        if log:
            wider = 1.3 if same else 1.0
            return Axis(low / wider, high * wider, start, end, log, tuple(sorted(set(values))))
        if 0 <= low <= 0.8 * high:
            low = 0.0
        if same:
            low, high = low - (abs(low) / 2 or 1.0), high + (abs(high) / 2 or 1.0)
        step = _step(high - low)
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        return Axis(low, high, start, end, log, tuple(sorted(set(values))))

    def place(self, value: float) -> float:
        """Where a value stands."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        return self.start + (self.end - self.start) * ((math.log(value) if self.log else value) - low) / (high - low)

    def ticks(self, nearest: float) -> List[Tuple[float, str]]:
        """(place, label) of round values, at least ``nearest`` apart."""
        found: List[float] = []
        for value in self._round_values():
            if all(abs(self.place(value) - self.place(other)) >= nearest for other in found):
                found.append(value)
        labels: List[str] = []
        for digits in range(4, 12):  # as few as tell them apart
            labels = [f"{value:.{digits}g}" for value in found]
            if len(set(labels)) == len(labels):
                break
        return [(self.place(value), label) for value, label in zip(found, labels)]

    def _round_values(self) -> List[float]:
        if not self.log:
            step = _step(self.high - self.low)
            count = round((self.high - self.low) / step)
            return [round(self.low / step + index) * step for index in range(count + 1)]
        if len(self.values) <= 12 and self.start < self.end:
            return list(self.values)  # resolutions, say, which are round in their own way
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        # the tens first, so that the others stand where there is room
        values = [factor * 10.0**power for factor in (1, 3, 2, 5) for power in powers]
        return [value for value in values if self.low <= value <= self.high] or [self.low, self.high]


def _fits(value: float, log: bool) -> bool:
    return abs(value) < LARGEST and (value > 1 / LARGEST or not log)


def _step(span: float) -> float:
    """Of about five ticks: 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(span / 5))
    return min((factor * power for factor in (1, 2, 5, 10)), key=lambda step: abs(span / step - 5))


def _line(index: int, name: str, points: Sequence[Point], x: Axis, y: Axis) -> str:
    places = [(x.place(one), y.place(other)) for one, other in points]
    path = "L".join(f"{_n(one)} {_n(other)}" for one, other in places)
    markers = "".join(
        f"<g><title>{escaped(name)}: {point[0]:.6g}, {point[1]:.6g}</title>{_marker(index, *place)}</g>"
        for point, place in zip(points, places)
        if len(points) <= MOST_MARKERS
    )
    line = f'<path class="line" d="M{path}"/>' if points else ""
    return f'<g class="line{index % FORMS}">{line}{markers}</g>'


def _marker(index: int, x: float, y: float) -> str:
    """A form of its own for every line, since colours do not tell everybody."""
    middle = f"M{_n(x)} {_n(y)}"
    return (
        f'<circle cx="{_n(x)}" cy="{_n(y)}" r="3.6"/>',
        f'<path d="{middle}m-3.4-3.4h6.8v6.8h-6.8z"/>',
        f'<path d="{middle}m0-4.6l4.4 7.6h-8.8z"/>',
        f'<path d="{middle}m0-4.8l4.8 4.8l-4.8 4.8l-4.8-4.8z"/>',
        f'<path d="{middle}m0 4.6l4.4-7.6h-8.8z"/>',
        f'<path class="cross" d="{middle}m-3.4-3.4l6.8 6.8m0-6.8l-6.8 6.8"/>',
    )[index % FORMS]


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
