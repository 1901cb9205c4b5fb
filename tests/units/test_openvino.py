"""Loading with the OpenVINO backend: converted once, checked, and the same answers as torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import decodery
from decodery.core.errors import BadModel, DecoderyError
from decodery.core.values import Cap
from decodery.model.turn import forward

from ..hf.test_decode import OPTIONS, PROMPTS, plain, tokenizer
from ..hf.tiny import network

pytest.importorskip("openvino", reason="the openvino extra is not installed: pip install decodery[openvino]")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: Any) -> Path:
    path = Path(tmp_path_factory.mktemp("tiny"))
    network("llama").save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def test_the_same_answers_from_one_conversion(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path))
    model = decodery.load(folder, backend="openvino")
    assert model.can == {Cap.TREE}
    assert model.network.device.type == "meta", "the torch weights are not kept beside the graph's"
    for draft in ("none", "ngram", "recycling", "jacobi"):
        outputs = decodery.decode(model, PROMPTS, draft=draft, **OPTIONS)
        assert [output.tokens for output in outputs] == [plain("llama", prompt) for prompt in PROMPTS]
    long = decodery.decode(model, PROMPTS[0], draft="jacobi:window=12", max_new_tokens=60, ignore_eos=True)
    assert long.tokens == plain("llama", PROMPTS[0], 60), "dead slots were compacted on the way"
    monkeypatch.setattr("decodery.model.openvino.convert.convert", lambda *_: pytest.fail("converted twice"))
    again = decodery.load(folder, backend="auto")
    assert again.backend == "openvino"
    assert decodery.decode(again, PROMPTS[0], **OPTIONS).tokens == plain("llama", PROMPTS[0])
    assert not list(tmp_path.glob("*.partial"))


def test_eight_bits_are_one_model_on_every_backend(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path))
    monkeypatch.setattr("decodery.change.int8.LEAST", 256)
    torch_model, graph = (decodery.load(folder, change="int8", backend=name) for name in ("torch", "openvino"))
    for prompt in PROMPTS:
        ours, theirs = (decodery.decode(model, prompt, draft="recycling", **OPTIONS) for model in (graph, torch_model))
        assert ours.tokens == theirs.tokens
    (small,) = tmp_path.glob("*/model.bin")
    float_model = decodery.load(folder, dtype="float32", backend="openvino")
    (large,) = set(tmp_path.glob("*/model.bin")) - {small}
    assert small.stat().st_size < 0.6 * large.stat().st_size
    rows = [forward(model.session(PROMPTS[0])).logits for model in (float_model, torch_model, graph)]
    assert not torch.allclose(rows[0], rows[1], atol=1e-4), "rounding changes the model"
    torch.testing.assert_close(rows[2], rows[1], atol=1e-4, rtol=1e-3)


def test_what_does_not_fit_is_named(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path))
    with pytest.raises(BadModel, match="there is no backend 'onnx'; backends: torch, openvino, auto"):
        decodery.load(folder, backend="onnx")
    with pytest.raises(BadModel, match="float32 on CPUs, not bfloat16"):
        decodery.load(folder, backend="openvino", dtype="bfloat16")
    assert decodery.load(folder, backend="auto", dtype="bfloat16").backend == "torch"
    model = decodery.load(folder, backend="openvino")
    with pytest.raises(DecoderyError, match="give path="):
        decodery.decode(model, PROMPTS[0], draft="model")


def test_a_graph_that_differs_is_refused(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path))
    monkeypatch.setattr("decodery.model.openvino.convert.check", lambda *_: "logits differ by 9")
    with pytest.raises(BadModel, match="logits differ by 9"):
        decodery.load(folder, backend="openvino")
    assert decodery.load(folder, backend="auto").backend == "torch"
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and "openvino" in path.name]
