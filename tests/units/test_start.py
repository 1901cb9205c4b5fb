"""A quick start: what is imported and compiled, and in which order, until the first token."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import transformers

import decodery
from decodery.cli.groups import TORCH_ONLY, RecipeOptions
from decodery.cli.models import ModelOptions
from decodery.core.text import Text
from decodery.core.values import Cap
from decodery.model import early
from decodery.model.ability import GRAPHED
from decodery.model.checkpoint import tokenizer_of

from ..cases.loading_common import saved
from ..hf.test_decode import OPTIONS, PROMPTS, plain, tokenizer
from ..hf.tiny import network

pytest.importorskip("openvino", reason="openvino is not installed: pip install 'openvino>=2026.4'")

from decodery.model.openvino import begun, graphs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("tiny")
    network("llama").save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def converted(folder: Path, tmp_path: Path, monkeypatch: Any) -> Path:
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path))
    decodery.load(folder, backend="openvino")
    return folder


def test_a_kept_graph_needs_no_model_classes(converted: Path, monkeypatch: Any) -> None:
    """Neither the configuration, nor the network, nor the search for the tokenizer's class."""
    monkeypatch.setitem(sys.modules, "decodery.model.openvino.convert", None)
    for kind in (transformers.AutoTokenizer, transformers.AutoConfig, transformers.AutoModelForCausalLM):
        monkeypatch.setattr(kind, "from_pretrained", lambda *_, **__: pytest.fail("not needed"))
    model = decodery.load(converted, backend="openvino")
    assert decodery.decode(model, PROMPTS[0], **OPTIONS).tokens == plain("llama", PROMPTS[0])
    assert model.facts.kind == "LlamaForCausalLM"
    monkeypatch.undo()
    assert type(model.network).__name__ == "LlamaForCausalLM", "built when asked for"
    assert model.network.device.type == "meta"
    assert model.network is model.network
    assert str(model.device) == "cpu"


def test_the_graph_is_compiled_once_and_taken(converted: Path, monkeypatch: Any) -> None:
    made = []
    whole = begun.paged_graph
    monkeypatch.setattr(begun, "paged_graph", lambda *given: made.append(given) or whole(*given))
    early.begin(converted, backend="openvino")
    assert list(begun._begun)
    model = decodery.load(converted, backend="openvino")
    assert not begun._begun
    assert len(made) == 1
    assert decodery.decode(model, PROMPTS[0], **OPTIONS).tokens == plain("llama", PROMPTS[0])
    decodery.load(converted, backend="openvino")
    assert len(made) == 2, "models of one name share nothing"


def _compiled() -> None:
    for thread in threading.enumerate():
        if thread.name == "decodery-compile":
            thread.join()


def test_a_graph_that_waits_is_warmed_up(converted: Path, monkeypatch: Any) -> None:
    """With passes of texts of their own, which leave no trace; one that was taken is warmed up no more."""
    warmed, whole = [], graphs.PagedGraph._warm
    taken = threading.Event()

    def warm(graph: Any, n: int) -> None:
        whole(graph, n)  # an error of the graph is the test's
        warmed.append(n)
        taken.wait(60)

    monkeypatch.setattr(graphs.PagedGraph, "_warm", warm)
    early.begin(converted, backend="openvino")
    model = decodery.load(converted, backend="openvino")
    taken.set()
    _compiled()
    assert warmed in ([], list(begun.WARM[:1])), "load may have been quicker"
    assert decodery.decode(model, PROMPTS[0], **OPTIONS).tokens == plain("llama", PROMPTS[0])
    early.begin(converted, backend="openvino")
    _compiled()
    assert warmed[-2:] == list(begun.WARM)
    assert decodery.decode(decodery.load(converted, backend="openvino"), PROMPTS[0], **OPTIONS).tokens == plain(
        "llama", PROMPTS[0]
    )


@pytest.mark.parametrize(
    "options", [{"backend": "torch"}, {"device": "cpu"}, {"dtype": "bfloat16"}, {"change": "int8"}, {}], ids=str
)
def test_nothing_is_begun_that_will_not_be_wanted(converted: Path, options: dict[str, Any]) -> None:
    """By default the tests ask for torch, as a user may."""
    early.begin(converted, **options)
    assert not begun._begun


