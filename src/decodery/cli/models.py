"""Options that say which model, and how it is loaded; each command takes as much of them as it can use."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from decodery.cli.common import silence
from decodery.cli.options import BACKEND, CONTEXT, MODEL, THREADS, Group
from decodery.cli.progress import waiting
from decodery.core.errors import DecoderyError
from decodery.run.registry import ROLES

if TYPE_CHECKING:
    from decodery.cli.groups import RecipeOptions
    from decodery.core.text import Text
    from decodery.model.model import Model
    from decodery.run.recipe import Recipe


@dataclass
class NameOptions(Group):
    """Which model: enough for its tokenizer."""

    model: MODEL = "smollm2"
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the hub.")] = None
    trust_remote_code: Annotated[bool, typer.Option(help="Let the model's repository run code of its own here.")] = (
        False
    )

    def text(self) -> Text:
        """The model's tokenizer, without the model."""
        silence()
        from decodery.model.load import load_text

        return load_text(self.model, revision=self.revision, trust_remote_code=self.trust_remote_code)


@dataclass
class LoadOptions(NameOptions):
    """How it is loaded and run."""

    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto"
    device: Annotated[str, typer.Option(help="Where torch computes: auto, cpu, cuda, cuda:1, mps, xpu ...")] = "auto"
    backend: BACKEND = "auto"
    change: Annotated[list[str], typer.Option(help=escape(ROLES["change"].help))] = dataclasses.field(
        default_factory=list
    )
    threads: THREADS = None

    def prepare(self) -> None:
        """Quiet transformers, and tell all that computes, here and in child processes, how many threads to use."""
        silence()
        if self.threads is not None:
            os.environ["DECODERY_THREADS"] = str(self.threads)

    def options(self) -> dict[str, Any]:
        """The options of ``load``."""
        own = ("model", "ctx_size", "threads")
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in own}

    def changed(self) -> dict[str, Any]:
        """Those that are not left at their defaults."""
        return {name: value for name, value in self.options().items() if value not in ("auto", None, False, [])}


@dataclass
class ModelOptions(LoadOptions):
    """The same, for a command that loads one model itself."""

    ctx_size: CONTEXT = None

    def begin(self, parts: RecipeOptions) -> None:
        """Begin to load the model, while all else is still imported, unless the parts may want another backend."""
        self.prepare()
        if parts.plain():
            from decodery.model.early import begin

            begin(self.model, **self.options())

    def load(self, *recipes: Recipe, **others: Any) -> Model:
        """The model, loaded; ``others`` take the place of options.

        With ``backend`` auto, what the parts of the recipes need decides: halves of layers are to be had on torch only.
        """
        self.prepare()
        with waiting(f"loading {self.model}"):
            return self._loaded(recipes, others)

    def _loaded(self, recipes: Sequence[Recipe], others: Mapping[str, Any]) -> Model:
        from decodery.model.ability import GRAPHED
        from decodery.run.load import load

        options, needs = self.options() | dict(others), frozenset().union(*(recipe.needs for recipe in recipes))
        if options["backend"] == "auto" and not needs <= GRAPHED:
            options["backend"] = "torch"
        model = load(self.model, **options)
        if options["backend"] == "auto" and not needs <= model.can:
            model = load(self.model, **options | {"backend": "torch"})
        if self.ctx_size is not None:
            if self.ctx_size > model.context:
                raise DecoderyError(
                    f"--ctx-size {self.ctx_size} is more than the context of {model.name}, {model.context}"
                )
            model.context = self.ctx_size
        return model
