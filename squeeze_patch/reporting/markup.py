"""Text out of files, names and messages as HTML."""

from __future__ import annotations

import html
from typing import Iterable


def escaped(text: object) -> str:
    """A text as HTML that means nothing but itself, in attributes, too. Characters that cannot be printed (control
    characters, marks that turn the direction of writing) become escape sequences; line breaks stay."""
    seen = (c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in str(text))
    return html.escape("".join(seen), quote=True)


def table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]], kind: str = "") -> str:
    """A table of headings and cells that are HTML already; the first cell of a row is its heading. Where the table is
    wider than the page, it scrolls, and the page does not.

    The roles say again what the elements mean: the style sheet may give them another layout, at which browsers forget.
    """
    head = "".join(f'<th scope="col" role="columnheader">{column}</th>' for column in columns)
    lines = []
    for row in rows:
        first, *others = row
        cells = "".join(f'<td role="cell">{cell}</td>' for cell in others)
        lines.append(f'<tr role="row"><th scope="row" role="rowheader">{first}</th>{cells}</tr>')
    body = "\n".join(lines)
    return (
        f'<div class="scroll {kind}" tabindex="0" role="region" aria-label="{escaped(title)}">\n<table role="table">\n'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n<tbody role="rowgroup">\n{body}\n</tbody>\n'
        "</table>\n</div>"
    )
