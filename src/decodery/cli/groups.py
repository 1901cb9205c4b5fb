"""Options in groups: a command takes a group as one parameter, and its options are made of that.

The options for parts are made of the table of roles, so a new role needs no line here.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import typer
from rich.markup import escape

from decodery.cli.common import conversation, prompt_of, read, silence
from decodery.cli.options import BACKEND, CONTEXT, MODEL, RECIPE, THREADS, Group, parameter
from decodery.cli.short import CONSTRAINED, ORDER, SHORT, constraint_of, guides_of
from decodery.core.errors import DecoderyError
from decodery.run.registry import ROLES, entries, names

if TYPE_CHECKING:
    from decodery.model.model import Model
    from decodery.run.recipe import Recipe


@dataclass
class ModelOptions(Group):
    """Which model, and how it is run."""

    model: MODEL = "smollm2"
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto"
    device: Annotated[str, typer.Option(help="Where torch computes: auto, cpu, cuda, cuda:1, mps, xpu ...")] = "auto"
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the hub.")] = None
    trust_remote_code: Annotated[bool, typer.Option(help="Let the model's repository run code of its own here.")] = (
        False
    )
    backend: BACKEND = "auto"
    change: Annotated[list[str], typer.Option(help=escape(ROLES["change"].help))] = dataclasses.field(
        default_factory=list
    )
    ctx_size: CONTEXT = None
    threads: THREADS = None

    def begin(self, parts: RecipeOptions) -> None:
        """Begin to load the model, while all else is still imported, unless the parts may want another backend."""
        silence()
        self._share_threads()
        if parts.plain():
            from decodery.model.early import begin

            begin(self.model, **self._options())

    def load(self, *recipes: Recipe, **others: Any) -> Model:
        """The model, loaded; ``others`` take the place of options.

        With ``backend`` auto, what the parts of the recipes need decides: layer subsets and the like are to be had on torch only.
        """
        silence()
        self._share_threads()
        from decodery.core.values import Cap
        from decodery.run.load import load

        options = self._options() | others
        if options["backend"] == "auto" and not all(recipe.needs <= {Cap.TREE} for recipe in recipes):
            options["backend"] = "torch"
        model = load(self.model, **options)
        if self.ctx_size is not None:
            if self.ctx_size > model.context:
                raise DecoderyError(
                    f"--ctx-size {self.ctx_size} is more than the context of {model.name}, {model.context}"
                )
            model.context = self.ctx_size
        return model

    def _share_threads(self) -> None:
        """Tell all that computes, here and in child processes, how many threads to use."""
        if self.threads is not None:
            os.environ["DECODERY_THREADS"] = str(self.threads)

    def _options(self) -> dict[str, Any]:
        """The options of ``load``."""
        own = ("model", "ctx_size", "threads")
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in own}


@dataclass
class TextOptions(Group):
    """How the prompt becomes the model's input."""

    raw: Annotated[bool, typer.Option(help="Use the prompt as it is, without the chat template.")] = False
    system: Annotated[str, typer.Option("--system", "--system-prompt", "-sys", help="System message.")] = ""
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the prompt from a file.")] = None

    def read(self, prompt: str | None) -> str:
        """The text of the prompt: given, in the file, or on standard input."""
        if self.file is None:
            return prompt_of(prompt)
        if prompt is not None:
            raise DecoderyError("a prompt and --file are both given: leave out one of them")
        if not self.file.is_file():
            raise DecoderyError(f"no such file: {self.file}")
        return read(self.file)

    def prompt(self, model: Model, text: str) -> Any:
        """What to decode."""
        return conversation(model, text, self.system, self.raw)


