"""What a search promises: a legal answer, nothing left behind, and the same law whatever is drafted inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from decodery.core.chooser import Chooser, Seeded, enumerate_law
from decodery.core.roles import Built, Guide, Search
from decodery.core.step import Step
from decodery.core.stop import Stop
from decodery.laws.engine import Law, variation, wanted
from decodery.laws.specimens import TOYS, WARM, claim
from decodery.model.session import Session
from decodery.model.toy import ToyModel
from decodery.run.build import build
from decodery.run.crew import Crew, Failed, steps
from decodery.run.loop import launch
from decodery.run.recipe import Recipe

PROMPT = (0, 1, 0)
LENGTH = 2
DRAFTS = ("ngram:min=1,length=2", "model:path=toy,length=1")
"""One drafter whose guesses are certain and one whose guesses are drawn."""


def each_way(one: Search) -> Iterator[tuple[str, ToyModel, tuple[Guide, ...], str]]:
    """Greedily or sampling, as the search takes it; with and without a constraint."""
    for name, toy in TOYS.items():
        for samples in (False, True):
            if one.samples in (None, samples):
                for constrain in ("none", "regex:(a|bc|ca)*"):
                    yield f"{name}, {constrain}", toy, (WARM,) if samples else (), constrain


def tidy(one: Search) -> None:
    """All nodes are given up at the end, and wherever it is cancelled before."""
    for where, toy, guides, constrain in each_way(one):
        built = build(Recipe.of("none", None, guides, constrain, one), toy)
        turns = 0
        while True:
            ended = _cancelled_after(turns, toy, built, f"{type(one).__name__} ({where})")
            if ended:
                break
            turns += 1
            claim(turns < 200, f"{type(one).__name__} does not end ({where})")


def _cancelled_after(turns: int, toy: ToyModel, built: Built, where: str) -> bool:
    """Whether the search had ended by itself by then."""
    arena = toy.arena()
    session = Session(arena, PROMPT)
    crew = Crew()
    crew.add(0, launch(built, session, Seeded(1), Stop(toy.eos, max_new_tokens=4)))
    events = crew.run()
    for _ in range(turns + 1):
        event = next(events, None)
        if event is not None and isinstance(event[1], Failed):
            raise event[1].error
    ended = not crew
    crew.close()
    session.close()
    arena.check()
    claim(not arena.nodes, f"{where}: {len(arena.nodes)} nodes are left after {turns} steps")
    return ended


def legal(one: Search) -> None:
    """The answer is what the law allows, within its limits; it is what was committed, and the first of the candidates."""
    for where, toy, guides, constrain in each_way(one):
        built = build(Recipe.of("none", None, guides, constrain, one), toy)
        drawn = replace(built, laws=replace(built.laws, greedy=False))  # one that maximises looks beyond the likeliest
        allowed = {words for words, chance in wanted(toy, drawn, 4).items() if chance > 0}
        for seed in range(5):
            session, stop = toy.session(PROMPT), Stop(toy.eos, max_new_tokens=4)
            taken: list[Step] = list(steps(launch(built, session, Seeded(seed), stop)))
            words = tuple(session.tokens[len(PROMPT) :])
            name = f"{type(one).__name__} ({where})"
            told = tuple(token for step in taken for token in step.tokens)
            claim(told == words, f"{name}: its steps say {told}, and {words} was committed")
            claim(words in allowed, f"{name}: the answer {words} is none of those the law allows")
            claim(stop.emitted == len(words), f"{name}: {stop.emitted} tokens were counted, not {len(words)}")
            claim(stop.reason is not None, f"{name}: it ends without a reason")
            found = taken[-1].candidates if taken else []
            claim(not found or found[0].tokens == words, f"{name}: the first candidate is not the answer")
            scores = [candidate.score for candidate in found]
            if len({candidate.tokens for candidate in found}) > 1 and one.samples is False:
                claim(scores == sorted(scores, reverse=True), f"{name}: the candidates are not in order: {scores}")


def law_of(one: Search, toy: ToyModel, guides: Sequence[Guide], constrain: str = "none", draft: str = "none") -> Law:
    """The law of the search's answer, every branch enumerated."""
    built = build(Recipe.of(draft, None, guides, constrain, one), toy)

    def once(rng: Chooser) -> tuple[int, ...]:
        session = toy.session(PROMPT)
        for _ in steps(launch(built, session, rng, Stop(toy.eos, max_new_tokens=LENGTH))):
            pass
        return tuple(session.tokens[len(PROMPT) :])

    return enumerate_law(once)


def lawful(one: Search) -> None:
    """One that maximises draws nothing; a lossless one that samples keeps the law; drafts inside change no law."""
    for where, toy, guides, constrain in each_way(one):
        name = f"{type(one).__name__} ({where})"
        law = law_of(one, toy, guides, constrain)
        claim(guides or len(law) == 1, f"{name}: the answer depends on chance where nothing is drawn")
        if guides and one.lossless:
            want = wanted(toy, build(Recipe.of("none", None, guides, constrain), toy), LENGTH)
            claim(
                variation(law, want) < 1e-9,
                f"{name}: wrong by {variation(law, want):.1e}, and it claims to be lossless",
            )
        for draft in DRAFTS if one.drafts and constrain == "none" else ():
            apart = variation(law, law_of(one, toy, guides, constrain, draft))
            claim(apart < 1e-9, f"{name}: drafts by {draft} change the law of the answer by {apart:.1e}")


LAWS: Sequence[Callable[[Any], None]] = (tidy, legal, lawful)
