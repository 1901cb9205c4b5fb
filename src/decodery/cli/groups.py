"""Options in groups: a command takes a group as one parameter, and its options are made of that.

The options for parts are made of the table of roles, so a new role needs no line here.
"""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import typer
from rich.markup import escape

from decodery.cli import completion
from decodery.cli.common import conversation
from decodery.cli.options import RECIPE, Group, parameter
from decodery.cli.reading import prompt_of, read
from decodery.cli.settings import rank
from decodery.cli.short import CONSTRAINED, ORDER, SHORT, constraint_of, guides_of
from decodery.core.errors import DecoderyError
from decodery.run.registry import ROLES, entries

if TYPE_CHECKING:
    from decodery.model.model import Model
    from decodery.run.recipe import Recipe


TORCH_ONLY = frozenset({"halves of layers", "free embeddings"})
"""What no other backend can do, as the catalogue names it: the abilities themselves are known once torch is imported."""


@dataclass
class StyleOptions(Group):
    """How a prompt becomes the model's input."""

    raw: Annotated[bool, typer.Option(help="Use the prompt as it is, without the chat template.")] = False
    system: Annotated[str, typer.Option("--system", "--system-prompt", "-sys", help="System message.")] = ""

    def prompt(self, model: Model, text: str) -> Any:
        """What to decode."""
        return conversation(model, text, self.system, self.raw)


@dataclass
class TextOptions(StyleOptions):
    """The same, and a file that the prompt may come from."""

    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the prompt from a file.")] = None
    text: Annotated[str | None, typer.Option("--prompt", "-p", help="The prompt, as other tools take it.")] = None

    def read(self, prompt: str | None) -> str:
        """The text of the prompt: given, in the file, or on standard input."""
        given = {"a prompt": prompt, "--prompt": self.text, "--file": self.file}
        named = [name for name, value in given.items() if value is not None]
        if len(named) > 1:
            raise DecoderyError(f"{' and '.join(named)} are both given: leave out one of them")
        words = (
            self._in_file(self.file) if self.file is not None else prompt_of(self.text if prompt is None else prompt)
        )
        if not words.strip() and not self.raw:
            raise DecoderyError(f"the prompt is empty{f': there is nothing in {self.file}' if self.file else ''}")
        return words

    @property
    def told(self) -> bool:
        """Whether an option says what the prompt is."""
        return self.file is not None or self.text is not None

    @staticmethod
    def _in_file(file: Path) -> str:
        if file.is_dir():
            raise DecoderyError(f"--file: {file} is a folder; name a file in it")
        if not file.is_file():
            raise DecoderyError(f"--file: there is no such file: {file}")
        return read(file)


