"""PEARL on SmolLM2: threads against taking turns with the same draft length, for two pairs of target and draft.

No smaller model of this vocabulary is at hand, so "shallow" drafts with 20 of the target's own 30 layers, and "deep" has
as target the same model with 60 layers more that change nothing (their outputs are zero): SmolLM2's law at about three
times its cost. Its draft is SmolLM2 with noise in the weights. The time is modelled from CPU seconds of a forward, which
other processes disturb less than those passed. One core for each network; run from the repository root.
"""

from __future__ import annotations

import copy
from itertools import accumulate
from statistics import median
from time import perf_counter, process_time, thread_time
from typing import Any

import torch
from harness import record, spec_bench

import decodery
from decodery.core.tree import TokenTree
from decodery.draft.model import ModelDraft
from decodery.draft.pearl import Pearl
from decodery.model.model import Model
from decodery.model.turn import forward

GAMMA, PROMPTS, NOISE = 4, 2, 0.02


def network(base: Model, layers: list[int], silent: int = 0, noise: float = 0.0) -> Model:
    """A network of its own out of these layers and ``silent`` ones that change nothing."""
    net: Any = copy.deepcopy(base.network)
    chosen = [copy.deepcopy(net.model.layers[i]) for i in [*layers, *[layers[-1]] * silent]]
    torch.manual_seed(0)
    for i, layer in enumerate(chosen):
        layer.self_attn.layer_idx = i
        for weight in (w.data for w in layer.parameters() if w.dim() > 1):
            weight += torch.randn_like(weight) * noise * float(weight.std())
        if i >= len(layers):
            layer.self_attn.o_proj.weight.data.zero_()
            layer.mlp.down_proj.weight.data.zero_()
    net.model.layers, net.config.num_hidden_layers = torch.nn.ModuleList(chosen), len(chosen)
    model, net.config.layer_types = Model(net.eval(), base.tokenizer), None
    model.hasten()
    return model


def cost(model: Model, n: int) -> float:
    """CPU seconds of a forward of ``n`` tokens."""
    session, times = model.session(prompts[-1]), []
    for _ in range(7):
        start = thread_time()
        forward(session, TokenTree.chain(range(n - 1)))
        times.append(thread_time() - start)
    return median(times[1:])


def compare(target: Model, draft: Model, new: int) -> dict[str, Any]:
    """Each way of decoding over the same prompts; how many tokens came in a row tells of "turns" and "pearl" only."""
    costs, td = {n: cost(target, n) for n in (1, GAMMA, GAMMA + 1)}, cost(draft, 1)
    rounds = {"none": costs[1], "turns": GAMMA * td + costs[GAMMA + 1], "pearl": max(GAMMA * td, costs[GAMMA])}
    ways: dict[str, dict[str, Any]] = {
        "none": {},
        "turns": {"draft": ModelDraft(path=draft, length=GAMMA)},
        "pearl": {"draft": Pearl(path=draft, gamma=GAMMA)},
        "pearl, plan=auto": {"draft": Pearl(path=draft, gamma=GAMMA), "plan": "auto"},
    }
    expected: list[list[int]] = []
    found: dict[str, Any] = {"ms": {"target": {n: round(1e3 * c) for n, c in costs.items()}, "draft": round(1e3 * td)}}
    for name, options in ways.items():
        steps, answers, passed, cpu, runs = 0, [], 0.0, 0.0, 0
        for prompt in prompts:
            stream = decodery.stream(target, prompt, max_new_tokens=new, ignore_eos=True, **options)
            told = [next(stream).step]  # both networks have read the prompt by then
            start, start_cpu = perf_counter(), process_time()
            told += [piece.step for piece in stream if piece.step is not None]
            passed, cpu = passed + perf_counter() - start, cpu + process_time() - start_cpu
            said = list(accumulate(len(step.tokens) for step in told))
            # Before the last two tokens no block is opened, so that says nothing about the draft.
            broken = sum(not step.tree.tokens for step, n in zip(told[1:], said, strict=False) if n < new - 2)
            steps, runs = steps + len(told), runs + (len(told) if name == "turns" else 1 + broken)
            answers.append(stream.output.tokens)
        expected = expected or answers
        found[name] = {
            "tokens a round": round(PROMPTS * new / steps, 2),
            "tokens in a row": round(PROMPTS * new / runs, 2),
            "rounds": steps,
            "modelled seconds": round(steps * next(s for k, s in rounds.items() if name.startswith(k)), 2),
            "seconds": round(passed, 1),
            "CPU seconds": round(cpu, 1),
            "answers as without": f"{sum(a == b for a, b in zip(answers, expected, strict=True))} of {PROMPTS}",
        }
        print(name, found[name], flush=True)
    return found


plain = decodery.load("smollm2", dtype="float32")
prompts = sorted(spec_bench(plain)[:480], key=len)[:PROMPTS]
claims: dict[str, Any] = {"gamma": GAMMA, "shallow": compare(plain, network(plain, list(plain.default_layers())), 16)}
claims["deep"] = compare(network(plain, list(range(30)), silent=60), network(plain, list(range(30)), noise=NOISE), 32)
record("pearl", claims)
