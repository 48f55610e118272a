"""A page of headings, text and tables, as Markdown and as one file of HTML that loads nothing.

All text is untrusted: it is escaped in one place each, and nothing in it is ever markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any, Final

from capwasm.record.redact import printable

__all__ = [
    "Block",
    "Code",
    "Grid",
    "Heading",
    "Items",
    "Mono",
    "Page",
    "Text",
    "as_data",
    "as_html",
    "as_markdown",
]


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph, or a cell."""

    text: str


@dataclass(frozen=True, slots=True)
class Mono:
    """A word of a file: in a typewriter's letters."""

    text: str


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of level 2 or 3."""

    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    items: tuple[Text, ...]


@dataclass(frozen=True, slots=True)
class Code:
    """Lines to copy."""

    text: str


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: its columns' names, and its rows."""

    head: tuple[str, ...]
    rows: tuple[tuple[Text | Mono, ...], ...]


Block = Text | Heading | Items | Code | Grid


@dataclass(frozen=True, slots=True)
class Page:
    """A title, and what stands below it."""

    title: str
    blocks: tuple[Block, ...]


def as_data(page: Page) -> dict[str, Any]:
    """The page as JSON can hold it: each block with its kind."""
    return {
        "title": page.title,
        "blocks": [{"kind": type(b).__name__.lower(), **asdict(b)} for b in page.blocks],
    }


def as_markdown(page: Page) -> str:
    """The page as GitHub's Markdown."""
    parts = [f"# {_md(page.title)}", *map(_md_block, page.blocks)]
    return "\n\n".join(parts) + "\n"


def _md_block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {_md(block.text)}"
    if isinstance(block, Text):
        return _md(block.text)
    if isinstance(block, Items):
        return "\n".join(f"- {_md(item.text)}" for item in block.items)
    if isinstance(block, Code):
        return "\n".join(f"    {line}" for line in _lines(block.text))
    head = f"| {' | '.join(map(_md, block.head))} |"
    rule = f"| {' | '.join('---' for _ in block.head)} |"
    rows = (f"| {' | '.join(map(_md_cell, row))} |" for row in block.rows)
    return "\n".join([head, rule, *rows])


def _md_cell(cell: Text | Mono) -> str:
    text = printable(cell.text)
    # A span of code can't hold what would end it, or a cell.
    if isinstance(cell, Mono) and text and not set("`|\\") & set(text):
        return f"`{text}`"
    return _md(cell.text)


_SPECIAL: Final = re.compile(r"([\\`*_\[\]<>#|~&])")
# What would begin a list, at the beginning of a line.
_LIST: Final = re.compile(r"^(\d*(?=[.)])|(?=[-+=]))(.)")


def _md(text: str) -> str:
    """Text on one line, in which nothing is markup."""
    shown = _SPECIAL.sub(r"\\\1", " ".join(printable(text).split()))
    return _LIST.sub(r"\1\\\2", shown)


def _lines(text: str) -> list[str]:
    return [printable(line) for line in text.splitlines()]


