"""The roles a part may have. Every part is a dataclass whose fields are its parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch

from decodery.core.chooser import Chooser
from decodery.core.law import Law, forbid
from decodery.core.lore import Lore
from decodery.core.part import Asking, Model, Part, Program
from decodery.core.plan import OFF, Plan
from decodery.core.step import Step, Verdict
from decodery.core.stop import Stop
from decodery.core.tree import TokenTree
from decodery.core.values import LOGITS, Budget, Rows, Scheme, Tensor, Want
from decodery.model.companion import Companion
from decodery.model.session import Session


@dataclass
class Guide(Part):
    """Reshapes logits, all rows of a pass at once; may work in place.

    ``samples``: naming this guide asks for a drawn token rather than the likeliest one.
    """

    samples: ClassVar[bool] = False
    repeats: ClassVar[bool] = False
    """Whether a recipe may name it more than once."""

    def companions(self, prompt: Sequence[int]) -> dict[str, Companion]:
        """Other contexts to advance in lock-step with the session; their rows arrive in ``rows.companions``."""
        return {}

    def __call__(self, logits: Tensor, rows: Rows) -> Tensor:
        raise NotImplementedError


@dataclass(frozen=True)
class Laws:
    """The guides of a request, applied to any rows: the target's, or a draft model's so that both speak of one law.

    ``companions``: the contexts that the guides declared for the request's prompt, by number of the guide and name.
    ``constrain``: the request's constraint, for drafters that ask it; a law is masked by what it is called with.
    """

    guides: tuple[Guide, ...] = ()
    greedy: bool = True
    companions: Mapping[tuple[int, str], Companion] = field(default_factory=dict)
    constrain: Constraint | None = None

    def given(self, prompt: Sequence[int]) -> Laws:
        """The laws of a request with this prompt."""
        declared = [(i, guide.companions(prompt)) for i, guide in enumerate(self.guides)]
        return replace(self, companions={(i, name): c for i, named in declared for name, c in named.items()})

    def alone(self) -> Laws:
        """Without the guides that look at more than logits: a draft model's rows come without companions and states."""
        guided = {i for i, _ in self.companions}
        plain = (guide for i, guide in enumerate(self.guides) if i not in guided and guide.want == LOGITS)
        return Laws(tuple(plain), self.greedy, constrain=self.constrain)

    def __call__(self, rows: Rows, masks: Sequence[Tensor | None] = ()) -> Law:
        """The law of every row; ``masks`` holds a bool ``[V]`` a row, or None where all is allowed."""
        logits = rows.logits.to(torch.promote_types(rows.logits.dtype, torch.float32))
        if self.guides or any(mask is not None for mask in masks):
            logits = logits.clone()
        # Before the guides, so that "the 5 likeliest" means of those allowed; after them, so that the constraint holds
        # whatever they did.
        forbid(logits, masks)
        for i, guide in enumerate(self.guides):
            logits = guide(logits, self._seen(rows, i))
        if self.guides:
            forbid(logits, masks)
        return Law(logits, self.greedy)

    def _seen(self, rows: Rows, i: int) -> Rows:
        """The rows as guide ``i`` sees them: with its own companions, by the names it gave them."""
        if not rows.companions:
            return rows
        return replace(rows, companions={key[1]: other for key, other in rows.companions.items() if key[0] == i})


