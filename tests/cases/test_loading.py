"""Files that arrived damaged or were replaced, and options of ``load`` that cannot take effect."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import decodery
from decodery.core.errors import BadModel, DecoderyError
from decodery.model import diskcache

from .loading_common import SIZES, byte_level, llama, saved, write_gguf

IDS = list(range(5, 45))
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def answer(spec: Any, **options: Any) -> list[int]:
    tokens: list[int] = decodery.decode(decodery.load(spec, **options), IDS, max_new_tokens=8, ignore_eos=True).tokens
    return tokens


def test_a_gguf_that_replaces_another_of_its_name_and_size(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    answers = []
    for seed in (1, 2):
        write_gguf(file, seed)
        network = transformers.AutoModelForCausalLM.from_pretrained(
            str(tmp_path), gguf_file=file.name, dtype=torch.float32
        )
        truth = network.generate(
            torch.tensor([IDS]), max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        answers.append(truth[0, len(IDS) :].tolist())
        assert answer(file) == answers[-1]
    assert answers[0] != answers[1]


def test_a_gguf_that_lacks_a_tensor_is_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path / "model.gguf", 1, hidden=64, without="blk.2.ffn_up.weight")
    with pytest.raises(BadModel, match=r"lack model\.layers\.2\.mlp\.up_proj\.weight"):
        decodery.load(tmp_path / "model.gguf")


def test_a_digest_is_of_the_whole_file_and_kept(tmp_path: Path, monkeypatch: Any, cache: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(bytes(100))
    first = diskcache.digest(file)
    assert not cache.exists(), "a file just written may change again within the same tick of the clock"
    monkeypatch.setattr(diskcache, "RECENT", 0)
    assert diskcache.digest(file) == first
    assert len(list(cache.rglob("*.json"))) == 1
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read again"))
    assert diskcache.digest(file) == first
    monkeypatch.undo()
    before = file.stat()
    file.write_bytes(bytes(50) + b"x" + bytes(49))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert diskcache.digest(file) != first


def test_a_graph_is_made_anew_for_any_other_content(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    folder = saved(tmp_path / "m")

    def changed_config() -> None:
        config = json.loads((folder / "config.json").read_text())
        config["rope_parameters"] = {"rope_type": "linear", "factor": 8.0, "rope_theta": 10000.0}
        (folder / "config.json").write_text(json.dumps(config))

    def other_kind() -> None:
        (folder / "model.safetensors").unlink()
        torch.save(llama(257, 1).state_dict(), folder / "pytorch_model.bin")

    def same_kind() -> None:
        times = (folder / "pytorch_model.bin").stat()
        torch.save(llama(257, 2).state_dict(), folder / "pytorch_model.bin")
        os.utime(folder / "pytorch_model.bin", ns=(times.st_atime_ns, times.st_mtime_ns))

    answers = []
    for change in (lambda: None, changed_config, other_kind, same_kind):
        change()
        answers.append(answer(folder, backend="torch"))
        assert answer(folder, backend="openvino") == answers[-1]
    assert len({tuple(tokens) for tokens in answers}) == 4


def test_a_graph_knows_the_generation_config_of_now(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    folder = saved(tmp_path / "m")
    decodery.load(folder, backend="openvino")
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    assert decodery.load(folder, backend="openvino").eos == {7, 9}


@pytest.mark.parametrize("data", [LFS, b"", b"half"], ids=["lfs", "empty", "half"])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model-00002-of-00006.safetensors"])
def test_damaged_weights_are_named(name: str, data: bytes, tmp_path: Path) -> None:
    shards = {"max_shard_size": "30KB"} if "-of-" in name else {}
    folder = saved(tmp_path / "m", **shards)
    file = folder / name
    if name.endswith(".bin"):
        (folder / "model.safetensors").unlink()
        torch.save(llama(257).state_dict(), file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if data == b"half" else data)
    said = {LFS: "git-lfs pointer.*git lfs pull", b"": "is empty"}.get(data, "cannot be loaded")
    with pytest.raises(BadModel, match=said):
        decodery.load(folder)


@pytest.mark.parametrize("data", [LFS, b"", b"{", b"[1]"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_damaged_configurations_are_named(name: str, data: bytes, tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    (folder / name).write_bytes(data)
    with pytest.raises(BadModel, match=name.replace(".", r"\.")):
        decodery.load(folder)


def test_weights_that_are_not_there_are_not_drawn(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    file = folder / "model.safetensors"
    whole = load_file(file)

    def keep(part: dict[str, Any]) -> None:
        save_file(part, file, {"format": "pt"})

    keep({name: weight for name, weight in whole.items() if "layers.2." not in name})
    with pytest.raises(BadModel, match=r"lack model\.layers\.2\.\S+, .* and 5 more"):
        decodery.load(folder)
    keep({name: weight for name, weight in whole.items() if "lm_head" not in name})
    with pytest.raises(BadModel, match=r"lack lm_head\.weight"):
        decodery.load(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    assert decodery.load(folder).vocab == 257, "a head tied to the embeddings is no weight of its own"
    keep(whole)
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    with pytest.raises(BadModel, match=r"another shape .*mlp\.down_proj\.weight \(\[32, 48\], not \[32, 64\]\)"):
        decodery.load(folder)


def test_weights_that_are_not_there_stop_the_graph_too(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    folder = saved(tmp_path / "m")
    whole = load_file(folder / "model.safetensors")
    rest = {name: weight for name, weight in whole.items() if "layers.2." not in name}
    save_file(rest, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(BadModel, match=r"lack model\.layers\.2\."):
        decodery.load(folder, backend="openvino")


IGNORED: list[dict[str, Any]] = [
    {"dtype": "int8"},
    {"dtype": "bfloat16"},
    {"dtype": torch.float16},
    {"backend": "openvino"},
    {"device": "cuda"},
    {"device": "meta"},
    {"revision": "main"},
    {"trust_remote_code": True},
    {"change": "int8"},
]


@pytest.mark.parametrize("options", IGNORED, ids=str)
def test_options_that_cannot_take_effect_are_refused(options: dict[str, Any]) -> None:
    pair = (llama(257), byte_level())
    before = {name: weight.clone() for name, weight in pair[0].state_dict().items()}
    for spec in (pair, decodery.load(pair)):
        with pytest.raises(BadModel):
            decodery.load(spec, **options)
    assert all(torch.equal(weight, before[name]) for name, weight in pair[0].state_dict().items())


def test_options_that_are_true_already_are_taken() -> None:
    pair = (llama(257), byte_level())
    for options in ({"dtype": "float32"}, {"device": "cpu"}, {"backend": "torch"}, {"backend": "auto"}, {"change": []}):
        model = decodery.load(pair, **options)  # type: ignore[arg-type]
        assert decodery.load(model, **options) is model  # type: ignore[arg-type]
    thin = decodery.load(pair, change="layer-speedup:1")
    assert thin.network is pair[0]
    assert not thin.lossless


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"device": "cuda"}, "device=cuda cannot be used here"),
    ({"device": "gpu"}, "device=gpu cannot be used here"),
    ({"revision": "main"}, "revision='main' is for models on the hub"),
    ({"dtype": "int8"}, "change: int8"),
    ({"dtype": "int32"}, "cannot be computed in"),
    ({"dtype": 5}, "cannot be computed in"),
    ({"change": "int9"}, "Did you mean 'int8'"),
    ({"change": [3]}, "change= is a part"),
]


@pytest.mark.parametrize(("options", "said"), REFUSED, ids=str)
def test_options_of_a_folder_are_refused_in_a_sentence(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    if options.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has it")
    with pytest.raises(DecoderyError, match=said):
        decodery.load(saved(tmp_path / "m"), **options)


@pytest.mark.parametrize("spec", [None, 5, b"x", (1, 2), (llama(257),), {}, ""], ids=lambda s: type(s).__name__)
def test_what_is_no_model_is_refused_in_a_sentence(spec: Any) -> None:
    with pytest.raises(BadModel, match=r"a model is|no directory"):
        decodery.load(spec)


def test_changes_mark_their_answers(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m")
    plain = decodery.load(folder)
    rounded = decodery.load(folder, change="int8", dtype="float32")
    assert decodery.decode(plain, IDS, max_new_tokens=2).stats.lossless
    assert not decodery.decode(rounded, IDS, max_new_tokens=2).stats.lossless


def test_a_second_model_is_loaded_like_the_first(tmp_path: Path) -> None:
    """By the loader that the first one was given; a Model made by hand has none, and says so."""
    folder = saved(tmp_path / "m")
    model = decodery.load(folder, dtype="bfloat16")
    assert model.companion(str(folder)).network.dtype == torch.bfloat16  # type: ignore[attr-defined]
    by_hand = decodery.Model(llama(257), byte_level())
    with pytest.raises(BadModel, match="must be a loaded Model"):
        by_hand.companion(str(folder))
    assert by_hand.companion(model) is model
    pair = (llama(257, 4), byte_level())
    assert model.companion(pair).network is pair[0]  # type: ignore[attr-defined]


def test_ends_outside_the_vocabulary_are_none(tmp_path: Path) -> None:
    """A GPT-2 configuration keeps its id 50256 for a small vocabulary too; then the tokenizer's end counts."""
    tokenizer = byte_level()
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
    network = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=len(tokenizer), **sizes)).eval()
    model = decodery.load((network, tokenizer))
    assert model.eos == {0}
    for options in ({"constrain": "regex:[a-z]{3}"}, {"constrain": "choice:[yes,no]"}, {"guide": "min-new-tokens:3"}):
        assert len(decodery.decode(model, "hi", max_new_tokens=8, **options).text) >= 2
    assert decodery.load((network, None)).eos == frozenset()


