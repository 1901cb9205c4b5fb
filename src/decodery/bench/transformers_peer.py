"""transformers: plain greedy, prompt lookup, assisted decoding, and a forward that torch has compiled."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM, CompileConfig
from transformers.generation.streamers import BaseStreamer

from decodery.bench.runners import Mark, Told
from decodery.core.errors import DecoderyError
from decodery.model.model import Model
from decodery.model.resolve import resolve

LOOKUP = 10
"""Draft tokens of prompt lookup, as in transformers' documentation."""


class TransformersPeer:
    """``generate`` of an untouched float32 model; one network serves all modes but the compiled one."""

    _networks: dict[tuple[str, bool], Any] = {}  # noqa: RUF012

    def __init__(self, name: str, spec: str, model: Model, mode: str, assistant: str) -> None:
        if mode == "assisted" and not assistant:
            raise DecoderyError("transformers-assisted needs its assistant: transformers-assisted=SPEC")
        self.name, self.eos = name, sorted(model.eos)
        self.network = self._load(spec, mode == "compiled")
        options: dict[str, dict[str, Any]] = {
            "": {},
            "lookup": {"prompt_lookup_num_tokens": LOOKUP},
            "assisted": {"assistant_model": self._load(assistant) if assistant else None},
            "compiled": {"cache_implementation": "static", "compile_config": _compiled()},
        }
        self.options = options[mode]

    def __call__(self, prompt: list[int], limit: int, mark: Mark) -> Told:
        marks = _Marks(mark)
        self._generate([prompt], limit, eos_token_id=self.eos, streamer=marks)
        return Told(marks.bursts)

    def batch(self, prompts: list[list[int]], limit: int) -> None:
        """Continue prompts of one length by ``limit`` tokens each."""
        self._generate(prompts, limit, min_new_tokens=limit, eos_token_id=self.eos)

    def _generate(self, prompts: list[list[int]], limit: int, **options: Any) -> None:
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            self.network.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=limit,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=self.eos[0] if self.eos else None,
                **options,
                **self.options,
            )

    @classmethod
    def _load(cls, spec: str, apart: bool = False) -> Any:
        path = str(resolve(spec))
        if (path, apart) not in cls._networks:
            network: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
            cls._networks[path, apart] = network.eval()
        return cls._networks[path, apart]


def _compiled() -> CompileConfig:
    """torch.compile for any length of prompt and cache, also on a CPU, where ``generate`` does not compile by itself."""
    config = CompileConfig(dynamic=True)
    config._compile_all_devices = True  # type: ignore[assignment]
    return config


class _Marks(BaseStreamer):
    """A streamer that reports tokens; the first thing it is given is the prompt."""

    def __init__(self, mark: Mark) -> None:
        self.mark, self.bursts = mark, -1

    def put(self, value: Any) -> None:
        self.bursts += 1
        if self.bursts:
            self.mark(value.flatten().tolist())

    def end(self) -> None:
        """Nothing to flush."""
