"""The role of parts that make another model out of the one that was loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from decodery.core.values import Cap
from decodery.model.model import Model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Change:
    """What is done to a model when it is loaded; a dataclass whose fields are its parameters.

    A change of the weights overrides ``network`` (and ``graph``, where the OpenVINO graph should keep them otherwise than
    as floats), and sets ``weights``; a change of how the network is run overrides ``__call__``. Class attributes:
    ``lossless`` whether answers keep the law of the unchanged model, ``needs`` what the model must be able to do,
    ``dtype`` what it is computed in unless the user says.
    """

    paper: ClassVar[str] = ""
    example: ClassVar[str] = ""
    lossless: ClassVar[bool] = False
    specimens: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    needs: ClassVar[frozenset[Cap]] = frozenset()
    weights: ClassVar[bool] = False
    dtype: ClassVar[torch.dtype | None] = None

    def network(self, network: PreTrainedModel) -> None:
        """Change weights in place, before anything is computed with them."""

    def graph(self, graph: Any) -> None:
        """Change, in place, how an OpenVINO graph of the changed network keeps its weights; their values stay."""

    def __call__(self, model: Model) -> Model:
        """The changed model, after ``network``."""
        model.lossless = model.lossless and self.lossless
        return model
