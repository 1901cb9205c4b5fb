"""Loading with the OpenVINO backend: converted once, checked, and the same answers as torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import decodery
from decodery.core.errors import BadModel, DecoderyError
from decodery.core.values import Cap
from decodery.model.ability import GRAPHED
from decodery.model.turn import forward

from ..cases.loading_common import llama, saved, write_gguf
from ..hf.test_decode import OPTIONS, PROMPTS, plain, tokenizer
from ..hf.tiny import network

openvino = pytest.importorskip("openvino", reason="openvino is not installed: pip install 'openvino>=2026.4'")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: Any) -> Path:
    path = Path(tmp_path_factory.mktemp("tiny"))
    network("llama").save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def test_the_same_answers_from_one_conversion(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path))
    model = decodery.load(folder, backend="openvino")
    assert model.can == GRAPHED
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


@pytest.mark.parametrize("change", ["int8", "int4"])
def test_rounded_weights_are_one_model_on_every_backend(
    change: str, folder: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path))
    for where in ("change.lib.rounding", "model.openvino.weights"):
        monkeypatch.setattr(f"decodery.{where}.LEAST", 256)
    torch_model, graph = (decodery.load(folder, change=change, backend=name) for name in ("torch", "openvino"))
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
    with pytest.raises(DecoderyError, match=r"halves of layers.*load with backend=torch"):
        decodery.decode(model, PROMPTS[0], draft="swift")


def test_parts_that_look_inside_answer_as_on_torch(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Drafts through fewer layers, exits at any layer, a contrast of layers, and fewer layers for new tokens."""
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path))
    model = decodery.load(folder, backend="openvino")
    for draft in ("model", "layer-skip:1", "del", "mix(suffix,layer-skip:1)"):
        output = decodery.decode(model, PROMPTS[0], draft=draft, plan="off", **OPTIONS)
        assert output.tokens == plain("llama", PROMPTS[0])
        assert output.stats.drafted or draft == "del", "which may find that no exit pays"
    for options in ({"guide": "dola"}, {"guide": ["dola"], "draft": "layer-skip:1"}):
        theirs, ours = (
            decodery.decode(decodery.load(folder, backend=name), PROMPTS, **options, **OPTIONS)
            for name in ("torch", "openvino")
        )
        assert [output.tokens for output in ours] == [output.tokens for output in theirs]
    thin = [decodery.load(folder, backend=name, change="layer-speedup:1") for name in ("torch", "openvino")]
    assert [model.backend for model in thin] == ["torch", "openvino"]
    theirs, ours = (decodery.decode(model, PROMPTS, draft="ngram", **OPTIONS) for model in thin)
    assert [output.tokens for output in ours] == [output.tokens for output in theirs]


def test_a_graph_without_places_says_so(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """Where a hidden state is wrong, or layers are not found, parts that need them run on torch by default."""
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path))
    monkeypatch.setattr(
        "decodery.model.openvino.convert.astray", lambda *_: "its hidden states after layer 1: they lie"
    )
    model = decodery.load(folder, backend="openvino")
    assert model.can == {Cap.TREE}
    with pytest.raises(
        DecoderyError, match=r"hidden states.*logits only, for its hidden states after layer 1: they lie"
    ):
        decodery.decode(model, PROMPTS[0], guide="dola")
    thin = decodery.load(folder, backend="auto", change="layer-speedup:1")
    assert thin.backend == "torch"
    with pytest.raises(BadModel, match="they lie"):
        decodery.load(folder, backend="openvino", change="layer-speedup:1")


def test_a_conversion_that_would_take_all_memory_is_not_begun(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """It holds several copies in float32; the default then runs torch, which needs one in the dtype of the file."""
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path))
    monkeypatch.setattr("decodery.model.openvino.convert.memory_bytes", lambda: 1000)
    with pytest.raises(BadModel, match=r"converting it needs about .* GiB of memory, this machine has"):
        decodery.load(folder, backend="openvino")
    assert decodery.load(folder, backend="auto").backend == "torch"
    assert not list(tmp_path.glob("*.partial"))


def test_a_graph_that_differs_is_refused(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path))
    monkeypatch.setattr("decodery.model.openvino.convert.check", lambda *_: "logits differ by 9")
    with pytest.raises(BadModel, match="logits differ by 9"):
        decodery.load(folder, backend="openvino")
    assert decodery.load(folder, backend="auto").backend == "torch"
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and "openvino" in path.name]


def constants(cache: Path) -> dict[str, int]:
    """Of how many numbers the matrices of the one graph in a cache are, by their type."""
    (file,) = cache.glob("*openvino*/model.xml")
    found: dict[str, int] = {}
    for node in openvino.Core().read_model(file).get_ops():
        if node.get_type_name() == "Constant" and len(node.get_output_shape(0)) > 1:
            name = node.get_element_type().get_type_name()
            found[name] = found.get(name, 0) + math.prod(node.get_output_shape(0))
    return found


def same_rows(ours: Any, theirs: Any) -> None:
    prompt = list(range(5, 25))
    rows = [forward(model.session(prompt)).logits for model in (ours, theirs)]
    assert rows[0].std() > 0.1
    torch.testing.assert_close(*rows, atol=2e-4, rtol=1e-4)


