"""Is a revision as fast as another? Interleaved processes, the same answers, torch and OpenVINO.

    python benchmarks/claims/revisions.py BEFORE AFTER OUT.json    folders of two checkouts

Each process runs plain decoding, ``suffix``, ``mix`` and a batch of four on the demo model, 48 and 32 new tokens, greedy. The
first round may convert the model, so its memory does not count.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

ROUNDS = 3
RUN = """
import json, resource, sys, time
import decodery
model = decodery.load("smollm2", backend=sys.argv[1])
texts = ("Explain in a few sentences why the sky is blue.", "Correct the spelling and repeat the whole text: The quik brown "
    "fox jumps over the lazy dog. The dog sleeps on the porch. The fox runs into the woods.", "Write a short story about a "
    "fox.", "List five uses of a brick.")
prompts = [[{"role": "user", "content": text}] for text in texts]
decodery.decode(model, prompts[0], max_new_tokens=8)
found = {}
for name in ("none", "suffix", "mix"):
    answers = [decodery.decode(model, prompt, max_new_tokens=48, draft=name) for prompt in prompts[:2]]
    seconds = sum(answer.stats.seconds - answer.stats.first for answer in answers)
    found[name] = sum(answer.stats.tokens - 1 for answer in answers) / seconds, [answer.tokens for answer in answers]
start = time.perf_counter()
answers = decodery.decode(model, prompts, max_new_tokens=32)
seconds = time.perf_counter() - start
found["batch of 4"] = sum(answer.stats.tokens for answer in answers) / seconds, [answer.tokens for answer in answers]
found["MiB resident"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, None
print("RESULT", json.dumps(found))
"""


def measured(folder: Path, backend: str, cache: Path) -> dict[str, tuple[float, object]]:
    """Tokens a second (and memory) of one process over this checkout, with the answers."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "DECODERY_CACHE": str(cache)}
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, backend],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found: dict[str, tuple[float, object]] = json.loads(told.partition("RESULT")[2])
    return found


def main() -> None:
    """Both checkouts in turns; the medians, their ratio, and whether all answers are the same."""
    before, after, target = (Path(argument).resolve() for argument in sys.argv[1:4])
    figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: {"before": [], "after": []})
    answers: dict[str, set[str]] = defaultdict(set)
    with tempfile.TemporaryDirectory() as caches:
        for turn in range(ROUNDS):
            for backend in ("torch", "openvino"):
                for name, folder in (("before", before), ("after", after)):
                    for what, (figure, tokens) in measured(folder, backend, Path(caches) / name).items():
                        if turn or what != "MiB resident":
                            figures[f"{backend}: {what}"][name].append(round(figure, 1))
                        answers[f"{backend}: {what}"].add(json.dumps(tokens))
    medians = {what: {name: statistics.median(of) for name, of in both.items()} for what, both in figures.items()}
    told = {
        what: {
            **both,
            "ratio": round(medians[what]["after"] / medians[what]["before"], 3),
            "same": len(answers[what]) == 1,
        }
        for what, both in figures.items()
    }
    facts = {
        "command": "python benchmarks/claims/revisions.py " + " ".join(sys.argv[1:]),
        "machine": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "versions": {name: version(name) for name in ("torch", "transformers", "openvino")},
    }
    target.write_text(json.dumps({**facts, "tokens a second": told}, indent=1) + "\n")


if __name__ == "__main__":
    main()