@dataclass
class RecipeOptions(Group):
    """An option for each role of the table, the short ones, and ``--recipe``. ``specs``: what was given, by role."""

    specs: dict[str, Any] = dataclasses.field(default_factory=dict)
    file: Path | None = None
    guided: bool = False
    """Whether anything was said of guides, be it that there should be none."""
    short: dict[str, str] = dataclasses.field(default_factory=dict)
    """The guides that short options stand for, with the names of these."""
    draft_name: ClassVar[str] = "draft"
    draft_help: ClassVar[str] = ""

    def declared(self) -> list[inspect.Parameter]:
        found = []
        for name, role in ROLES.items():
            if role.recipe:
                declarations, told = [f"--{name}", *([role.flag] if role.flag else [])], role.help
                own = name
                if name == "draft":
                    own, told = self.draft_name, self.draft_help or told
                    declarations = [*dict.fromkeys((f"--{own}", *declarations))]
                kind: Any = list[str] if role.many else str | None
                option = typer.Option(*declarations, help=escape(told), autocompletion=completion.specs(name))
                hint = Annotated[kind, option]
                found.append(parameter(own, hint, self.specs.get(name, [] if role.many else None)))
        for name, short in SHORT.items():
            told = f"Short for --guide {short.guide}:{name[0].upper()}; {short.off}: none."
            found.append(parameter(name, Annotated[short.kind | None, typer.Option(*short.names, help=told)], None))
        for name, constrained in CONSTRAINED.items():
            option = typer.Option(constrained.flag, help=constrained.help)
            hint = Annotated[constrained.kind if constrained.kind is not str else str | None, option]  # type: ignore[misc]
            found.append(parameter(name, hint, None if constrained.kind is str else []))
        return [*found, parameter("recipe", RECIPE, None)]

    def given(self, values: dict[str, Any], context: typer.Context) -> Self:
        file, told = values.pop("recipe"), {name: rank(context, name) for name in values}
        most, own = max(told.values()), rank(context, "recipe")
        if file is not None and most == own:
            named = " and ".join(f"--{name.replace('_', '-')}" for name in values if told[name] == most)
            raise DecoderyError(f"--recipe names all parts already; leave out {named}, or --recipe")
        if most > own:  # the parts come from where options count more than where the recipe comes from
            file = None
        guided = bool(values["guide"]) or any(values[name] is not None for name in SHORT)
        values["guide"] = guides_of(values, context.meta.get(ORDER, []))
        values["constrain"] = constraint_of(values)
        aside = {*SHORT, *CONSTRAINED}
        specs = {name: value for name, value in values.items() if name not in aside and value not in (None, [], "")}
        if self.draft_name in specs:
            specs["draft"] = specs.pop(self.draft_name)
        short = {
            f"{one.guide}:{values[name]}": name.replace("_", "-")
            for name, one in SHORT.items()
            if values[name] is not None
        }
        return dataclasses.replace(self, specs={} if file else specs, file=file, guided=guided, short=short)

    def sampled(self, recipe: Recipe, model: Model) -> Recipe:
        """The recipe, with the guides of the model's own sampling where nothing was said of guides."""
        if self.guided or self.file is not None or recipe.search is not None:
            return recipe
        return recipe.replace(guide=model.facts.sampling)

    def plain(self) -> bool:
        """Whether the catalogue alone tells that these parts may run on every backend."""
        from decodery.run.catalogue import facts

        known = {f"{entry.role}/{entry.name}": entry for entry in entries(outsiders=False)}
        named = [
            (role, spec)
            for role, given in self.specs.items()
            for spec in ([given] if isinstance(given, str) else given)  # of a mapping its key, the name
        ]
        found = [known.get(f"{role}/{spec.partition(':')[0]}") for role, spec in named]
        return self.file is None and all(entry and TORCH_ONLY.isdisjoint(facts(entry)["needs"]) for entry in found)

    def recipe(self) -> Recipe:
        """The recipe of the options, or the one in the file."""
        from decodery.run.recipe import Recipe

        if self.file is not None:
            if not self.file.is_file():
                raise DecoderyError(f"no such recipe file: {self.file}")
            return Recipe.from_text(read(self.file))
        try:
            return Recipe.of(**self.specs)
        except DecoderyError as error:
            raise self._named(error) from error

    def _named(self, error: DecoderyError) -> DecoderyError:
        """The error, with the name of the short option whose guide it is about, if there is one."""
        from decodery.run.spec import part

        for spec, option in self.short.items():
            try:
                part("guide", spec)
            except DecoderyError as own:
                return DecoderyError(f"--{option}: {own}")
        return error


@dataclass
class DraftsOptions(RecipeOptions):
    """The same, where ``--methods`` names several drafters that are compared under the other parts."""

    draft_name: ClassVar[str] = "methods"
    draft_help: ClassVar[str] = "Drafters to compare, separated by commas."

    def drafts(self) -> str:
        """The drafters, separated by commas; of a recipe in a file its own."""
        from decodery.run.spec import text_of

        return text_of(self.recipe().draft) if self.file is not None else str(self.specs.get("draft", "none"))

    def recipe(self) -> Recipe:
        """The other parts."""
        if self.file is not None:
            return super().recipe()
        others = {role: spec for role, spec in self.specs.items() if role != "draft"}
        return RecipeOptions(others, short=self.short).recipe()


@dataclass
class BenchOptions(DraftsOptions):
    """The same for ``bench``."""

    draft_help: ClassVar[str] = "Drafters, separated by commas; DRAFT&VERIFY, DRAFT@torch, or all-training-free."
