"""The rows along a window of guesses."""

from __future__ import annotations

from collections.abc import Iterable

from decodery.core.step import Step
from decodery.core.tree import ROOT


def rows_along(step: Step, tokens: Iterable[int]) -> list[int]:
    """The row after the last committed token and those after each of these tokens, as far as the pass followed them.

    The tree may hold other drafts beside them, or less than all of them.
    """
    rows, node = [0], ROOT
    for token in tokens:
        node = next((child for child in step.tree.children(node) if step.tree.tokens[child] == token), ROOT)
        if node == ROOT or (row := step.rows.at(node)) is None:
            break
        rows.append(row)
    return rows
