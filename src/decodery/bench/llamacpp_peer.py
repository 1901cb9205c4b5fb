"""llama.cpp through llama-cpp-python: plain greedy and prompt lookup, on the GGUF file's own weights."""

from __future__ import annotations

import os
from typing import Any

from llama_cpp import Llama
from llama_cpp.llama_speculative import LlamaPromptLookupDecoding

from decodery.bench.runners import Mark, Told, gguf_of
from decodery.model.model import Model

DRAFTS = 2
"""Draft tokens of prompt lookup: llama-cpp-python's advice for CPUs."""


class LlamaPeer:
    """``Llama.generate`` with an empty cache for each call."""

    def __init__(self, name: str, spec: str, model: Model, mode: str, option: str) -> None:
        file = gguf_of(name, spec)
        self.name, self.eos = name, model.eos
        draft: Any = LlamaPromptLookupDecoding(num_pred_tokens=DRAFTS) if mode else None
        cores = os.cpu_count() or 1
        context = min(model.context, 8192)
        self.llama: Any = Llama(
            str(file),
            n_ctx=context,
            n_threads=cores,
            n_threads_batch=cores,
            draft_model=draft,
            logits_all=bool(mode),
            verbose=False,
        )

    def __call__(self, prompt: list[int], limit: int, mark: Mark) -> Told:
        self.llama.reset()
        self.llama._ctx.kv_cache_clear()
        count = 0
        for count, token in enumerate(self.llama.generate(prompt, temp=0.0, repeat_penalty=1.0, reset=True), 1):
            mark([token])
            if count == limit or token in self.eos:
                break
        return Told(None if self.llama.draft_model else count)
