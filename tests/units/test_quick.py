"""What ``make quick`` chooses."""

from __future__ import annotations

import quick


def test_the_laws_of_changed_parts_are_run() -> None:
    changed = ["src/decodery/draft/dynamic_exit.py", "src/decodery/guide/top_p.py", "docs/words.md"]
    assert quick.parts(changed) == ["draft/del", "guide/top-p"]
    assert {"guide/presence", "guide/repetition"} <= {*quick.parts(["src/decodery/guide/lib/places.py"])}
    assert [part.partition("/")[0] for part in quick.parts(["src/decodery/core/law.py"])] == [*quick.ROLES]
    assert quick.parts(["docs/words.md"]) == []


def test_the_tests_that_name_a_changed_module_are_run() -> None:
    chosen = quick.tests(["src/decodery/draft/ngram.py", "tests/laws/test_engine.py"])
    assert chosen[0] == "tests/laws/test_engine.py"
    assert "tests/units/test_drafters.py" in chosen
    assert len(chosen) <= quick.MOST
