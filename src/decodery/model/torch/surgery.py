"""Running a network otherwise than it is written: without some layers, from other states, or watched on the way.

Modules are patched and hooked for the length of a pass. They belong to everybody who uses the network, so such a pass runs
alone (``lock.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cached_property, partial
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from decodery.core.values import Site, Tensor, Want
from decodery.model.variant import Half, LayerSet, Shared, Variant


class Surgery:
    """The layers of a network, and what can be done to them during a pass."""

    def __init__(self, model: PreTrainedModel, depth: int) -> None:
        self.model, self.depth = model, depth
        self.layers = layers_of(model, depth)

    @contextmanager
    def scope(self, variant: Variant, want: Want, states: Tensor | None) -> Iterator[dict[int | Site, Tensor]]:
        """Run the network as the variant says, from these states if there are any; yields where wanted states arrive."""
        with ExitStack() as scope:
            if variant.layers is not None:
                scope.enter_context(self.only(variant.layers))
            if states is not None:
                scope.enter_context(self.fed(_first(variant.layers), states))
            yield scope.enter_context(self.watched(want))

    @contextmanager
    def only(self, layers: LayerSet) -> Iterator[None]:
        """Let every other layer, or half of a layer, pass its input on."""
        modules = self.need_layers()
        idle = set(range(len(modules)))
        with ExitStack() as scope:
            for entry in layers:
                if isinstance(entry, Half):
                    scope.enter_context(self.without(entry.layer, not entry.attends))
                elif isinstance(entry, Shared):
                    self._share(entry.layers, scope)
                idle -= set(_layers(entry))
            for i in idle:
                scope.enter_context(_instead(modules[i], _pass_on))
            yield

    def without(self, layer: int, attention: bool) -> AbstractContextManager[None]:
        """Let the attention or the MLP of a layer add nothing."""
        attends, transforms = self._halves[layer]
        return _instead(attends, _no_attention) if attention else _instead(transforms, _nothing)

    def _share(self, layers: tuple[int, ...], scope: ExitStack) -> None:
        """Let the attentions of these layers read the input of the first. Here they run one after another all the same."""
        first, *others = (self.need_layers()[i] for i in layers)
        start: list[Tensor] = []

        def lead(states: Tensor, *args: Any, **kwargs: Any) -> Any:
            start[:] = [states]
            return type(first).forward(first, states, *args, **kwargs)

        def behind(layer: nn.Module, i: int, states: Tensor, *args: Any, **kwargs: Any) -> Any:
            with self.without(i, attention=False):
                added = type(layer).forward(layer, start[0], *args, **kwargs) - start[0]
            with self.without(i, attention=True):
                return type(layer).forward(layer, states + added, *args, **kwargs)

        scope.enter_context(_instead(first, lead))
        for i, layer in zip(layers[1:], others, strict=True):
            scope.enter_context(_instead(layer, partial(behind, layer, i)))

    @cached_property
    def _halves(self) -> list[tuple[nn.Module, nn.Module]]:
        """Attention and MLP of each layer: the child that knows its place in a cache, and the other one with matrices."""
        found = []
        for i, layer in enumerate(self.need_layers()):
            heavy = [child for child in layer.children() if any(p.dim() > 1 for p in child.parameters())]
            attends = [child for child in heavy if hasattr(child, "layer_idx")]
            if len(heavy) != 2 or len(attends) != 1:
                raise ValueError(f"layer {i} of {type(self.model).__name__} is not one attention and one MLP")
            found.append((attends[0], heavy[1 - heavy.index(attends[0])]))
        return found

    @contextmanager
    def fed(self, layer: int, states: Tensor) -> Iterator[None]:
        """Give a layer these states instead of its input."""
        hook = self.need_layers()[layer].register_forward_pre_hook(lambda _, inputs: (states, *inputs[1:]))
        try:
            yield
        finally:
            hook.remove()

    @contextmanager
    def watched(self, want: Want) -> Iterator[dict[int | Site, Tensor]]:
        """Collect the states at the wanted places, ``[b, n, d]`` each."""
        seen: dict[int | Site, Tensor] = {}
        hooks = []
        for site in want.hidden:
            module = self._body() if isinstance(site, Site) else self.need_layers()[site]
            hooks.append(module.register_forward_hook(partial(_take, seen, site)))
        try:
            yield seen
        finally:
            for hook in hooks:
                hook.remove()

    def _body(self) -> nn.Module:
        """The network without its head: it gives the state after the last norm."""
        body = self.model.base_model
        if body is self.model or not isinstance(body, nn.Module):
            raise ValueError(f"{type(self.model).__name__} has no body of its own to watch")
        return body

    def need_layers(self) -> nn.ModuleList:
        """The layers. Raises ``ValueError`` where they were not found."""
        if self.layers is None:
            raise ValueError(f"the {self.depth} layers of {type(self.model).__name__} were not found")
        return self.layers


def layers_of(model: nn.Module, depth: int) -> nn.ModuleList | None:
    """The model's decoder layers: its only list of ``depth`` modules that attend or mix."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
    return lists[0] if lists else None


def _layers(entry: int | Half | Shared) -> tuple[int, ...]:
    """The layers of which at least a half runs."""
    if isinstance(entry, Half):
        return (entry.layer,)
    return entry.layers if isinstance(entry, Shared) else (entry,)


def _first(layers: LayerSet | None) -> int:
    """The layer that receives a pass's input; the first one where none runs, for all of them pass it on."""
    return min((i for entry in layers or () for i in _layers(entry)), default=0)


@contextmanager
def _instead(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let another function answer for a module."""
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


def _nothing(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return torch.zeros_like(hidden_states)


def _no_attention(hidden_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
    return torch.zeros_like(hidden_states), None


def _pass_on(hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
    return hidden_states


def _take(seen: dict[int | Site, Tensor], site: int | Site, _: nn.Module, __: Any, output: Any) -> None:
    seen[site] = output if isinstance(output, Tensor) else output[0]
