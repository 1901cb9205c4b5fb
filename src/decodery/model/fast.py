"""Linear layers as fast as this machine multiplies few rows.

On CPUs ``F.linear`` takes a slow path for small numbers of rows, which is what decoding feeds. Each shape of weight gets
the storage and, for each number of rows, the formulation that a short measurement finds fastest; projections of one input
(query, key and value; gate and up) are computed at once. Values do not change beyond float rounding, and all is undone
on exit.
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

from decodery.model.kept import kept
from decodery.words import Tensor

Shape = tuple[int, int]
"""(out, in)"""

WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "linear": F.linear,
    "W x'": lambda x, weight: torch.mm(weight, x.t()).t(),
}
"""How ``x [n, in]`` and ``weight [out, in]`` are multiplied to ``[n, out]``."""

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "rows": lambda weight: weight.contiguous(),
    "columns": lambda weight: weight.t().contiguous().t(),
}
"""How the numbers of a weight lie in memory; its shape and values stay."""

ROWS = {1: 0.4, 4: 0.3, 8: 0.2, 16: 0.1}
"""Numbers of rows measured, and how much each counts when a layout is chosen."""

FORMAT = 1
"""Part of what identifies kept choices; raise it when the ways change."""

ENOUGH = 0.03
"""Seconds after which a measurement is not repeated."""

GROUPS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
"""Siblings that read the same input, by the names transformers gives them."""


@dataclass(frozen=True)
class Choice:
    """The layout of a shape, the way for each number of rows (the nearest one measured), and microseconds each."""

    layout: str
    ways: dict[int, str]
    micros: dict[int, float]

    def way(self, n: int) -> Callable[[Tensor, Tensor], Tensor]:
        """For ``n`` rows; beyond the sizes measured a matrix product is what ``F.linear`` is good at."""
        if n > 2 * max(self.ways):
            return F.linear
        return WAYS[self.ways[min(self.ways, key=lambda size: abs(size - n))]]


@contextmanager
def fast(network: nn.Module) -> Iterator[dict[Shape, Choice]]:
    """Speed up the Linear layers of a network meanwhile; yields what was chosen for each shape."""
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
        self.input: Tensor | None = None
        self.outputs: Sequence[Tensor] = ()
        self.weight, self.bias = modules[0].weight.detach(), modules[0].bias

    @torch.no_grad()
    def apply(self, choice: Choice) -> None:
        """Store the weights together and answer for the modules."""
        modules = self.modules
        together = modules[0].weight if len(modules) == 1 else torch.cat([m.weight for m in modules])
        self.weight = LAYOUTS[choice.layout](together.detach())
        if modules[0].bias is not None:
            self.bias = nn.Parameter(torch.cat([m.bias for m in modules]), requires_grad=False)
        ways = [choice.way(n) for n in range(2 * max(choice.ways) + 2)]
        for i, (module, part) in enumerate(zip(modules, torch.split(self.weight, self.widths), strict=True)):
            module.weight.data = part
            module.forward = self._answer(i, ways)  # type: ignore[method-assign, assignment]

    @torch.no_grad()
    def undo(self) -> None:
        """Each module has its own weight and method again."""
        for module in self.modules:
            if "forward" in vars(module):
                del module.forward
                module.weight.data = module.weight.data.contiguous().clone(memory_format=torch.contiguous_format)

    def _answer(self, i: int, ways: Sequence[Callable[[Tensor, Tensor], Tensor]]) -> Callable[[Tensor], Tensor]:
        last, widths, out_features = len(self.widths) - 1, self.widths, self.shape[0]

        def multiply(x: Tensor) -> Tensor:
            flat = x.reshape(-1, x.shape[-1])
            out = ways[min(flat.shape[0], len(ways) - 1)](flat, self.weight)
            return (out if self.bias is None else out + self.bias).view(*x.shape[:-1], out_features)

        def forward(x: Tensor) -> Tensor:
            if last == 0:
                return multiply(x)
            if x is not self.input:
                self.input, self.outputs = x, torch.split(multiply(x), widths, -1)
            answer = self.outputs[i]
            if i == last:
                self.input, self.outputs = None, ()
            return answer

        return forward


def choose(weights: Sequence[Tensor], repeats: int = 3) -> Choice:
    """Measure every layout and way on the weights of one shape; about a tenth of a second.

    One that takes long is measured once, so that the hopeless ones do not cost seconds.
    """
    columns = weights[0].shape[1]
    best: tuple[float, Choice] | None = None
    for layout, store in LAYOUTS.items():
        stored = [store(weight) for weight in weights]
        micros: dict[int, dict[str, float]] = defaultdict(dict)
        for n in ROWS:
            x = torch.ones(n, columns, dtype=weights[0].dtype)
            for name, way in WAYS.items():
                micros[n][name] = _time(way, x, stored, repeats)
        ways = {n: min(times, key=times.__getitem__) for n, times in micros.items()}
        times = {n: micros[n][way] for n, way in ways.items()}
        total = sum(share * times[n] for n, share in ROWS.items())
        if best is None or total < best[0]:
            best = total, Choice(layout, ways, times)
    assert best is not None
    return best[1]


@torch.inference_mode()
def _time(way: Callable[[Tensor, Tensor], Tensor], x: Tensor, weights: Sequence[Tensor], repeats: int) -> float:
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
    facts = (FORMAT, few[0].shape, few[0].weight.dtype)
    told = kept("linear", facts, lambda: vars(choose([torch.cat([m.weight.detach() for m in b.modules]) for b in few])))
    ways, micros = ({int(n): value for n, value in told[key].items()} for key in ("ways", "micros"))
    return Choice(told["layout"], ways, micros)
