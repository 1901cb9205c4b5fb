"""Speculative Jacobi decoding: SmolLM2 greedily, and small images from a network trained on them.

The images are samples of a Potts model (8 x 8 places, 4 colours, neighbours tend to agree), drawn row by row by the network.
Guesses that no pass has looked at yet are the token to the left, or any.
"""

from __future__ import annotations

from typing import Any

import torch
from harness import record, spec_bench
from small import llama, loaded, train

import decodery
from decodery.draft.speculative_jacobi import SpeculativeJacobi
from decodery.inspect.compare import TIE

SIDE, COLOURS, COUPLING, IMAGES, SWEEPS = 8, 4, 0.9, 1500, 40
PROMPTS, NEW, SAMPLES = 20, 12, 96


def greedy() -> dict[str, Any]:
    """Twenty prompts, two windows: the same tokens up to a tie of the two best logits, in no more passes than tokens."""
    model = decodery.load("smollm2", dtype="float32")
    prompts = spec_bench(model)[:PROMPTS]
    plain = [decodery.decode(model, prompt, max_new_tokens=NEW, logprobs=2) for prompt in prompts]
    claims: dict[str, Any] = {}
    for window in (4, 16):
        same = fewer = passes = tokens = 0
        for prompt, known in zip(prompts, plain, strict=True):
            draft = SpeculativeJacobi(window)
            found = decodery.decode(model, prompt, draft=draft, max_new_tokens=NEW)
            pairs = list(zip(found.tokens, known.tokens, strict=False))
            parted = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
            tops = None if parted is None else known.logprobs[parted].top
            same += len(found.tokens) == len(known.tokens) if tops is None else tops[0][1] - tops[1][1] < TIE
            fewer += found.stats.forwards <= found.stats.tokens
            passes, tokens = passes + found.stats.forwards, tokens + found.stats.tokens
        claims[f"window {window}"] = {
            "answers like plain greedy": f"{same} of {PROMPTS}",
            "answers in no more passes than tokens": f"{fewer} of {PROMPTS}",
            "tokens per forward": round(tokens / passes, 3),
        }
    return claims


def images() -> torch.Tensor:
    """Gibbs samples, the two colours of a chessboard in turns."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.randint(COLOURS, (IMAGES, SIDE, SIDE), generator=generator)
    board = (torch.arange(SIDE)[:, None] + torch.arange(SIDE)) % 2
    for sweep in range(2 * SWEEPS):
        near = torch.nn.functional.one_hot(grid, COLOURS).float()
        votes = torch.zeros_like(near)
        votes[:, 1:] += near[:, :-1]
        votes[:, :-1] += near[:, 1:]
        votes[:, :, 1:] += near[:, :, :-1]
        votes[:, :, :-1] += near[:, :, 1:]
        law = (COUPLING * votes).softmax(-1).flatten(0, 2)
        drawn = torch.multinomial(law, 1, generator=generator).view_as(grid)
        grid = torch.where(board == sweep % 2, drawn, grid)
    return grid.flatten(1)


def drawing() -> dict[str, Any]:
    tokens = torch.cat([torch.full((IMAGES, 1), COLOURS), images()], 1)
    alike = (tokens[:, 2:] == tokens[:, 1:-1]).float().mean()
    net = llama(COLOURS + 1, 2, 64)

    def batch(generator: torch.Generator) -> torch.Tensor:
        return tokens[torch.randint(IMAGES, (32,), generator=generator)]

    last = train(net, batch, lambda rows, _: net(input_ids=rows, labels=rows).loss, 400)
    model = loaded(net)
    claims: dict[str, Any] = {"nats a place": round(last, 3), "places like their left": round(float(alike), 3)}
    for window in (4, 16):
        for fill in ("repeat", "random"):
            draft = SpeculativeJacobi(window, fill)
            options: dict[str, Any] = {"max_new_tokens": SIDE**2, "ignore_eos": True, "guide": "temperature:1.0"}
            found = [decodery.decode(model, [COLOURS], draft=draft, seed=i, **options) for i in range(SAMPLES)]
            passes = torch.tensor([output.stats.forwards for output in found]).double()
            claims[f"window {window}, fill {fill}"] = {
                "passes an image": round(float(passes.mean()), 2),
                "standard error": round(float(passes.std() / SAMPLES**0.5), 2),
            }
    return claims


if __name__ == "__main__":
    record("speculative-jacobi-decoding", {"images": drawing(), "SmolLM2, greedy": greedy()})
