"""Links within the repository lead somewhere, and no page of the documentation is left unlinked."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from sessions import DOCS, ROOT

_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def pages() -> list[Path]:
    """All Markdown files of the project."""
    folders = ("docs", "examples", "benchmarks", "src", "tests", "tools")
    return sorted([*ROOT.glob("*.md"), *(page for folder in folders for page in (ROOT / folder).rglob("*.md"))])


def links(page: Path) -> list[tuple[Path, str]]:
    """File and anchor of each relative link of *page*."""
    found = [link.partition("#") for link in _LINK.findall(without_code(page.read_text())) if "://" not in link]
    return [((page.parent / unquote(path)).resolve() if path else page, anchor) for path, _, anchor in found]


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    titles = [heading.lower() for heading in _HEADING.findall(without_code(page.read_text()))]
    return {
        re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)).replace(" ", "-") for title in titles
    }


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page):
    lost = [f"{path}#{anchor}" for path, anchor in links(page) if not path.exists()]
    lost += [
        f"{path.name}#{anchor}"
        for path, anchor in links(page)
        if anchor and path.suffix == ".md" and path.exists() and anchor not in anchors(path)
    ]
    assert lost == []


def test_the_index_links_every_page_of_the_documentation():
    linked = {path for path, _ in links(DOCS / "README.md")}
    assert [page.name for page in sorted(DOCS.glob("**/*.md")) if page not in linked | {DOCS / "README.md"}] == []


def test_every_picture_is_shown_on_some_page():
    shown = {path for page in pages() for path, _ in links(page)}
    assert [picture.name for picture in sorted((DOCS / "img").iterdir()) if picture not in shown] == []
