"""Lays out the pages of the documentation for mkdocs: ``make site``.

They are laid out as the repository has them, with what they link to, so that a link means the same on a git web page and in the
site. One thing differs: a git web page shows a folder by its README, and a site must be told so.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build" / "pages"
"""Where mkdocs reads (``docs_dir`` in ``mkdocs.yml``)."""

PARTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "docs", "benchmarks", "src")
LEFT_OUT = shutil.ignore_patterns("records.jsonl", "__pycache__", "*.json", "*.egg-info", "*.partial")


def main() -> None:
    """Lay the pages out anew."""
    shutil.rmtree(PAGES, ignore_errors=True)
    PAGES.mkdir(parents=True)
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, PAGES / name, ignore=LEFT_OUT)
        else:
            shutil.copy(source, PAGES / name)
    for page in PAGES.rglob("*.md"):
        page.write_text(with_readmes(page.read_text(), page.parent))


def with_readmes(text: str, folder: Path) -> str:
    """The text of a page in ``folder``, links to folders as links to their README."""

    def named(link: re.Match[str]) -> str:
        place = link[1].rstrip("/")
        return f"]({place}/README.md)" if (folder / place / "README.md").is_file() else link[0]

    return re.sub(r"\]\(([^)#:]+)\)", named, text)


if __name__ == "__main__":
    main()
