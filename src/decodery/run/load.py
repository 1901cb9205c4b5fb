"""``decodery.load``: a model from a name, with changes named by specs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from decodery.core.errors import DecoderyError
from decodery.model.early import begin

if TYPE_CHECKING:
    import torch

    from decodery.model.change import Change
    from decodery.model.model import Model
    from decodery.run.spec import Spec

    ChangeSpec = Spec | Change


def load(
    spec: Any,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device | None = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    backend: str | None = None,
    change: ChangeSpec | Sequence[ChangeSpec] = (),
) -> Model:
    """A model ready to decode. Raises ``BadModel`` with what would work; an option that cannot take effect is an error.

    Args:
        spec: a hub id, a local directory, a ``.gguf`` file, ``"smollm2"`` (the demo model), a loaded ``Model``, or a pair
            ``(network, tokenizer)`` of transformers. A GGUF file is converted once into the cache (``$DECODERY_CACHE``,
            else the user's cache folder). What is loaded already stays as it is.
        dtype: "auto" keeps the dtype of the weights, in float32 on CPUs that would emulate 16 bits.
        device: where torch computes: "cpu", "cuda", "cuda:1", "mps", "xpu" ...; "auto" (the default) is the machine's
            accelerator, or the CPU where it has none.
        revision, trust_remote_code: of a model on the hub, as in transformers.
        backend: "torch" runs any model and offers everything; "openvino" runs attention models on CPUs in float32 at two
            to three times the speed, without hidden states and layer subsets, after a conversion that is made once;
            "auto" (the default) takes it where it works, and torch elsewhere or where a ``device`` is given or found.
        change: one or several parts that make another model of it: ``"int8"`` rounds its weights, ``"layer-speedup:2"``
            sends new tokens through every second layer. Answers of a lossy change are marked in their ``stats``.
    """
    begin(spec, dtype=dtype, device=device, revision=revision, backend=backend, change=change)
    from decodery.model.change import Change
    from decodery.model.load import load as load_with
    from decodery.run.spec import part

    specs: Any = [change] if isinstance(change, (str, Mapping, Change)) else change
    if not isinstance(specs, Sequence) or not all(isinstance(one, (str, Mapping, Change)) for one in specs):
        raise DecoderyError(f"change= is a part such as 'int8' or 'layer-speedup:2', or a list of them, not {change!r}")
    return load_with(
        spec,
        dtype=dtype,
        device=device,
        revision=revision,
        trust_remote_code=trust_remote_code,
        backend=backend,
        change=[one if isinstance(one, Change) else cast(Change, part("change", one)) for one in specs],
    )