KINDS = {"Q4_0": "u4", "Q4_1": "u4", "Q4_K": "u4", "Q5_0": "u8", "Q5_1": "u8", "Q5_K": "u8", "Q6_K": "i8", "Q8_0": "i8"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_gguf_keeps_its_codes(kind: str, tmp_path: Path, monkeypatch: Any) -> None:
    """No float32 weights are written for it; torch, asked for, writes them and answers alike."""
    monkeypatch.setenv("DECODERY_CACHE", str(cache := tmp_path / "cache"))
    write_gguf(file := tmp_path / "model.gguf", 1, hidden=256, kind=kind)
    model = decodery.load(file, backend="openvino")
    matrices = 258 * 256 + 4 * 7 * 256 * 256
    found = constants(cache)
    assert found[KINDS[kind]] == matrices, "tied embeddings are kept once"
    assert max((count for name, count in found.items() if name != KINDS[kind]), default=0) < matrices / 7
    assert not list(cache.rglob("*.safetensors"))
    (folder,) = cache.glob("*openvino*/")
    larger = 2 if kind[:2] in ("Q5", "Q6") else 1.4  # codes of five and six bits take eight
    assert sum(path.stat().st_size for path in folder.rglob("*.bin")) < larger * file.stat().st_size
    assert not list(folder.rglob("*.blob")), "the compiler's notes would hold all weights again"
    same_rows(model, decodery.load(file, backend="torch"))
    assert len(list(cache.rglob("*.safetensors"))) == 1


def test_matrices_of_several_kinds_are_not_joined(tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    """As in files whose values have more bits than queries and keys; what cannot be kept is said once."""
    monkeypatch.setenv("DECODERY_CACHE", str(cache := tmp_path / "cache"))
    caplog.set_level("INFO")
    others = {"attn_v": "Q6_K", "ffn_down": "BF16"}
    write_gguf(file := tmp_path / "model.gguf", 1, hidden=256, kind="Q4_K", others=others)
    model = decodery.load(file, backend="openvino")
    found = constants(cache)
    assert found["u4"] == 258 * 256 + 4 * 5 * 256 * 256
    assert found["i8"] == 4 * 256 * 256
    assert sum("keeps float32: 4 of" in message and "BF16" in message for message in caplog.messages) == 1
    same_rows(model, decodery.load(file, backend="torch"))


def test_a_change_of_the_weights_ends_the_codes(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("DECODERY_CACHE", str(cache := tmp_path / "cache"))
    write_gguf(file := tmp_path / "model.gguf", 1, hidden=64, kind="Q4_1")
    model = decodery.load(file, backend="openvino", change="int8")
    assert "u4" not in constants(cache)
    same_rows(model, decodery.load(file, backend="torch", change="int8"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bits_are_kept_and_computed_in_float32(dtype: torch.dtype, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("DECODERY_CACHE", str(cache := tmp_path / "cache"))
    monkeypatch.setattr("decodery.model.openvino.weights.LEAST", 256)
    folder = saved(tmp_path / "m")
    llama(257).to(dtype).save_pretrained(folder)
    for backend in ("openvino", "auto"):
        model = decodery.load(folder, backend=backend)
        assert (model.backend, model.network.dtype) == ("openvino", torch.float32)
    found = constants(cache)
    name = {torch.bfloat16: "bf16", torch.float16: "f16"}[dtype]
    assert found[name] == 2 * 257 * 32 + 3 * (3 * 32 * 48 + 32 * (32 + 16 + 16 + 32))
    same_rows(model, decodery.load(folder, dtype="float32", backend="torch"))
    assert decodery.load(folder).network.dtype == (torch.bfloat16 if dtype == torch.bfloat16 else torch.float32)


def test_a_number_that_sixteen_bits_lack_keeps_its_matrix(monkeypatch: Any) -> None:
    from decodery.model.openvino.weights import keep_halves

    ops, matrices = openvino.opset13, [np.ones((64, 64), np.float32) for _ in range(2)]
    matrices[1][3, 5] = 1 + 2**-20
    source = ops.parameter(openvino.PartialShape([1, 64]), np.float32)
    products = [ops.matmul(source, ops.constant(matrix), False, True) for matrix in matrices]
    graph = openvino.Model([ops.result(product) for product in products], [source], "two")
    keep_halves(graph, torch.bfloat16)
    assert [product.input_value(1).get_node().get_type_name() for product in products] == ["Convert", "Constant"]


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    """The runtime says only: basic_ios::clear: iostream error."""
    monkeypatch.setenv("DECODERY_CACHE", str(cache := tmp_path / "cache"))

    def save(_: Any, path: Path, **__: Any) -> None:
        path.with_suffix(".bin").write_bytes(bytes(100))
        raise RuntimeError("basic_ios::clear: iostream error")

    write_gguf(file := tmp_path / "model.gguf", 1, hidden=64, kind="Q8_0")
    monkeypatch.setattr("openvino.save_model", save)
    with pytest.raises(BadModel, match=r"is the disk full.*Set DECODERY_CACHE"):
        decodery.load(file, backend="openvino")
    assert not list(cache.rglob("*.bin"))
    assert not list(cache.glob("*.partial"))


@pytest.mark.real
def test_the_demo_model_answers_as_its_float32_graph_does(smollm2: Any) -> None:
    """Of the folder's size, nearly all is what the file holds, too."""
    from decodery.model.openvino.folder import folder_of
    from decodery.model.resolve import demo_file, place_of

    ours, theirs = (decodery.load(spec, backend="openvino") for spec in ("smollm2", decodery.resolve("smollm2")))
    for prompt in ("The capital of France is", "def fibonacci(n):", "Once upon a time, a fox"):
        answers = [decodery.decode(model, prompt, max_new_tokens=32, ignore_eos=True) for model in (ours, theirs)]
        assert answers[0].tokens == answers[1].tokens
    folder = folder_of(place_of("smollm2"))
    assert sum(file.stat().st_size for file in folder.rglob("*")) < 1.3 * demo_file().stat().st_size
