"""What this machine and a model can do, and what a forward costs here."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from decodery.core.values import Cap
from decodery.inspect.overhead import overhead
from decodery.model.model import Model
from decodery.plan.costs import cost_curve

PACKAGES = ("torch", "transformers", "decodery", "openvino", "openvino-genai", "llama-cpp-python")
"""Packages whose versions belong to a measurement, where they are installed."""

Report = dict[str, dict[str, Any]]


def examine_all(models: Mapping[str, Model | str]) -> Report:
    """Machine, model, abilities, costs; takes some seconds of forwards.

    ``models``: the same model by backend, or why it cannot be had there; the first one is described.
    """
    loaded = {backend: model for backend, model in models.items() if isinstance(model, Model)}
    model = next(iter(loaded.values()))
    report: Report = {"machine": machine(), "model": _model(model), "abilities": _abilities(model)}
    ones: dict[str, float] = {}
    for backend, found in models.items():
        title = f"cost of a forward, {backend}"
        if isinstance(found, str):
            report[title] = {"not available": found}
            continue
        costs, switch = cost_curve(found)
        ones[backend] = costs[1]
        report[title] = {f"n={n}": f"{1e3 * s:.0f} ms ({s / costs[1]:.2f} x n=1)" for n, s in costs.items()}
        report[title]["another n than before"] = f"{1e3 * switch:+.1f} ms"
        engine = overhead(found)
        if engine is not None:
            report[title] |= {
                "step at n=8": f"{engine.step:.1f} ms, of it the bare forward {engine.forward:.1f} ms",
                "overhead": f"{engine.share:.1%} of a step (mask, tree, verify, detokenise)",
            }
    if model.linear:
        report["Linear layers, torch"] = {
            f"{out} x {width}": ", ".join(f"n={n}: {way} {choice.micros[n]:.0f} us" for n, way in choice.ways.items())
            for (out, width), choice in model.linear.items()
        }
    report["recommendation"] = _advice(model.name, ones)
    return report


def _advice(name: str, ones: Mapping[str, float]) -> dict[str, Any]:
    """The backend whose forward of one token is quickest, and the command for it."""
    best = min(ones, key=ones.__getitem__)
    told = f"{best}: {1e3 * ones[best]:.0f} ms a token without drafts"
    return {"fastest backend": told, "command": f'decodery run "..." -m {name} --backend {best}'}


def machine() -> dict[str, Any]:
    """Processor, threads, versions; also the head of every result file."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "torch threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        **_versions(),
        "commit": _commit(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def in_a_line(machine: Mapping[str, Any]) -> str:
    """Processor, versions and commit of ``machine()`` in one line; what it does not hold is left out."""
    place = [
        machine.get("processor"),
        f"{machine['cores']} cores" if "cores" in machine else "",
        machine.get("instructions"),
    ]
    if machine.get("cuda", "none") != "none":
        place.append(machine["cuda"])
    versions = [f"{name} {machine[name]}" for name in machine if name in PACKAGES and name != "decodery"]
    ours = f"decodery {machine['decodery']} ({machine.get('commit', 'none')})" if "decodery" in machine else ""
    return " · ".join(filter(None, [", ".join(filter(None, place)), ", ".join(filter(None, [ours, *versions]))]))


def _commit() -> str:
    """The last commit that changed this package, ``+`` where files differ from it; "none" where no repository tracks it."""
    try:
        commit = _git("log", "-1", "--format=%h")
        return f"{commit}+" if commit and _git("status", "--porcelain") else commit or "none"
    except (OSError, subprocess.SubprocessError):
        return "none"


def _git(*command: str) -> str:
    here = str(Path(__file__).parents[1])
    told = subprocess.run(
        ["git", "-C", here, *command, "--", "."], capture_output=True, text=True, check=True, timeout=10
    )
    return told.stdout.strip()


def _model(model: Model) -> dict[str, Any]:
    config = model.network.config.get_text_config()
    size, kind = model.facts.parameters * model.dtype.itemsize, str(model.dtype).removeprefix("torch.")
    return {
        "name": model.name,
        "class": model.facts.kind,
        "layers": model.depth,
        "parameters": f"{model.facts.parameters / 1e6:.0f} M, {size / 2**20:.0f} MiB as {kind}",
        "device": str(model.device),
        "backend": model.backend,
        "attention": getattr(config, "_attn_implementation", "unknown"),
        "vocabulary": model.vocab,
        "context": model.context,
        "cache": model.ability.cache,
        "end of sequence": sorted(model.eos),
        "chat template": "yes" if model.text.tokenizer.chat_template else "no",
    }


def _abilities(model: Model) -> dict[str, Any]:
    return {cap.value: "yes" if cap in model.can else f"no: {model.missing.get(cap, '')}" for cap in Cap}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
