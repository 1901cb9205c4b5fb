"""A decoding as one HTML page: the tree of each step, which nodes were accepted, which were refused and why."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from decodery.core.errors import DecoderyError
from decodery.core.files import write_whole
from decodery.core.stats import Stats
from decodery.core.step import Step
from decodery.core.text import Text, TextStream
from decodery.core.tree import ROOT
from decodery.core.values import Tensor

TOP = 5  # likeliest tokens kept of each law
HALF = "\N{REPLACEMENT CHARACTER}"
"""Stands before the tokenizer's own name of a token that holds a part of a character; the page shows its bytes."""


class Recorder:
    """Takes plain data out of each step at once, so that no tensor outlives it. One recorder follows one answer."""

    def __init__(self, model: str, recipe: Mapping[str, Any], codec: Text) -> None:
        self._about = {"model": model, "recipe": dict(recipe), "prompt": ""}
        self._words: dict[int, str] = {}
        self._steps: list[dict[str, Any]] = []
        self._codec = codec

    def add(self, step: Step) -> None:
        """Book one step."""
        rows, decode = step.rows, self._codec.decode
        if not self._steps:
            self._about["prompt"] = decode(rows.context[: rows.prompt])
        entry = _plain(step)
        if rows.paths[0]:  # row 0 is not the root: a search, and these are its beginnings
            entry["beams"] = [decode(path)[-200:] for path in rows.paths]
        entry["candidates"] = [[decode(candidate.tokens), _round(candidate.score)] for candidate in step.candidates]
        tops = (token for row in entry["rows"] for token, _ in row["top"])
        for token in {entry["after"], *step.tokens, *step.tree.tokens, *tops} - self._words.keys():
            self._words[token] = self._word(token)
        self._steps.append(entry)

    def page(self, stats: Stats, text: str) -> str:
        """The page of an answer; ``text`` as the user got it, which a stop string may end before the last tokens."""
        stream = TextStream(self._codec)  # a token's text is what it completes: nothing, or more than one character
        texts = [[(stream.push(token), stream.piece())[1] for token in step["tokens"]] for step in self._steps]
        data: dict[str, Any] = {"words": self._words, "steps": self._steps, "stats": stats.as_dict()}
        data |= {"answer": text, "texts": texts, "rest": stream.finish()}
        # ASCII without "<", ">" and "&": no token can end the script element or open a comment.
        line = json.dumps(self._about | data, allow_nan=False, separators=(",", ":"))
        line = line.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
        return files("decodery.inspect").joinpath("trace.html").read_text("utf-8").replace("{{trace}}", line)

    def write(self, path: str | Path, stats: Stats, text: str) -> None:
        """Write the page, all of it or nothing. Raises ``DecoderyError`` where that is not possible."""
        try:
            write_whole(path, self.page(stats, text))
        except OSError as error:
            raise DecoderyError(f"the trace is not written: {error}") from error

    def _word(self, token: int) -> str:
        """How a token is shown by itself."""
        once, twice = self._codec.decode([token]), self._codec.decode([token, token])
        text = twice[len(once) :] if twice.startswith(once) else once  # some tokenizers drop the first space
        name = self._codec.tokenizer.convert_ids_to_tokens(token) or f"<{token}>"
        return HALF + str(name) if HALF in text else text or str(name)


def _plain(step: Step) -> dict[str, Any]:
    """A step without tensors. A law is shown as the softmax of the guided logits, a greedy one too."""
    tree, (path, extra) = step.tree, step.verdict
    # A search's pass has no row after the committed text: there the first row is that of its first beginning.
    rows = {ROOT: 0} | {node: row for node in {*tree.parents, *path} if (row := step.rows.at(node)) is not None}
    laws = dict(zip(rows, step.p.logits[list(rows.values())].float().softmax(-1), strict=True))
    chance = {} if step.p.greedy else {i: a for node in (ROOT, *path) for i, a in _chances(step, node, laws[node])}
    return {
        "after": (step.rows.paths[0] or step.rows.context)[-1],
        "tokens": step.tokens,
        "path": path,
        "greedy": step.p.greedy,
        "extra_p": _round(laws[path[-1] if path else ROOT][extra[0]]) if extra and not step.candidates else None,
        "seconds": {phase: _round(seconds) for phase, seconds in step.seconds.items()},
        "rows": [{"node": node, **_law(laws[node])} for node in (ROOT, *path)],
        "nodes": {
            "token": tree.tokens,
            "parent": tree.parents,
            "p": [_round(laws[up][t]) if up in laws else None for t, up in zip(tree.tokens, tree.parents, strict=True)],
            "q": [None if q is None else _round(q[t]) for t, q in zip(tree.tokens, tree.q, strict=True)],
            "chance": [chance.get(node) for node in range(len(tree))],
            "fate": [_judge(step, node) for node in range(len(tree))],
        },
    }


def _law(law: Tensor) -> dict[str, Any]:
    best = law.topk(min(TOP, len(law)))
    top = [[t, _round(p)] for t, p in zip(best.indices.tolist(), best.values.tolist(), strict=True) if p > 0]
    return {"entropy": _round(torch.special.entr(law).sum()), "top": top}


def _chances(step: Step, parent: int, left: Tensor) -> list[tuple[int, float | None]]:
    """With what probability the residual rule lets each drawn child stand, as far as it was asked."""
    tree, chances = step.tree, []
    for i in tree.children(parent):
        token, q = tree.tokens[i], tree.q[i]
        chances.append((i, _round(min(1.0, float(left[token] / (1 if q is None else q[token]))))))
        if i in step.verdict.path:
            break
        rest = left.index_fill(0, torch.tensor(token), 0) if q is None else (left - q.to(left)).clamp(min=0)
        left = rest / rest.sum() if rest.sum() > 0 else left
    return chances if any(tree.q[i] is not None for i in tree.children(parent)) else []


def _judge(step: Step, node: int) -> tuple[str, str]:
    """What became of a node, and a word for why; the page makes a sentence of it."""
    tree, (path, extra) = step.tree, step.verdict
    parent, siblings = tree.parents[node], tree.children(tree.parents[node])
    if node in path:
        return "accepted", ""
    if tree.ghost[node]:
        below = parent != ROOT and tree.ghost[parent]
        repeated = any(tree.tokens[i] == tree.tokens[node] for i in siblings if i < node)
        return "ghost", "below" if below else "repeated" if repeated else "forbidden"
    if parent not in (ROOT, *path):
        return "unreached", "above"
    stands = [i for i in siblings if i in path]
    drawn = any(tree.q[i] is not None for i in siblings)
    if not stands and not extra:
        return "unreached", "ended"
    if drawn and stands and stands[0] < node:
        return "unreached", "sibling"
    return "refused", "greedy" if step.p.greedy else "drawn" if drawn else "other"


def _round(x: Tensor | float) -> float | None:
    """Four digits, for JSON; None for what is no number (the law of a dead row)."""
    return float(f"{x:.4g}") if math.isfinite(x) else None
