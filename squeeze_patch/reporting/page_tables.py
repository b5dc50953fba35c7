"""Figures in rows, each with what was found of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Sequence, Union

from squeeze_patch.errors import MeasurementError
from squeeze_patch.reporting.markup import escaped, table

#: {state: (sign, words)}; a state is never told by its colour alone
STATES = {
    "holds": ("\N{HEAVY CHECK MARK}", "holds"),
    "short": ("\N{HEAVY BALLOT X}", "falls short"),
    "unknown": ("?", "could not be run"),
    "skipped": ("\N{EN DASH}", "skipped"),
}


@dataclass(frozen=True)
class Row:
    """A figure: ``value`` is shown as it stands; ``state`` is "holds", "short", "unknown", "skipped" or "" (none).

    Raises:
        MeasurementError: no such state.
    """

    name: str
    value: str
    detail: str = ""
    state: str = ""

    def __post_init__(self) -> None:
        if self.state and self.state not in STATES:
            raise MeasurementError(f"a row's state is one of {', '.join(STATES)} or empty, not {self.state!r}")


@dataclass(frozen=True)
class Table:
    """Rows under a title.

    Attributes:
        rows: each a `Row`, or each as many texts as there are columns; the first cell is the row's heading.
        columns: headings; of `Row`s those of name, value and detail. A column behind the second that no row fills
            is left out.
        note: a paragraph above the table.

    Raises:
        MeasurementError: a row is longer or shorter than ``columns``, or of another kind than the first.
    """

    title: str
    rows: Union[Sequence[Row], Sequence[Sequence[str]]]
    columns: Sequence[str] = ("name", "value", "detail")
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            cells = 3 if isinstance(row, Row) else len(row)
            if cells != len(self.columns) or isinstance(row, Row) != isinstance(self.rows[0], Row):
                raise MeasurementError(
                    f"the rows of table {self.title!r} have to be alike, and to fill its {len(self.columns)} columns"
                )

    def html(self) -> str:
        """What stands below the title."""
        if not self.rows:
            return "<p>There is nothing to show.</p>"
        columns, cells = list(map(escaped, self.columns)), [_cells(row) for row in self.rows]
        if isinstance(self.rows[0], Row):
            columns.insert(2, "state")
        kept = [place for place in range(len(columns)) if place < 2 or any(row[place] for row in cells)]
        kind = "figures" if isinstance(self.rows[0], Row) else ""
        headings = [columns[place] for place in kept]
        return table(self.title, headings, [[row[place] for place in kept] for row in cells], kind)


def _cells(row: Union[Row, Sequence[str]]) -> List[str]:
    if not isinstance(row, Row):
        return list(map(escaped, row))
    return [escaped(row.name), escaped(row.value), badge(row.state), escaped(row.detail)]


def badge(state: str) -> str:
    """A state as a sign and words; nothing for none."""
    if not state:
        return ""
    sign, words = STATES[state]
    return f'<span class="badge {state}"><span aria-hidden="true">{sign}</span> {words}</span>'
