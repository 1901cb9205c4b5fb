"""A conversation in the terminal."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape

from decodery.cli.lines import Lines
from decodery.cli.markdown import Rendered
from decodery.cli.progress import Reading
from decodery.cli.words import BLOCK, ENDS, HELP, messages_in, save_messages, to_clipboard
from decodery.core.errors import DecoderyError
from decodery.model.model import Model
from decodery.model.session import Session
from decodery.plan.planner import plans
from decodery.run.api import stream
from decodery.run.output import Piece
from decodery.run.recipe import Recipe
from decodery.run.registry import name_of, nearest


@dataclass
class Chat:
    """Messages, and a session that keeps the cache from turn to turn."""

    model: Model
    recipe: Recipe
    system: str
    max_new_tokens: int
    seed: int | None
    show_draft: bool
    quiet: bool
    out: Console
    show: Callable[[Piece, bool], None]
    plan: str = "off"
    raw: bool = False
    messages: list[dict[str, str]] = field(default_factory=list)
    last: str = ""
    session: Session = field(init=False)
    lines: Lines = field(init=False)
    reading: Reading = field(init=False)

    def __post_init__(self) -> None:
        self.session = self.model.session()
        self.lines = Lines(self.out)
        self.reading = Reading(self.quiet)
        self.reset()

    def reset(self, system: str | None = None) -> None:
        """Start over, with another system message if one is given."""
        self.system = self.system if system is None else system
        self.messages = [{"role": "system", "content": self.system}] if self.system else []

    def loop(self, first: str = "") -> None:
        """Read, answer, repeat; until the end of input or /bye. ``first``: a message to begin with."""
        self.out.print(f"[dim]{escape(self.model.name)} · {escape(str(self.recipe.to_dict()))} · /help[/dim]")
        if first:
            self._heard(first, self.say)
        while True:
            try:
                line = self._message()
            except EOFError:
                return
            except KeyboardInterrupt:
                self.out.print()
                continue
            except (DecoderyError, UnicodeError) as error:
                self.out.print(f"[red]{escape(str(error))}[/red]")
                continue
            if line in ENDS:
                return
            if line:
                self._heard(line, self.command if line.startswith("/") else self.say)

    def _heard(self, line: str, act: Callable[[str], None]) -> None:
        """Act on a line; what goes wrong is told."""
        try:
            act(line)
        except (DecoderyError, OSError, UnicodeError) as error:
            self.out.print(f"[red]{escape(str(error))}[/red]")
        except (EOFError, KeyboardInterrupt):  # a message that was being edited stays as it was
            self.out.print()

    def _message(self) -> str:
        """A line, a pasted text of several lines, or all lines between triple quotes."""
        text = self.lines.read("> ").strip()
        if not text.startswith(BLOCK):
            return text
        text = text.removeprefix(BLOCK)
        while not text.rstrip().endswith(BLOCK):
            text += "\n" + self.lines.read("... ")
        return text.rstrip().removesuffix(BLOCK).strip()

    def say(self, text: str) -> None:
        """Answer a message; an interrupted answer stays in the conversation as far as it came."""
        self.messages.append({"role": "user", "content": text})
        answer = ""
        try:
            pieces = stream(
                self.model,
                self.messages,
                recipe=self.recipe,
                max_new_tokens=self.max_new_tokens,
                seed=self.seed,
                session=self.session,
                plan=self.plan,
                progress=self.reading,
            )
        except DecoderyError:
            self.messages.pop()
            raise
        try:
            with closing(pieces), self.reading, self._screen() as show:
                for piece in pieces:
                    answer += piece.text
                    show(piece)
        except KeyboardInterrupt:
            self.out.print(" [dim]stopped[/dim]", end="")
        except DecoderyError:
            self.messages.pop()
            raise
        self.out.print()
        self.messages.append({"role": "assistant", "content": answer})
        stats = pieces.output.stats
        self.last = f"{stats.line()} · {stats.cached_tokens} of {stats.prompt_tokens} prompt tokens from the cache"
        if not self.quiet:
            self.out.print(f"[dim]{escape(self.last)}[/dim]")

    def _screen(self) -> AbstractContextManager[Callable[[Piece], None]]:
        """What shows the pieces of an answer: rendered on a terminal, else as they are."""
        if self.out.is_terminal and not self.raw and not self.show_draft:
            return Rendered()
        return nullcontext(lambda piece: self.show(piece, self.show_draft))

    def command(self, line: str) -> None:
        """One of ``HELP``."""
        name, _, argument = line.partition(" ")
        argument = argument.strip()
        choices: dict[str, Callable[[], Any]] = {
            "/help": lambda: self.out.print("\n".join(f"{key:<18}{escape(value)}" for key, value in HELP.items())),
            "/set": lambda: self.set(*argument.partition(" ")[::2]),
            "/show": self.describe,
            "/draft": lambda: self.choose(draft=argument or "none"),
            "/guide": lambda: self.choose(guide=[] if argument in ("", "none") else argument.split()),
            "/system": lambda: self.reset(argument),
            "/retry": self.again,
            "/edit": lambda: self.edit(argument),
            "/undo": self.undo,
            "/reset": self.reset,
            "/save": lambda: self.save(argument),
            "/load": lambda: self.load(argument),
            "/copy": self.copy,
            "/stats": lambda: self.out.print(escape(self.last or "no answer yet")),
        }
        if name not in choices:
            raise DecoderyError(f"no command {name}; /help lists them.{nearest(name, [*choices, *ENDS])}")
        choices[name]()

    def choose(self, **parts: Any) -> None:
        """Change parts of the recipe; a drafter that stays is the same object, with all it has learnt."""
        self.recipe = self.recipe.replace(**parts)
        self.out.print(f"[dim]{escape(str(self.recipe.to_dict()))}[/dim]")

    def set(self, name: str, value: str) -> None:
        """Change a setting, or the first parameter of a guide, which is added where it is not there."""
        value = value.strip()
        if name in ("max-tokens", "seed"):
            if not value.lstrip("-").isdecimal():
                raise DecoderyError(f"/set {name} takes a whole number, not {value!r}")
            number = int(value)
            if name == "seed":
                self.seed = None if number == -1 else number
            elif number < 1:
                raise DecoderyError(f"/set max-tokens takes a number from 1 on, not {value}")
            else:
                self.max_new_tokens = number
        elif name == "plan":
            plans(value, self.model, self.recipe.draft, [1])  # refuses what is none
            self.plan = value
        elif name in ("show-draft", "raw"):
            if value not in ("on", "off"):
                raise DecoderyError(f"/set {name} takes on or off")
            setattr(self, name.replace("-", "_"), value == "on")
        elif not name or not value:
            raise DecoderyError("/set takes a name and a value, e.g. /set temperature 0.7")
        else:
            kept = [guide for guide in self.recipe.guide if name_of(guide)[1] != name]
            self.choose(guide=[*kept, f"{name}:{value}"])

    def describe(self) -> None:
        """Print the settings."""
        facts = {
            "model": self.model.name,
            "backend": self.model.backend,
            "parts": self.recipe.to_dict(),
            "plan": self.plan,
            "max-tokens": self.max_new_tokens,
            "seed": self.seed,
            "messages": len(self.messages),
            "tokens in the cache": f"{len(self.session.tokens)} of {self.model.context}",
        }
        self.out.print("\n".join(f"{name:<22}{escape(str(value))}" for name, value in facts.items()))

    def undo(self) -> str:
        """Take back the last message and what followed; returns the message."""
        asked = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
        if not asked:
            raise DecoderyError("there is no message yet")
        text = self.messages[asked[-1]]["content"]
        del self.messages[asked[-1] :]
        return text

    def edit(self, text: str) -> None:
        """Answer another text in place of the last message; without one, that is edited in the terminal."""
        asked = [message["content"] for message in self.messages if message["role"] == "user"]
        self.again(text or self.lines.read("> ", asked[-1] if asked else "").strip())

    def again(self, text: str = "") -> None:
        """Answer the last message, or ``text`` in its place; where that fails, the conversation stays as it was."""
        before = list(self.messages)
        try:
            last = self.undo()
            self.say(text or last)
        except DecoderyError:
            self.messages = before
            raise

    def save(self, file: str) -> None:
        """Write the messages, whole or not at all."""
        save_messages(file, self.messages)
        self.out.print(f"[dim]saved {len(self.messages)} messages to {escape(file)}[/dim]")

    def load(self, file: str) -> None:
        """Read messages: a list of them, or an object with ``messages`` as OpenAI's clients send it."""
        self.messages = messages_in(file)
        self.out.print(f"[dim]{len(self.messages)} messages from {escape(file)}[/dim]")

    def copy(self) -> None:
        """Hand the last answer to the terminal's clipboard."""
        answers = [message["content"] for message in self.messages if message["role"] == "assistant"]
        if not answers:
            raise DecoderyError("there is no answer yet")
        to_clipboard(answers[-1])