def test_the_generation_config_says_what_ends_an_answer() -> None:
    """As in ``generate``: the tokenizer's end does not count where the generation config names one."""
    config = transformers.LlamaConfig(**SIZES | {"eos_token_id": 5}, vocab_size=257)
    network = transformers.LlamaForCausalLM(config).eval()
    assert decodery.load((network, byte_level())).eos == {5}
    network.generation_config.eos_token_id = [7, 9, 300]
    assert decodery.load((network, byte_level())).eos == {7, 9}
    network.generation_config.eos_token_id = network.config.eos_token_id = None
    assert decodery.load((network, byte_level())).eos == {0}


def retyped(data: bytes) -> bytes:
    """The same file with a tensor of a kind that nobody knows."""
    place = data.index(b"blk.1.ffn_up.weight") + len(b"blk.1.ffn_up.weight") + 4 + 2 * 8
    return data[:place] + (999).to_bytes(4, "little") + data[place + 4 :]


DAMAGES: dict[str, Any] = {
    "cut in the tensors": lambda data: data[: len(data) * 2 // 3],
    "cut in the tokens": lambda data: data[:1500],
    "one byte is lacking": lambda data: data[:-1],
    "tensors counted wrong": lambda data: data[:8] + (1000).to_bytes(8, "little") + data[16:],
    "entries counted wrong": lambda data: data[:16] + (3).to_bytes(8, "little") + data[24:],
    "unknown kind": retyped,
}


@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_gguf_is_refused(damage: str, backend: str, tmp_path: Path, cache: Path) -> None:
    if backend == "openvino":
        pytest.importorskip("openvino")
    file = tmp_path / "model.gguf"
    write_gguf(file, 1, hidden=64, kind="Q4_1")
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(BadModel, match=r"model\.gguf cannot be read as a model: .*get it again"):
        decodery.load(file, backend=backend)
    assert not [path for path in cache.iterdir() if path.is_dir()]


@pytest.mark.parametrize("backend", ["openvino", "auto", None])
def test_an_accelerator_is_taken_where_there_is_one(backend: str | None, tmp_path: Path, monkeypatch: Any) -> None:
    """Unless OpenVINO is asked for, which computes on the CPU; there is none here, so only where to go is seen."""
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DECODERY_BACKEND")
    folder, moved = saved(tmp_path / "m"), []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("meta"))
    monkeypatch.setattr("decodery.model.load._device", lambda device: moved.append(device) or torch.device("cpu"))
    model = decodery.load(folder, backend=backend)
    assert moved == ([] if backend == "openvino" else [torch.device("meta")])
    assert decodery.load(folder, backend=backend, device="cpu").device.type == "cpu"
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    moved.clear()
    assert decodery.load(folder, backend=backend).backend == model.backend == "openvino"
    assert moved == []
