"""A conversation in the terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape

from decodery.core.errors import DecoderyError
from decodery.core.files import write_whole
from decodery.model.model import Model
from decodery.model.session import Session
from decodery.run.api import stream
from decodery.run.output import Piece
from decodery.run.recipe import Recipe

HELP = {
    "/help": "this list",
    "/draft SPEC": "choose another drafter, e.g. /draft ngram:max=4",
    "/guide SPEC ...": "choose guides, e.g. /guide temperature:0.7 top-p:0.9; none clears them",
    "/system TEXT": "set the system message and start over",
    "/retry": "answer the last message again",
    "/reset": "forget the conversation",
    "/save FILE": "write the conversation as JSON",
    "/stats": "figures of the last answer",
    "/quit": "end",
}


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
    messages: list[dict[str, str]] = field(default_factory=list)
    last: str = ""
    session: Session = field(init=False)

    def __post_init__(self) -> None:
        self.session = self.model.session()
        self.reset()

    def reset(self, system: str | None = None) -> None:
        """Start over, with another system message if one is given."""
        self.system = self.system if system is None else system
        self.messages = [{"role": "system", "content": self.system}] if self.system else []

    def loop(self) -> None:
        """Read, answer, repeat; until the end of input or /quit."""
        self.out.print(f"[dim]{escape(self.model.name)} · {escape(str(self.recipe.to_dict()))} · /help[/dim]")
        while True:
            try:
                line = self.out.input("[bold cyan]> [/bold cyan]").strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                self.out.print()
                continue
            try:
                if line == "/quit":
                    return
                if line.startswith("/"):
                    self.command(*line.partition(" ")[::2])
                elif line:
                    self.say(line)
            except DecoderyError as error:
                self.out.print(f"[red]{escape(str(error))}[/red]")

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
            )
        except DecoderyError:
            self.messages.pop()
            raise
        try:
            for piece in pieces:
                answer += piece.text
                self.show(piece, self.show_draft)
        except KeyboardInterrupt:
            self.out.print(" [dim]stopped[/dim]", end="")
        except DecoderyError:
            self.messages.pop()
            raise
        finally:
            pieces.close()
        self.out.print()
        self.messages.append({"role": "assistant", "content": answer})
        stats = pieces.output.stats
        self.last = f"{stats.line()} · {stats.cached_tokens} of {stats.prompt_tokens} prompt tokens from the cache"
        if not self.quiet:
            self.out.print(f"[dim]{escape(self.last)}[/dim]")

    def command(self, name: str, argument: str) -> None:
        """One of ``HELP``."""
        argument = argument.strip()
        choices: dict[str, Callable[[], Any]] = {
            "/help": lambda: self.out.print("\n".join(f"{key:<18}{value}" for key, value in HELP.items())),
            "/draft": lambda: self.choose(draft=argument or "none"),
            "/guide": lambda: self.choose(guide=[] if argument in ("", "none") else argument.split()),
            "/system": lambda: self.reset(argument),
            "/retry": self.retry,
            "/reset": self.reset,
            "/save": lambda: self.save(argument),
            "/stats": lambda: self.out.print(escape(self.last or "no answer yet")),
        }
        if name not in choices:
            raise DecoderyError(f"no command {name}; /help lists them")
        choices[name]()

    def choose(self, **parts: Any) -> None:
        """Change parts of the recipe; a drafter that stays is the same object, with all it has learnt."""
        self.recipe = self.recipe.replace(**parts)
        self.out.print(f"[dim]{escape(str(self.recipe.to_dict()))}[/dim]")

    def retry(self) -> None:
        """Answer the last message again."""
        asked = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
        if not asked:
            raise DecoderyError("there is no message to answer again")
        text = self.messages[asked[-1]]["content"]
        del self.messages[asked[-1] :]
        self.say(text)

    def save(self, file: str) -> None:
        """Write the messages, whole or not at all."""
        import json

        if not file:
            raise DecoderyError("/save needs a file name")
        try:
            write_whole(file, json.dumps(self.messages, indent=1, ensure_ascii=False))
        except OSError as error:
            raise DecoderyError(f"the conversation is not saved: {error}") from error
        self.out.print(f"[dim]saved {len(self.messages)} messages to {escape(file)}[/dim]")
