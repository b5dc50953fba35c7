"""A page of figures, curves and images: one HTML file that needs nothing besides."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Sequence, Union

from squeeze_patch.reporting.markup import escaped
from squeeze_patch.reporting.page_curves import Curve
from squeeze_patch.reporting.page_pictures import Pictures
from squeeze_patch.reporting.page_tables import Row, Table, badge

__all__ = ["START", "Curve", "Pictures", "Row", "Section", "Table", "page"]

Section = Union[Table, Curve, Pictures]

#: how every page begins, and nothing else does: it may be replaced by a newer one
START = (
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="generator" content="squeeze-patch">\n'
)


def page(title: str, summary: Union[str, Row], sections: Sequence[Section]) -> str:
    """An HTML document that stands alone: style, script and images are inside, and its Content-Security-Policy forbids
    browsers to load or run anything else. Encode it as UTF-8.

    Args:
        title: the heading.
        summary: what to know first; a `Row` with a state is shown as a verdict.
        sections: in their order. `Pictures` says what images cost; the rest of a page takes some 20 KB.

    Texts may come from anywhere: none is taken for HTML.
    """
    style, script = _text_of("style.css"), _text_of("script.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    body = "\n".join(_section(index, section) for index, section in enumerate(sections, 1))
    return (
        f'{START}<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{escaped(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{escaped(title)}</h1>\n{_summary(summary)}\n</header>\n<main>\n{body}\n</main>\n"
        f"<footer><p>Made by squeeze-patch. This page loads nothing.</p></footer>\n<script>{script}</script>\n"
        "</body>\n</html>\n"
    )


def _summary(summary: Union[str, Row]) -> str:
    if isinstance(summary, str):
        return f'<p class="summary">{escaped(summary)}</p>' if summary else ""
    detail = f"<br>{escaped(summary.detail)}" if summary.detail else ""
    figure = f"{escaped(summary.name)}: <strong>{escaped(summary.value)}</strong>"
    return f'<p class="summary {summary.state}">{badge(summary.state)} {figure}{detail}</p>'


def _section(index: int, section: Section) -> str:
    kind = type(section).__name__.lower()
    note = f'<p class="note">{escaped(section.note)}</p>\n' if section.note else ""
    return (
        f'<section class="{kind}" aria-labelledby="section{index}">\n'
        f'<h2 id="section{index}">{escaped(section.title)}</h2>\n{note}{section.html()}\n</section>'
    )


def _text_of(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """What a policy allows by its content alone."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}'"
