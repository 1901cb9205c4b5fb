"""Nothing outside the backend knows of devices: rows come to main memory once a pass, whatever decodes."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import pytest
import torch

import decodery
from decodery.core.errors import DecoderyError
from decodery.run.registry import names

from .test_decode import PROMPTS, tokenizer
from .tiny import network

READING = {"tolist", "item", "numpy", "nonzero", "__bool__", "__int__", "__float__", "__index__", "__array__"}
"""What would wait for a device, and take something from it, each time."""


class Away(torch.Tensor):
    """A tensor that is treated as if it lay on another device: it can be copied from there, and nothing else."""

    moved = 0

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__
        assert name not in READING, f"{name} reads from the device"
        others = [a for a in args if isinstance(a, torch.Tensor) and not isinstance(a, Away) and a.dim()]
        assert not others, f"{name} mixes devices"
        if name == "cpu":
            Away.moved += 1
            return args[0].as_subclass(torch.Tensor)
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.fixture
def passes(monkeypatch: Any) -> tuple[Any, list[int]]:
    """A network whose logits are away, and a number for each of its passes."""
    model = copy.deepcopy(network("llama"))
    forward, count = model.forward, []

    def away(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        output.logits = output.logits.as_subclass(Away)
        count.append(len(count))
        return output

    away.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    loaded = decodery.load((model, tokenizer()))
    assert loaded.can
    monkeypatch.setattr(model, "forward", away)
    return loaded, count


DRAFTS = ("recycling", "iid", "rsd-s", "rapid:context=2")
GUIDES: tuple[list[str], ...] = ([], ["temperature:0.8"], ["repetition:1.2", "temperature:0.8", "top-k:9", "top-p:0.9"])


@pytest.mark.parametrize("guides", GUIDES, ids=str)
@pytest.mark.parametrize("verify", names("verify"))
def test_a_pass_is_one_transfer(verify: str, guides: list[str], passes: Any) -> None:
    model, count = passes
    run = 0
    for draft in DRAFTS:
        Away.moved = 0
        count.clear()
        options: Any = {"draft": draft, "verify": verify, "guide": guides, "max_new_tokens": 12, "ignore_eos": True}
        try:
            decodery.decode(model, PROMPTS[0], **options)
        except DecoderyError:
            continue
        run += 1
        assert Away.moved == len(count) > 1
    assert run or (verify == "greedy" and guides) or verify == "rapid"


@pytest.mark.parametrize("search", ["beam:width=3", "best-of-n:n=3", "first-finish:n=2"])
def test_searches_too(search: str, passes: Any) -> None:
    model, count = passes
    Away.moved = 0
    guides = [] if search.startswith("beam") else ["temperature:0.8"]
    decodery.decode(model, PROMPTS[0], search=search, guide=guides, max_new_tokens=8)
    assert Away.moved == len(count) > 1
