"""The part of loading that takes longest, begun before anything else is imported."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from decodery.core.defaults import default_of


def begin(spec: Any, *, backend: str | None = None, **others: Any) -> None:
    """Compile a model's graph in the background, where it was converted before and ``load`` will want it.

    The arguments are those of ``load``, which then takes that graph. Importing torch and transformers takes as long as
    compiling does, and needs one core. Raises ``BadModel`` as ``load`` does.
    """
    if not isinstance(spec, (str, os.PathLike)) or any(
        value not in (None, "auto", False, [], ()) for value in others.values()
    ):
        return
    if (backend or default_of("backend", "auto")) == "torch" or importlib.util.find_spec("openvino") is None:
        return
    from decodery.model.openvino.folder import folder_of
    from decodery.model.resolve import place_of

    place = place_of(str(spec))
    if place.local:
        from decodery.model.openvino.begun import begin

        begin(folder_of(place))
