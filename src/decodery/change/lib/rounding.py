"""Rounded matrices: as floats in a network, as codes in its OpenVINO graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from decodery.core.values import Tensor

LEAST = 1 << 12
"""Matrices with fewer numbers stay as they are."""

CLOSE = 1e-3
"""Parts of the distance of two codes that numbers may differ by through float arithmetic; rounding changes them by up to a
half."""


class Rounded(NamedTuple):
    """A matrix in groups: codes ``[rows, groups, size]``, scale and zero ``[rows, groups, 1]``; no zero means 0."""

    bits: int
    codes: Tensor
    scale: Tensor
    zero: Tensor | None = None

    def values(self) -> Tensor:
        """``[rows, columns]``, float32."""
        codes = self.codes.float()
        return ((codes if self.zero is None else codes - self.zero) * self.scale).flatten(1)

    def gives(self, weight: Tensor) -> bool:
        """Whether these are the codes of ``weight`` and not only near it."""
        off = (self.values() - weight).reshape(self.codes.shape).abs()
        return bool((off <= CLOSE * self.scale).all())


Rounding = Callable[[Tensor], Rounded]
"""What rounds a matrix ``[rows, columns]``. Rounding what was rounded before changes it by one float ulp at most."""


def eight_bits(weight: Tensor) -> Rounded:
    """Each row as int8 codes and one scale."""
    scale = weight.abs().amax(1, keepdim=True).float().clamp_min(1e-12) / 127
    codes = (weight / scale).round().to(torch.int8)
    return Rounded(8, codes[:, None], scale[:, None])


@torch.no_grad()
def round_weights(network: nn.Module, products: Rounding, embeddings: Rounding) -> None:
    """Round the weights of all Linear and Embedding modules in place, tied ones once.

    ``embeddings`` is for embeddings and a head that is tied to them or stands alone.
    """
    head = getattr(network, "get_output_embeddings", lambda: None)()
    seen: set[int] = set()
    for module in network.modules():
        weight: Any = getattr(module, "weight", None)
        if isinstance(module, (nn.Linear, nn.Embedding)) and weight.numel() >= LEAST and id(weight) not in seen:
            seen.add(id(weight))
            rounding = embeddings if isinstance(module, nn.Embedding) or module is head else products
            weight.copy_(rounding(weight).values())


def encode_graph(graph: Any, roundings: tuple[Rounding, ...]) -> None:
    """Keep, in place, the matrices of an OpenVINO graph as the codes of that rounding which gives their numbers."""
    from decodery.model.openvino.codes import Coded, Form
    from decodery.model.openvino.weights import decoded, replace_matrices

    def node(matrix: Any) -> Any:
        weight = torch.from_numpy(matrix)
        for rounding in roundings:
            rounded = rounding(weight)
            if rounded.gives(weight):
                form = Form(rounded.bits, rounded.codes.shape[2], rounded.zero is not None)
                numbers = (part if part is None else part.numpy() for part in rounded[1:])
                return decoded(form, Coded(*numbers), matrix.shape)
        return None

    replace_matrices(graph, node)