_STYLE: Final = """
:root{color-scheme:light dark;--fg:#1b1f24;--bg:#fff;--soft:#57606a;--line:#d0d7de;--head:#f3f5f7;
--accent:#0757b8;--low:#116329;--medium:#7d4e00;--high:#b3121d}
@media (prefers-color-scheme:dark){:root{--fg:#e6edf3;--bg:#0d1117;--soft:#9aa5b1;--line:#3a424c;
--head:#171d25;--accent:#79b8ff;--low:#56d364;--medium:#e3b341;--high:#ff8a84}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:1rem/1.55 system-ui,sans-serif}
main,header,nav{max-width:66rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2rem}h1{font-size:2rem;line-height:1.2;margin:0 0 .75rem}
h2{font-size:1.4rem;margin:2.5rem 0 .75rem;padding-top:.75rem;border-top:1px solid var(--line)}
h3{font-size:1.1rem;margin:1.75rem 0 .5rem;overflow-wrap:anywhere}
p,ul{margin:.6rem 0}a{color:var(--accent)}
nav ol{columns:16rem;padding-left:1.25rem;margin:.5rem 0}
.skip{position:absolute;left:-999rem}.skip:focus{left:1rem;top:1rem;background:var(--bg);padding:.5rem}
.wide{overflow-x:auto;margin:.75rem 0}.wide:focus-visible{outline:2px solid var(--accent)}
table{border-collapse:collapse;min-width:100%;font-size:.94rem}
th,td{text-align:left;vertical-align:top;padding:.4rem .6rem;border:1px solid var(--line)}
td{overflow-wrap:break-word}
thead th{background:var(--head)}
code,pre{font-family:ui-monospace,Menlo,Consolas,monospace;font-size:.9em}
pre{background:var(--head);border:1px solid var(--line);padding:.6rem .8rem;overflow-x:auto}
.low,.medium,.high{font-weight:600;white-space:nowrap}.low{color:var(--low)}.medium{color:var(--medium)}
.high{color:var(--high)}
@media print{:root{color-scheme:light;font-size:10pt;--fg:#000;--bg:#fff;--line:#999;--head:#eee;--low:#000;--medium:#000;--high:#000}
nav,.skip{display:none}main,header{max-width:none;padding:0}
h2,h3{break-after:avoid}tr,pre{break-inside:avoid}thead{display:table-header-group}
.wide,pre{overflow:visible}pre{white-space:pre-wrap}}
"""
_RISKS: Final = ("low", "medium", "high")


def as_html(page: Page) -> str:
    """The page as one file: no script, no font, no image, nothing from elsewhere."""
    anchors = list(_anchors(page.blocks))
    named = iter(anchors)
    # What is below a heading bears its name, for who does not see the page.
    body, name = [], page.title
    for block in page.blocks:
        if isinstance(block, Heading):
            name = block.text
            body.append(_h(block, next(named)))
        else:
            body.append(_html_block(block, name))
    contents = "".join(
        f'<li><a href="#{anchor}">{_e(block.text)}</a></li>'
        for block, anchor in zip(
            [b for b in page.blocks if isinstance(b, Heading)], anchors, strict=True
        )
        if block.level == 2
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy"'
        " content=\"default-src 'none'; style-src 'unsafe-inline'; base-uri 'none';"
        " form-action 'none'\">\n"
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{_e(page.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the text</a>\n'
        f"<header><h1>{_e(page.title)}</h1></header>\n"
        f'<nav aria-label="Contents"><ol>{contents}</ol></nav>\n<main id="main">\n'
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _anchors(blocks: Sequence[Block]) -> Iterator[str]:
    """A name for each heading, each another."""
    for index, block in enumerate(b for b in blocks if isinstance(b, Heading)):
        words = re.sub("[^a-z0-9]+", "-", block.text.lower()).strip("-")[:40]
        yield f"{words or 'part'}-{index + 1}"


def _h(heading: Heading, anchor: str) -> str:
    return f'<h{heading.level} id="{anchor}">{_e(heading.text)}</h{heading.level}>'


def _html_block(block: Block, name: str) -> str:
    if isinstance(block, Text):
        return f"<p>{_e(block.text)}</p>"
    if isinstance(block, Items):
        return f"<ul>{''.join(f'<li>{_e(i.text)}</li>' for i in block.items)}</ul>"
    if isinstance(block, Code):
        lines = "\n".join(map(_e, _lines(block.text)))
        return f'<pre tabindex="0"><code>{lines}</code></pre>'
    assert isinstance(block, Grid)
    head = "".join(f'<th scope="col">{_e(h)}</th>' for h in block.head)
    rows = "".join(f"<tr>{''.join(map(_cell, row, block.head))}</tr>" for row in block.rows)
    label = f"{_e(name)}: {_e(block.head[0])}"
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{label}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(cell: Text | Mono, column: str) -> str:
    text = _e(cell.text)
    if isinstance(cell, Mono):
        return f"<td><code>{text}</code></td>"
    if column == "Risk" and text in _RISKS:
        return f'<td><span class="{text}">{text}</span></td>'
    return f"<td>{text}</td>"


def _e(text: str) -> str:
    return escape(printable(text))