@dataclass
class Drafter(Part):
    """Guesses the next tokens.

    State of a request is made in ``begin``; what is learnt for later requests is ``lore``, made by ``new_lore`` and shared by
    all copies of the user's object that are bound to models of one tokenizer. ``emits`` says how siblings are drawn; a
    drafter that draws chains only emits no scheme but CERTAIN or IID. One that runs a network defines ``proposing`` and
    ``observing`` instead of ``propose`` and ``observe``: it yields what it asks for and is sent the rows, so that the draft
    passes of a batch are one forward.
    """

    emits: ClassVar[frozenset[Scheme]] = frozenset({Scheme.CERTAIN})
    accepts: ClassVar[frozenset[Scheme]] = frozenset(Scheme)
    """Composite drafters: the schemes its inner drafters may emit when tokens are sampled."""
    obeys: ClassVar[bool] = False
    """Whether it drafts nothing that the constraint forbids."""
    optional: ClassVar[bool] = False
    """Whether a request runs without drafts where this drafter does not fit the model or the other parts."""

    lores: dict[tuple[str, str], Lore] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What was learnt, by tokenizer and kind of lore."""
    lore: Lore | None = field(default=None, init=False, repr=False, compare=False)
    """That of the model's tokenizer, once the drafter is bound."""

    def inner(self) -> tuple[Drafter, ...]:
        """The drafters that this one is made of; the builder checks them as it checks this one."""
        return ()

    def whole(self) -> Iterator[Drafter]:
        """This drafter and those it is made of."""
        yield self
        for part in self.inner():
            yield from part.whole()

    def new_lore(self, model: Model) -> Lore | None:
        """What this drafter knows before it learnt anything; None: it learns nothing that outlives a request."""
        return None

    def bind(self, model: Model) -> Self:
        """As for every part; a drafter that learns calls this one first."""
        if (lore := self.new_lore(model)) is not None:
            self.lore = self.lores.setdefault((model.fingerprint(), lore.kind), lore)
        return self

    def begin(self, session: Session, laws: Laws) -> None:
        """A new request. ``laws`` turns a draft model's rows into the law it should draw from."""

    def propose(self, session: Session, budget: Budget, rng: Chooser) -> TokenTree:
        """Guess; an empty tree is a legal guess."""
        raise NotImplementedError

    def proposing(self, session: Session, budget: Budget, rng: Chooser) -> Asking[TokenTree]:
        """Guess, asking for passes on the way; by default what ``propose`` returns, which needs none."""
        return self.propose(session, budget, rng)
        yield

    def observe(self, session: Session, step: Step, rng: Chooser) -> None:
        """Learn from the whole pass, refused rows included; the session has already committed."""

    def observing(self, session: Session, step: Step, rng: Chooser) -> Asking[None]:
        """Learn from the whole pass, asking for passes on the way; by default ``observe``."""
        return self.observe(session, step, rng)
        yield

    def end(self, session: Session) -> None:
        """The request is over, however it ended: give sessions of the drafter's own up."""


@dataclass
class Verifier(Part):
    """Decides which nodes are accepted. ``accepts``: the schemes it is exact for; ``greedy_only``: only for one-hot laws."""

    accepts: ClassVar[frozenset[Scheme]] = frozenset(Scheme)
    greedy_only: ClassVar[bool] = False

    def __call__(self, tree: TokenTree, p: Law, rows: Rows, rng: Chooser) -> Verdict:
        raise NotImplementedError


@dataclass
class Constraint(Part):
    """What may follow. States are values, so a tree of drafts is a tree of states. None as a state means forbidden.

    ``literal``: the text of an answer is that of its tokens as the constraint reads them, a first space included, which
    some tokenizers take off at the beginning of a text.
    """

    literal: ClassVar[bool] = False
    forces: ClassVar[bool] = False
    """Whether ``forced`` may tell something."""
    letters: ClassVar[str] = "abc"
    """What the three tokens of a toy spell where the law suite examines this constraint."""

    def start(self, prompt: Sequence[int]) -> Any:
        """The state before the first new token."""
        return ()

    def advance(self, state: Any, token: int) -> Any | None:
        """The state after ``token``, or None where it is forbidden."""
        raise NotImplementedError

    def mask(self, state: Any) -> Tensor | None:
        """Bool ``[V]`` of the allowed tokens, end-of-sequence left out; None allows all."""
        raise NotImplementedError

    def may_end(self, state: Any) -> bool:
        """Whether the answer may stop here."""
        return True

    def complete(self, state: Any) -> bool:
        """Whether the answer is whole and nothing may follow; it then ends even where no token can say so."""
        return False

    def forced(self, state: Any) -> Sequence[int]:
        """Tokens that spell what must follow, as far as only one text may; a guess for drafters, not a rule."""
        return ()

    def value(self, text: str, whole: bool = True) -> Any:
        """What an answer's text stands for, such as an object for JSON; None where it stands for nothing.

        ``whole``: whether the text is the whole answer; of a beginning, what can be read so far. Raises ``ValueError``
        where a whole text is well formed and still none of the values wanted.
        """
        return None


@dataclass
class Search(Part):
    """Looks at many candidates before it commits: a program like the loop, with programs of its own inside.

    ``drafts``: whether the chosen drafter and verifier run inside, because every candidate is continued by itself.
    ``samples``: whether tokens must be drawn (True), must not be (False), or either is right (None).
    """

    drafts: ClassVar[bool] = False
    samples: ClassVar[bool | None] = False

    def __call__(self, session: Session, built: Built, rng: Chooser, stop: Stop) -> Program:
        raise NotImplementedError


@dataclass(frozen=True)
class Built:
    """Parts that fit together and know their model; what a program needs beside its text, its randomness and its end."""

    draft: Drafter
    verify: Verifier
    laws: Laws
    constrain: Constraint
    search: Search | None
    want: Want
    lossless: bool
    plan: Plan = OFF