def test_what_fails_in_the_background_is_told_by_load(converted: Path, monkeypatch: Any, caplog: Any) -> None:
    """A graph that cannot be compiled for paged attention runs without it; one that cannot be read is an error."""
    with monkeypatch.context() as patch:
        patch.setattr(graphs, "page", lambda *_: 1 / 0)
        early.begin(converted, backend="openvino")
        model = decodery.load(converted, backend="openvino")
    assert "runs without paged attention" in caplog.text
    assert decodery.decode(model, PROMPTS[0], **OPTIONS).tokens == plain("llama", PROMPTS[0])
    with monkeypatch.context() as patch:
        patch.setattr(begun, "facts_in", lambda _: 1 / 0)
        with pytest.raises(decodery.DecoderyError, match="division by zero"):
            decodery.load(converted, backend="openvino")
    assert decodery.load(converted, backend="openvino").backend == "openvino"


@pytest.mark.parametrize(
    ("specs", "wanted"),
    [
        ({}, True),
        ({"draft": "recycling:k=4", "guide": ["top-p:0.9"]}, True),
        ({"draft": "layer-skip"}, True),
        ({"guide": ["dola"]}, True),
        ({"draft": "swift"}, False),
        ({"draft": "mix(suffix,swift)"}, False),
        ({"draft": "ngran"}, False),
        ({"guide": ["mine:Guide"]}, False),
    ],
    ids=str,
)
def test_the_command_begins_what_its_parts_will_take(converted: Path, specs: dict[str, Any], wanted: bool) -> None:
    ModelOptions(str(converted), backend="openvino").begin(RecipeOptions(specs))
    assert bool(begun._begun) == wanted
    for future in begun._begun.values():
        future.result()
    begun._begun.clear()


def test_what_tells_a_tokenizer_apart_is_looked_up(converted: Path, monkeypatch: Any) -> None:
    """Another vocabulary in the same folder is another one."""
    first = decodery.load(converted, backend="openvino")
    with monkeypatch.context() as patch:
        patch.setattr(type(first.tokenizer), "get_vocab", lambda _: pytest.fail("not needed"))
        assert decodery.load(converted, backend="openvino").fingerprint() == first.fingerprint()
    assert first.fingerprint() == Text(first.tokenizer, first.vocab).fingerprint
    other = tokenizer()
    other.add_tokens(["another"])
    other.save_pretrained(converted)
    try:
        assert (
            decodery.load(converted, backend="torch").fingerprint() == Text(other, 1).fingerprint != first.fingerprint()
        )
    finally:
        tokenizer().save_pretrained(converted)


def test_what_only_torch_can_do_is_named_as_it_is() -> None:
    assert {cap.value for cap in set(Cap) - GRAPHED} == TORCH_ONLY


@pytest.mark.parametrize("kind", [None, "GPT2Tokenizer"])
def test_the_kept_class_makes_the_same_tokenizer(kind: str | None, tmp_path: Path, monkeypatch: Any) -> None:
    """It is found out again where a file of the tokenizer has changed, and whatever class the model's folder names."""
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path / "cache"))
    folder = saved(tmp_path / "m")
    if kind is not None:
        transformers.GPT2Tokenizer(tokenizer_file=str(folder / "tokenizer.json")).save_pretrained(folder)
    found = [tokenizer_of(str(folder)) for _ in range(2)]
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for mine in found:
        assert type(mine) is type(theirs)
        assert mine("a b é", add_special_tokens=False).input_ids == theirs("a b é", add_special_tokens=False).input_ids
        assert mine.special_tokens_map == theirs.special_tokens_map
    assert len(list((tmp_path / "cache" / "tokenizers").iterdir())) == 1
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<x>"}')
    assert tokenizer_of(str(folder)).eos_token == "<x>"


def test_a_command_ends_with_its_code_and_all_its_output() -> None:
    """The process ends without taking anything down in order."""
    environment = os.environ | {"COLUMNS": "300"}
    for arguments, code, said in (
        (["list"], 0, "recycling"),
        (["show", "ngran"], 2, "Did you mean"),
        (["run", "x", "--bogus"], 2, "No such option"),
    ):
        command = [sys.executable, "-c", "from decodery.cli import main; main()", *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
        assert ended.returncode == code
        assert said in ended.stdout + ended.stderr


def test_threads_that_load_one_model_at_once_each_get_a_graph(converted: Path) -> None:
    """A graph that was begun goes to one of them; none of them ends on another backend, or with an error."""
    found: list[Any] = []

    def load() -> None:
        try:
            found.append(decodery.load(converted, backend="openvino"))
        except BaseException as error:
            found.append(error)

    for _ in range(5):
        threads = [threading.Thread(target=load) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [one for one in found if isinstance(one, BaseException)] == []
    assert {model.backend for model in found} == {"openvino"}
    assert not begun._begun
