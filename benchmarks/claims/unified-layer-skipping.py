"""Unified layer skipping: an evenly spread set against a block, after the same training; and the set as a drafter.

A network of nine layers over characters learns with all of them, then for each set of three by itself: in half of the batches
the second half of a piece goes through the set, after a first half through all layers (the paper's split).
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from harness import record, spec_bench
from small import characters, llama, loaded, pieces, train
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

import decodery
from decodery.draft.layer_skip import LayerSkip, spread
from decodery.inspect.compare import TIE

DEPTH, SPEEDUP, WIDTH, STEPS, TUNING, CUT = 9, 3, 96, 200, 80, 64
KEPT = DEPTH // SPEEDUP
EVEN, LOW, HIGH = spread(DEPTH, SPEEDUP), [*range(KEPT)], [*range(DEPTH - KEPT, DEPTH)]


def split_loss(net: LlamaForCausalLM, batch: torch.Tensor, kept: list[int]) -> torch.Tensor:
    """Of the tokens after the first ``CUT``, which go through the set; each reads the cache of its own layer."""
    past = net.model(input_ids=batch[:, :CUT], use_cache=True).past_key_values
    whole = net.model.layers
    net.model.layers = torch.nn.ModuleList([whole[i] for i in kept])
    net.model.config.num_hidden_layers = len(kept)
    states = net.model(input_ids=batch[:, CUT:-1], past_key_values=past).last_hidden_state
    net.model.layers, net.model.config.num_hidden_layers = whole, DEPTH
    return cross_entropy(net.lm_head(states).flatten(0, 1), batch[:, CUT + 1 :].flatten())


def whole_loss(net: LlamaForCausalLM, batch: torch.Tensor) -> torch.Tensor:
    return cross_entropy(net(input_ids=batch).logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())


def drafting(model: Any, prompts: list[list[int]], draft: LayerSkip, new: int) -> dict[str, Any]:
    """Acceptance, and whether each answer is plain greedy's or parts from it at a tie."""
    drafted = accepted = tokens = forwards = same = 0
    for prompt in prompts:
        plain = decodery.decode(model, prompt, max_new_tokens=new, ignore_eos=True, logprobs=2)
        output = decodery.decode(model, prompt, draft=draft, max_new_tokens=new, ignore_eos=True)
        parted = next(
            (i for i, pair in enumerate(zip(output.tokens, plain.tokens, strict=True)) if len({*pair}) > 1), None
        )
        tie = parted is not None and plain.logprobs[parted].top[0][1] - plain.logprobs[parted].top[1][1] < TIE
        same += parted is None or tie
        drafted, accepted = drafted + output.stats.drafted, accepted + output.stats.accepted
        tokens, forwards = tokens + output.stats.tokens, forwards + output.stats.forwards
    return {
        "acceptance": round(accepted / drafted, 3),
        "tokens per forward": round(tokens / forwards, 3),
        "answers like plain greedy": f"{same} of {len(prompts)}",
    }


def main() -> None:
    known, unseen, alphabet = characters()
    net, rows = llama(len(alphabet), DEPTH, WIDTH), pieces(known, 16, 128)
    train(net, rows, lambda batch, _: whole_loss(net, batch), STEPS)
    with torch.no_grad():
        batch = pieces(unseen, 128, 128)(torch.Generator().manual_seed(1))
    losses: dict[str, Any] = {"all layers, before": round(float(whole_loss(net, batch).detach()), 3)}
    prompts = [unseen[i : i + 64].tolist() for i in range(0, 8 * 2000, 2000)]
    drafts: dict[str, Any] = {}
    for name, kept in {"evenly spread": EVEN, "top dropped": LOW, "bottom dropped": HIGH}.items():
        tuned = copy.deepcopy(net)
        tuned.model.embed_tokens.requires_grad_(False)

        def loss(batch: torch.Tensor, step: int, tuned: Any = tuned, kept: list[int] = kept) -> torch.Tensor:
            return split_loss(tuned, batch, kept) if step % 2 else whole_loss(tuned, batch)

        with torch.no_grad():
            before = float(split_loss(tuned, batch, kept))
        train(tuned, rows, loss, TUNING, 5e-4)
        with torch.no_grad():
            after, whole = float(split_loss(tuned, batch, kept)), float(whole_loss(tuned, batch))
        losses[name] = {
            "layers": kept,
            "untrained": round(before, 3),
            "loss": round(after, 3),
            "all layers": round(whole, 3),
        }
        if name == "evenly spread":
            drafts[f"this network, s={SPEEDUP}, trained for it"] = drafting(
                loaded(tuned), prompts, LayerSkip(SPEEDUP), 96
            )
            drafts[f"this network, s={SPEEDUP}, before"] = drafting(loaded(net), prompts, LayerSkip(SPEEDUP), 96)
    smollm2 = decodery.load("smollm2", dtype="float32")
    drafts["SmolLM2 as it is, s=2"] = drafting(smollm2, spec_bench(smollm2)[:6], LayerSkip(2), 16)
    record("unified-layer-skipping", {"validation loss, nats a character": losses, "as a drafter": drafts})


if __name__ == "__main__":
    main()