@dataclass
class RecipeOptions(Group):
    """An option for each role of the table, the short ones, and ``--recipe``. ``specs``: what was given, by role."""

    specs: dict[str, Any] = dataclasses.field(default_factory=dict)
    file: Path | None = None
    guided: bool = False
    """Whether anything was said of guides, be it that there should be none."""
    draft_names: ClassVar[tuple[str, ...]] = ()
    draft_help: ClassVar[str] = ""

    def declared(self) -> list[inspect.Parameter]:
        found = []
        for name, role in ROLES.items():
            if role.recipe:
                declarations, told = [f"--{name}", *([role.flag] if role.flag else [])], role.help
                if name == "draft":
                    declarations, told = [*declarations, *self.draft_names], self.draft_help or told
                kind: Any = list[str] if role.many else str | None
                option = typer.Option(*declarations, help=escape(told), autocompletion=_known_parts(name))
                hint = Annotated[kind, option]
                found.append(parameter(name, hint, self.specs.get(name, [] if role.many else None)))
        for name, short in SHORT.items():
            told = f"Short for --guide {short.guide}:{name[0].upper()}; {short.off}: none."
            found.append(parameter(name, Annotated[short.kind | None, typer.Option(*short.names, help=told)], None))
        for name, constrained in CONSTRAINED.items():
            option = typer.Option(constrained.flag, help=constrained.help)
            hint = Annotated[constrained.kind if constrained.kind is not str else str | None, option]  # type: ignore[misc]
            found.append(parameter(name, hint, None if constrained.kind is str else []))
        return [*found, parameter("recipe", RECIPE, None)]

    def given(self, values: dict[str, Any], context: typer.Context) -> Self:
        file = values.pop("recipe")
        told = [name for name in values if _was_typed(context, name)]
        if file is not None and told:
            named = " and ".join(f"--{name.replace('_', '-')}" for name in told)
            raise DecoderyError(f"--recipe names all parts already; leave out {named}, or --recipe")
        guided = bool(values["guide"]) or any(values[name] is not None for name in SHORT)
        values["guide"] = guides_of(values, context.meta.get(ORDER, []))
        values["constrain"] = constraint_of(values)
        short = {*SHORT, *CONSTRAINED}
        specs = {name: value for name, value in values.items() if name not in short and value not in (None, [], "")}
        return dataclasses.replace(self, specs={} if file else specs, file=file, guided=guided)

    def sampled(self, recipe: Recipe, model: Model) -> Recipe:
        """The recipe, with the guides of the model's own sampling where nothing was said of guides."""
        if self.guided or self.file is not None or recipe.search is not None:
            return recipe
        return recipe.replace(guide=model.facts.sampling)

    def plain(self) -> bool:
        """Whether the catalogue alone tells that these parts run on every backend that has trees."""
        from decodery.run.catalogue import facts

        known = {f"{entry.role}/{entry.name}": entry for entry in entries(outsiders=False)}
        named = [
            (role, spec)
            for role, given in self.specs.items()
            for spec in ([given] if isinstance(given, str) else given)  # of a mapping its key, the name
        ]
        found = [known.get(f"{role}/{spec.partition(':')[0]}") for role, spec in named]
        return self.file is None and all(entry and set(facts(entry)["needs"]) <= {"tree"} for entry in found)

    def recipe(self) -> Recipe:
        """The recipe of the options, or the one in the file."""
        from decodery.run.recipe import Recipe

        if self.file is not None:
            if not self.file.is_file():
                raise DecoderyError(f"no such recipe file: {self.file}")
            return Recipe.from_text(read(self.file))
        return Recipe.of(**self.specs)


@dataclass
class DraftsOptions(RecipeOptions):
    """The same, where ``--draft`` names several drafters that are compared under the other parts."""

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
        return RecipeOptions(others).recipe()


@dataclass
class BenchOptions(DraftsOptions):
    """The same for ``bench``."""

    draft_names: ClassVar[tuple[str, ...]] = ("--methods",)
    draft_help: ClassVar[str] = "Drafters, separated by commas; DRAFT&VERIFY, DRAFT@torch, or all-training-free."


def _known_parts(role: str) -> Callable[[str], list[str]]:
    """The names of parts that begin as typed, for the shell's completion."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names(role) if name.startswith(incomplete)]

    return complete


def _was_typed(context: typer.Context, name: str) -> bool:
    """Whether an option came from the command line, not from a configuration file or a default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT")
