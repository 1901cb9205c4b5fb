"""What a runner needs: seconds to load and peak memory, seen from a fresh process of its own.

``python -m decodery.bench.footprint NAME MODEL BACKEND PLAN LOADING`` loads one runner, answers one prompt and prints JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import psutil

PROMPT = "Write a short story about a lighthouse keeper and a storm. "


def footprint(name: str, spec: str, backend: str, plan: str, loading: Mapping[str, Any]) -> dict[str, float]:
    """Seconds to load, and MiB (see ``memory``; ``imports``: own after the imports). Empty where the process failed."""
    command = [sys.executable, "-m", "decodery.bench.footprint", name, spec, backend, plan, json.dumps(loading)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TQDM_DISABLE": "1"})
    try:
        answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {}
    return answer


def main(name: str, spec: str, backend: str, plan: str, loading: str) -> None:
    """The child process."""
    from decodery.bench.driver import timed
    from decodery.bench.runners import PEERS, Runner, methods, peer
    from decodery.model.load import load

    runner: Runner
    imports = memory()["own"] << 20
    start = perf_counter()
    if name.partition("=")[0] in PEERS:
        hull = load(spec, backend="openvino" if backend != "torch" else "torch")
        start = perf_counter()
        imports = memory()["own"] << 20
        runner, eos, prompt = peer(name, spec, hull), hull.eos, hull.encode(PROMPT * 8)
    else:
        runner = methods([name], spec, backend, plan, {}, loading=json.loads(loading))[0][0]
        eos, prompt = runner.model.eos, runner.model.encode(PROMPT * 8)
    loaded = perf_counter() - start
    timed(runner, prompt, 64, eos)
    print(json.dumps({"load": round(loaded, 2), "imports": imports >> 20, **memory()}))


def memory() -> dict[str, int]:
    """MiB: "peak" of what this process held, and "own", what of it is no mapped file (those the system may drop)."""
    if not psutil.LINUX:
        held = psutil.Process().memory_info()
        return {"peak": int(getattr(held, "peak_wset", held.rss)) >> 20, "own": held.rss >> 20}
    with open("/proc/self/status") as status:  # not ru_maxrss: a child inherits its parent's
        told = dict(line.split(":", 1) for line in status)
    return {"peak": int(told["VmHWM"].split()[0]) >> 10, "own": int(told["RssAnon"].split()[0]) >> 10}


if __name__ == "__main__":
    main(*sys.argv[1:6])
