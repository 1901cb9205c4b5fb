"""The trace page: faithful to the steps, and safe whatever the tokens say."""

from __future__ import annotations

import gc
import json
import weakref
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch

from decodery.constrain.free import Free
from decodery.core.chooser import Chooser, Seeded
from decodery.core.errors import DecoderyError
from decodery.core.law import Law
from decodery.core.part import Program
from decodery.core.roles import Drafter, Laws, Verifier
from decodery.core.stats import Stats
from decodery.core.step import Step, Verdict
from decodery.core.stop import Stop
from decodery.core.tree import ROOT, TokenTree
from decodery.core.values import LOGITS, Budget, Rows, Scheme
from decodery.draft.ngram import NGram
from decodery.inspect.trace import HALF, Recorder
from decodery.model.toy import ToyModel
from decodery.search.beam import Beam
from decodery.verify.greedy import Greedy
from decodery.verify.residual import Residual

from ..running import search, speculate, together

PLAIN = list("abcdef")
HOSTILE = ["</script><script>alert(1)</script>", "<!--<script>", "\"'\\", "\u2028\u2029", "&lt;{{trace}}", "\ud800"]


class Codec:
    """A tokenizer of six words."""

    bytes: ClassVar[dict[int, int]] = {}
    opening: ClassVar[tuple[int, ...]] = ()

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self.tokenizer = SimpleNamespace(convert_ids_to_tokens=lambda token: words[token])

    def hidden(self, token: int) -> str | None:
        return None

    def decode(self, tokens: list[int]) -> str:
        return "".join(self.words[token] for token in tokens)


class Drawn(Drafter):
    """Four siblings drawn independently from a flat law, so that some repeat, each with a child."""

    emits = frozenset({Scheme.IID})

    def propose(self, session: Any, budget: Budget, rng: Chooser) -> TokenTree:
        tree = TokenTree(scheme=Scheme.IID)
        q = torch.full((6,), 1 / 6, dtype=torch.float64)
        if budget.depth > 0:
            first = [tree.add(rng.pick(q), ROOT, q) for _ in range(4)]
            if budget.depth > 1:
                for node in first:
                    tree.add(rng.pick(q), node, q)
        return tree


def run(draft: Drafter, verify: Verifier, greedy: bool, words: list[str] = PLAIN, tokens: int = 30) -> Any:
    """A decoding of the toy: its steps, its recorder and its figures."""
    session = ToyModel(6).session([0, 1, 2, 0, 1])
    laws, stop = Laws((), greedy), Stop(max_new_tokens=tokens)
    return follow(speculate(session, draft, verify, laws, Free(), Seeded(5), stop, LOGITS), words)


def follow(program: Program, words: list[str] = PLAIN) -> Any:
    recorder, stats, steps = Recorder("".join(words), {"draft": "ngram"}, Codec(words)), Stats(), []  # type: ignore[arg-type]
    for _, step in together([program]):
        recorder.add(step)
        stats.add(step)
        steps.append(step)
    return steps, recorder, stats


