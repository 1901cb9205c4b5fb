"""One colour for each method, the same in every picture of every run."""

from __future__ import annotations

import colorsys
import hashlib
import re

INK = "#1b1e23"
"""Text and axes; a page replaces it by its own colour of text."""

GROUND = "#fefefe"
"""Behind labels that a line would cross; a page replaces it by its own ground."""

FIXED = {
    "none": "#808080",
    "auto": "#d1495b",
    "suffix": "#0f9b9d",
    "ngram": "#c85fa6",
    "recycling": "#3b8fd4",
    "mix": "#9a5fd0",
    "copyspec": "#9a6b4f",
    "transformers": "#d99a00",
    "transformers-lookup": "#a87400",
    "transformers-assisted": "#c98a4b",
    "transformers-compiled": "#8a6d1f",
    "openvino": "#6a7de8",
    "openvino-lookup": "#4656b8",
    "openvino-gguf": "#8f9ce8",
    "llamacpp": "#4c9f50",
    "llamacpp-lookup": "#2f7a3a",
    "model": "#ad5b1f",
    "jacobi": "#bc9f4e",
    "speculative-jacobi": "#d3d968",
    "lookahead": "#79ad1f",
    "aded": "#70bc4e",
    "datastore": "#68d968",
    "iid": "#1fad4c",
    "rsd-c": "#4ebc93",
    "rsd-s": "#68d9d3",
    "dyspec": "#1f88ad",
    "specdec++": "#4e7cbc",
    "pearl": "#6874d9",
    "layer-skip": "#3d1fad",
    "del": "#874ebc",
    "swift": "#c768d9",
    "rasd": "#ad1f97",
    "cascade": "#bc4e88",
    "easyspec": "#d96880",
    "rapid": "#ad2d1f",
}
"""The package's drafters and the peers; readable on white and on black. Others get theirs from their name."""


def colour(name: str) -> str:
    """The colour of a method as ``#rrggbb``: by its name alone, whatever else is in the picture.

    Parameters, verifier and backend do not change it (``suffix:factor=16&residual@torch`` is ``suffix``), for labels tell these
    apart.
    """
    family = re.split(r"[:&@=(]", name, maxsplit=1)[0]
    if family in FIXED:
        return FIXED[family]
    digest = hashlib.sha256(family.encode()).digest()
    light = (0.42, 0.50, 0.58)[digest[4] % 3]
    red, green, blue = colorsys.hls_to_rgb(int.from_bytes(digest[:4]) / 2**32, light, 0.55)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
