"""Linear layers as fast as this machine multiplies few rows.

On CPUs ``F.linear`` takes a slow path for small numbers of rows, which is what decoding feeds. For each shape of weight and
number of rows a short measurement finds the fastest formulation; projections of one input (query, key and value; gate and
up) lie side by side in memory and are computed at once. Values do not change beyond float rounding, passes that record
gradients are left alone, and all is undone on exit.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from decodery.core.values import Tensor
from decodery.model.diskcache import kept

Shape = tuple[int, int]
"""(out, in)"""

Way = Callable[[Tensor, Tensor], Tensor]

WAYS: dict[str, Way] = {
    "linear": F.linear,
    "W x'": lambda x, weight: torch.mm(weight, x.t()).t(),
}
"""How ``x [n, in]`` and ``weight [out, in]`` are multiplied to ``[n, out]``."""

ROWS = (1, 2, 4, 8, 16)
"""Numbers of rows measured."""

FORMAT = 2
"""Part of what identifies kept choices; raise it when the ways change."""

ENOUGH = 0.03
"""Seconds after which a measurement is not repeated."""

GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Siblings that read the same input, by the names transformers gives them."""


@dataclass(frozen=True)
class Choice:
    """The way for each number of rows (the nearest one measured), and the microseconds it took."""

    ways: dict[int, str]
    micros: dict[int, float]

    def way(self, n: int) -> Way:
        """For ``n`` rows; beyond the sizes measured a matrix product is what ``F.linear`` is good at."""
        if n > 2 * max(self.ways):
            return F.linear
        return WAYS[self.ways[min(self.ways, key=lambda size: abs(size - n))]]


@contextmanager
def fast(network: nn.Module) -> Iterator[dict[Shape, Choice]]:
    """Speed up the Linear layers of a network meanwhile; yields what was chosen for each shape.

    Threads may share the network; copies of it are as fast and on their own.
    """
    blocks = list(_blocks(network))
    choices = {shape: _choice(alike) for shape, alike in _by_shape(blocks).items()}
    try:
        for block in blocks:
            block.apply(choices[block.shape])
        yield choices
    finally:
        for block in blocks:
            block.undo()


class _Block:
    """Linear modules that read one input, as one multiplication."""

    def __init__(self, modules: Sequence[nn.Linear]) -> None:
        self.modules = modules
        self.widths = [module.out_features for module in modules]
        self.shape = sum(self.widths), modules[0].in_features
        self.last: tuple[Tensor, Sequence[Tensor]] | None = None
        """The input and outputs under way; one value, so that threads replace it as a whole."""

    @torch.no_grad()
    def apply(self, choice: Choice) -> None:
        """Store the weights side by side and answer for the modules."""
        modules = self.modules
        self.ways = [choice.way(n) for n in range(2 * max(choice.ways) + 2)]
        if len(modules) > 1:
            self.weight = torch.cat([m.weight for m in modules])
            self.bias = None if modules[0].bias is None else torch.cat([m.bias for m in modules])
            for module, part in zip(modules, torch.split(self.weight, self.widths), strict=True):
                module.weight.data = part
        for i, module in enumerate(modules):
            module.forward = _Answer(self, i).forward  # type: ignore[method-assign, assignment]

    @torch.no_grad()
    def undo(self) -> None:
        """Each module has its own weight and method again."""
        for module in self.modules:
            if "forward" in vars(module):
                del module.forward
                if len(self.modules) > 1:
                    module.weight.data = module.weight.data.clone()

    def multiply(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``x [..., in]`` by ``weight [out, in]``."""
        flat = x.reshape(-1, x.shape[-1])
        out = self.ways[min(flat.shape[0], len(self.ways) - 1)](flat, weight)
        return (out if bias is None else out + bias).view(*x.shape[:-1], weight.shape[0])

    def together(self, weight: Tensor) -> bool:
        """Whether a module's weight still lies where ``apply`` put it; ``network.to(...)`` gives it a place of its own."""
        return weight.untyped_storage().data_ptr() == self.weight.untyped_storage().data_ptr()


@dataclass
class _Answer:
    """What stands for a module's ``forward``: a bound method, so that a copied network gets a copied block."""

    block: _Block
    i: int

    def forward(self, x: Tensor) -> Tensor:
        block, module = self.block, self.block.modules[self.i]
        if torch.is_grad_enabled():
            return F.linear(x, module.weight, module.bias)
        if len(block.modules) == 1 or not block.together(module.weight):
            return block.multiply(x, module.weight, module.bias)
        last = block.last
        if last is None or last[0] is not x:
            outputs = block.multiply(x, block.weight, block.bias)
            block.last = last = x, torch.split(outputs, block.widths, -1)
        if self.i == len(block.modules) - 1:
            block.last = None
        return last[1][self.i]


def choose(weights: Sequence[Tensor], repeats: int = 3) -> Choice:
    """Measure every way on the weights of one shape; about a tenth of a second.

    One that takes long is measured once, so that the hopeless ones do not cost seconds.
    """
    micros: dict[int, dict[str, float]] = {}
    for n in ROWS:
        x = torch.ones(n, weights[0].shape[1], dtype=weights[0].dtype)
        micros[n] = {name: _time(way, x, weights, repeats) for name, way in WAYS.items()}
    ways = {n: min(times, key=times.__getitem__) for n, times in micros.items()}
    return Choice(ways, {n: micros[n][way] for n, way in ways.items()})


@torch.inference_mode()
def _time(way: Way, x: Tensor, weights: Sequence[Tensor], repeats: int) -> float:
    """Microseconds of one multiplication; several weights in turn, so that none stays in the processor's cache."""
    taken = []
    for _ in range(repeats):
        start = perf_counter()
        for weight in weights:
            way(x, weight)
        taken.append(perf_counter() - start)
        if taken[-1] > ENOUGH:
            break
    return 1e6 * statistics.median(taken) / len(weights)


def _blocks(network: nn.Module) -> Iterator[_Block]:
    """Every plain Linear module once, siblings of one input together; tied weights are left to their embedding."""
    taken: set[int] = set()
    for parent in network.modules():
        for names in GROUPS:
            siblings: list[Any] = [getattr(parent, name, None) for name in names]
            if all(_plain(module) for module in siblings) and _alike(siblings):
                taken |= {id(module) for module in siblings}
                yield _Block(siblings)
    for module in network.modules():
        if _plain(module) and id(module) not in taken:
            yield _Block([module])  # type: ignore[list-item]


def _plain(module: object) -> bool:
    return type(module) is nn.Linear and "forward" not in vars(module) and module.weight.device.type == "cpu"


def _alike(modules: Sequence[nn.Linear]) -> bool:
    return len({(m.in_features, m.bias is None, m.weight.dtype) for m in modules}) == 1


def _by_shape(blocks: Sequence[_Block]) -> dict[Shape, list[_Block]]:
    found: dict[Shape, list[_Block]] = defaultdict(list)
    for block in blocks:
        found[block.shape].append(block)
    return found


def _choice(blocks: Sequence[_Block]) -> Choice:
    """What is fastest for these blocks of one shape, measured on a few of them or known from an earlier start."""
    few = blocks[:6]
    facts = (FORMAT, few[0].shape, few[0].modules[0].weight.dtype)
    told = kept("linear", facts, lambda: vars(choose([torch.cat([m.weight.detach() for m in b.modules]) for b in few])))
    ways, micros = ({int(n): value for n, value in told[key].items()} for key in ("ways", "micros"))
    return Choice(ways, micros)