class Scripts(HTMLParser):
    """Collects the script elements of a page and what else it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.urls: list[str | None] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.urls += [value for name, value in attrs if name in ("src", "href")]
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "script"

    def handle_data(self, data: str) -> None:
        if self._inside:
            attributes, text = self.scripts[-1]
            self.scripts[-1] = attributes, text + data


def parsed(page: str) -> tuple[Any, Scripts]:
    scripts = Scripts()
    scripts.feed(page)
    return json.loads(next(text for attributes, text in scripts.scripts if attributes.get("id") == "trace")), scripts


def fates(step: Step) -> Counter[str]:
    """How many nodes of each fate, counted another way than the recorder does: walk down what the verifier saw."""
    tree, (path, extra) = step.tree, step.verdict
    asked: list[int] = []
    for at in (ROOT, *path):
        for child in tree.children(at):
            if child in path:
                if all(tree.q[i] is None for i in tree.children(at)):  # a certain guess is compared with all siblings
                    asked += tree.children(at)
                break
            if extra or any(i in path for i in tree.children(at)):
                asked.append(child)
    ghosts = sum(tree.ghost)
    refused = len({i for i in asked if i not in path and not tree.ghost[i]})
    counts = {"accepted": len(path), "ghost": ghosts, "refused": refused}
    return Counter(counts | {"unreached": len(tree) - sum(counts.values())})


@pytest.mark.parametrize(
    ("draft", "verify", "greedy"),
    [(NGram(width=3), Greedy(), True), (NGram(width=3), Residual(), False), (Drawn(), Residual(), False)],
    ids=["greedy", "certain", "drawn"],
)
def test_counts_those_of_the_steps(draft: Drafter, verify: Verifier, greedy: bool) -> None:
    steps, recorder, stats = run(draft, verify, greedy)
    text = "".join(PLAIN[token] for step in steps for token in step.tokens)
    data, _ = parsed(recorder.page(stats, text))
    assert len(data["steps"]) == len(steps)
    total: Counter[str] = Counter()
    for shown, step in zip(data["steps"], steps, strict=True):
        counts = Counter(fate for fate, _ in shown["nodes"]["fate"])
        assert counts == +fates(step)
        assert shown["tokens"] == step.tokens
        assert shown["nodes"]["token"] == step.tree.tokens
        assert [row["node"] for row in shown["rows"]] == [ROOT, *step.verdict.path]
        total += counts
    assert total["accepted"] == stats.accepted == data["stats"]["accepted"]
    assert total["refused"] > 0
    assert "".join(piece for step in data["texts"] for piece in step) + data["rest"] == text == data["answer"]


def test_figures_are_those_of_the_laws() -> None:
    steps, recorder, stats = run(Drawn(), Residual(), greedy=False)
    data, _ = parsed(recorder.page(stats, ""))
    checked = 0
    for shown, step in zip(data["steps"], steps, strict=True):
        law = step.p.row(0)
        assert law is not None
        assert shown["rows"][0]["entropy"] == pytest.approx(float(torch.distributions.Categorical(law).entropy()), 1e-3)
        assert shown["rows"][0]["top"][0] == [step.p.best[0], pytest.approx(float(law.max()), 1e-3)]
        for node in step.tree.children(ROOT)[:1]:
            p, q = float(law[step.tree.tokens[node]]), 1 / 6
            assert shown["nodes"]["p"][node] == pytest.approx(p, 1e-3)
            assert shown["nodes"]["q"][node] == pytest.approx(q, 1e-3)
            assert shown["nodes"]["chance"][node] == pytest.approx(min(1.0, p / q), 1e-3)
            checked += 1
    assert checked > 5


def small(tree: TokenTree, verdict: Verdict) -> Step:
    live = [i for i, ghost in enumerate(tree.ghost) if not ghost]
    logits = torch.zeros(1 + len(live), 6)
    index = [1 + live.index(i) if i in live else None for i in range(len(tree))]
    rows = Rows(logits, (0, 1), [(), *(tree.words(i) for i in live)], index, prompt=2)
    return Step(tree, rows, Law(logits, greedy=False), verdict, verdict.tokens(tree))


def judged(tree: TokenTree, verdict: Verdict) -> list[list[str]]:
    recorder = Recorder("toy", {}, Codec(PLAIN))  # type: ignore[arg-type]
    recorder.add(small(tree, verdict))
    return list(parsed(recorder.page(Stats(), ""))[0]["steps"][0]["nodes"]["fate"])


def test_says_why() -> None:
    q, tree = torch.full((6,), 1 / 6), TokenTree()
    for token, parent in [(1, ROOT), (1, ROOT), (2, ROOT), (3, ROOT), (4, 2), (5, 3), (0, 1)]:
        tree.add(token, parent, q)
    assert judged(tree, Verdict((2,), (0,))) == [
        ["refused", "drawn"],
        ["ghost", "repeated"],
        ["accepted", ""],
        ["unreached", "sibling"],
        ["refused", "drawn"],
        ["unreached", "above"],
        ["ghost", "below"],
    ]
    assert judged(tree, Verdict((2,)))[4] == ["unreached", "ended"]
    tree = TokenTree.trie([[1, 2], [3]], 9)
    tree.haunt(0)
    assert judged(tree, Verdict((), (0,))) == [["ghost", "forbidden"], ["ghost", "below"], ["refused", "other"]]


def test_a_dead_row_is_no_number() -> None:
    step = small(TokenTree(), Verdict(()))
    step.p.logits.fill_(-torch.inf)
    recorder = Recorder("toy", {}, Codec(PLAIN))  # type: ignore[arg-type]
    recorder.add(step)
    (shown,) = parsed(recorder.page(Stats(), ""))[0]["steps"]
    assert shown["rows"] == [{"node": ROOT, "entropy": None, "top": []}]
    assert shown["tokens"] == []


def test_hostile_tokens_stay_data() -> None:
    steps, recorder, stats = run(NGram(width=3), Greedy(), True, HOSTILE)
    hostile = "".join(HOSTILE)
    page = recorder.page(stats, hostile)
    data, scripts = parsed(page)
    assert not {"\u2028", "\u2029", "\ud800"} & set(page)
    assert [attributes.get("type") for attributes, _ in scripts.scripts] == ["application/json", None]
    assert data["answer"] == data["model"] == hostile
    assert set(data["words"].values()) == {HOSTILE[int(token)] for token in data["words"]}
    assert "alert(1)" not in scripts.scripts[1][1]
    assert not scripts.urls  # nothing to load
    assert len(data["steps"]) == len(steps)


def test_a_search_shows_its_beginnings_and_candidates() -> None:
    stop = Stop(max_new_tokens=5)
    steps, recorder, stats = follow(search(Beam(width=3), ToyModel(6).session([0, 1]), (), Free(), Seeded(1), stop))
    shown = parsed(recorder.page(stats, ""))[0]["steps"]
    assert [len(step["beams"]) for step in shown[1:]] == [3] * (len(steps) - 1)
    assert [text for text, _ in shown[-1]["candidates"]] == [
        Codec(PLAIN).decode(c.tokens) for c in steps[-1].candidates
    ]
    assert shown[-1]["tokens"] == list(steps[-1].candidates[0].tokens)
    assert shown[-1]["extra_p"] is None


def test_keeps_no_tensor() -> None:
    recorder, step = Recorder("toy", {}, Codec(PLAIN)), small(TokenTree(), Verdict((), (1,)))  # type: ignore[arg-type]
    recorder.add(step)
    logits = weakref.ref(step.rows.logits)
    del step
    gc.collect()
    assert logits() is None


def test_parts_of_characters_keep_the_name_of_the_token() -> None:
    codec = Codec(["ðŁ", "<0xF0>", "Ġd", "e", "f", "g"])
    codec.decode = lambda tokens: "".join([HALF, HALF, " d", "e", "f", "g"][t] for t in tokens)  # type: ignore[method-assign]
    recorder = Recorder("toy", {}, codec)  # type: ignore[arg-type]
    recorder.add(small(TokenTree.chain([0, 1, 2]), Verdict((), (1,))))
    words = parsed(recorder.page(Stats(), ""))[0]["words"]
    assert [words[token] for token in "012"] == [HALF + "ðŁ", HALF + "<0xF0>", " d"]


def test_an_answer_cut_by_a_stop_string_ends_before_its_tokens() -> None:
    steps, recorder, stats = run(NGram(), Greedy(), True)
    data, _ = parsed(recorder.page(stats, "ab"))
    assert data["answer"] == "ab"
    assert len("".join(piece for step in data["texts"] for piece in step)) == sum(len(step.tokens) for step in steps)


def test_writes_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, recorder, stats = run(NGram(), Greedy(), True)
    place = tmp_path / "trace.html"
    recorder.write(place, stats, "")
    first = place.read_text("utf-8")
    assert first == recorder.page(stats, "")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DecoderyError, match=r"trace\.html: No space left"):
        recorder.write(place, stats, "other")
    assert [path.name for path in tmp_path.iterdir()] == ["trace.html"]
    assert place.read_text("utf-8") == first


@pytest.mark.parametrize("where", ["missing/trace.html", "."])
def test_says_where_it_cannot_write(tmp_path: Path, where: str) -> None:
    recorder = Recorder("toy", {}, Codec(PLAIN))  # type: ignore[arg-type]
    with pytest.raises(DecoderyError, match="the trace is not written: cannot write"):
        recorder.write(tmp_path / where, Stats(), "")
    assert list(tmp_path.iterdir()) == []
