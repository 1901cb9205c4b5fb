"""The shape of the code: small files, layers that point downwards, no type tests on parts."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import layout
import pytest
import yaml

import decodery
import docs
from decodery.run.catalogue import FILE
from decodery.run.registry import ROLES, entries

SOURCE = Path(decodery.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))
PARTS = [path for path in FILES if path.parent.name in ROLES and path.name != "__init__.py"]


@pytest.mark.parametrize("path", PARTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_part_fits_on_two_pages(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 150


def test_no_type_tests_on_parts() -> None:
    """Parts are asked for what they need, never for what they are."""
    kinds = {entry.part.__name__ for entry in entries()} | {"Drafter", "Verifier", "Guide", "Constraint", "Search"}
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id in ("isinstance", "issubclass")
            ):
                names = {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
                assert not names & kinds, f"{path.name}:{node.lineno}"


def test_there_is_one_loop_and_it_is_short() -> None:
    tree = ast.parse((SOURCE / "run" / "loop.py").read_text())
    speculate = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "speculate")
    assert (speculate.end_lineno or 0) - speculate.lineno < 40
    loops = [
        path.name
        for path in FILES
        if ".proposing(" in path.read_text() and "lib" not in path.parts and path not in PARTS
    ]
    assert loops == ["loop.py"]


def test_the_loop_in_the_documentation_is_the_loop() -> None:
    source = (SOURCE / "run" / "loop.py").read_text()
    loop = next(
        node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "speculate"
    )
    assert (ast.get_source_segment(source, loop) or "?") in (docs.ROOT / "docs" / "architecture.md").read_text()


def test_documentation_is_up_to_date() -> None:
    """`make docs` would change nothing."""
    for name, text in (("methods.md", docs.methods()), ("composition.md", docs.composition())):
        assert (docs.ROOT / "docs" / name).read_text() == text, f"docs/{name} is old: run make docs"
    assert FILE.read_text() == docs.catalogue(), "what decodery list tells is old: run make docs"


def test_every_claim_cites_what_exists() -> None:
    """docs/claims.md: each row names a test or a result, and each of these is there."""
    rows = [line for line in (docs.ROOT / "docs" / "claims.md").read_text().splitlines() if line.startswith("| ")]
    claims = [row for row in rows if not row.startswith(("| It works when", "|---"))]
    assert len(claims) > 80
    for row in claims:
        cited = re.findall(r"`((?:tests|benchmarks)/[^`:]+)(?:::(\w+)[^`]*)?`", row)
        assert cited, f"cites nothing: {row}"
        for path, test in cited:
            text = docs.ROOT / path
            assert text.exists(), f"{path} is not there: {row}"
            assert not test or f"def {test}(" in text.read_text(), f"{path} has no {test}: {row}"


def test_every_method_with_a_paper_has_its_claims() -> None:
    named = set(
        re.findall(
            r"`([\w+-]+)`", "".join(re.findall(r"^### .*$", (docs.ROOT / "docs" / "claims.md").read_text(), re.M))
        )
    )
    assert {"rsd-c", "rsd-s", "spectr", "dyspec", "specdec++", "recycling", "aded", "copyspec"} <= named


def test_the_layers_in_the_docs_are_those_of_the_contract() -> None:
    root = Path(__file__).parents[2]
    layers = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    told = (root / "docs" / "architecture.md").read_text()
    assert "\n".join(layers).replace("decodery.", "") in told


def pages_of(nav: Any) -> list[str]:
    """The files of a part of the site's navigation."""
    if isinstance(nav, str):
        return [nav]
    return [page for entry in (nav.values() if isinstance(nav, dict) else nav) for page in pages_of(entry)]


def test_each_page_of_the_documentation_is_in_the_navigation_once() -> None:
    pages = pages_of(yaml.safe_load((docs.ROOT / "mkdocs.yml").read_text())["nav"])
    assert len(pages) == len(set(pages))
    there = {str(page.relative_to(docs.ROOT)) for page in (docs.ROOT / "docs").rglob("*.md")}
    assert there <= set(pages), f"not in mkdocs.yml: {sorted(there - set(pages))}"
    assert all((docs.ROOT / page).is_file() for page in pages)


def test_pictures_are_small_and_shown() -> None:
    pictures = sorted((docs.ROOT / "docs" / "images").iterdir())
    text = "".join(page.read_text() for page in (docs.ROOT / "docs").glob("*.md"))
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < 200_000, picture.name
        assert f"(images/{picture.name})" in text, f"no page shows {picture.name}"


def test_a_link_to_a_folder_leads_to_its_readme_in_the_site(tmp_path: Path) -> None:
    (tmp_path / "roles").mkdir()
    (tmp_path / "roles" / "README.md").write_text("# Roles\n")
    text = "[a](roles/) [b](roles) [c](roles/draft.md) [d](other/) [e](https://x/roles)"
    assert layout.with_readmes(text, tmp_path) == (
        "[a](roles/README.md) [b](roles/README.md) [c](roles/draft.md) [d](other/) [e](https://x/roles)"
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_file_has_over_250_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 250
