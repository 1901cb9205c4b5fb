"""What people type at the first try: the names of other tools, prompts from files and pipes, the model's own sampling."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers

import decodery
from decodery.core.errors import DecoderyError
from decodery.model.facts import sampling_of

from ..hf.test_decode import PROMPTS, tokenizer
from ..hf.tiny import network
from .test_cli import CHAT, call, tiny  # noqa: F401


def told(*arguments: str, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(call("run", *arguments, "--json", **options).stdout)
    return found


def guides(answer: dict[str, Any]) -> list[tuple[str, Any]]:
    """Name and first parameter of each guide, in order."""
    return [
        (name, next(iter(parameters.values())))
        for guide in answer["recipe"].get("guide", [])
        for name, parameters in guide.items()
    ]


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ("--temp 0.7", [("temperature", 0.7)]),
        ("--temperature 0.7 --top-k 4 --top-p 0.85 --min-p 0.15 --repeat-penalty 1.3",
         [("temperature", 0.7), ("top-k", 4), ("top-p", 0.85), ("min-p", 0.15), ("repetition", 1.3)]),
        ("--top-p 0.85 -t 0.7", [("top-p", 0.85), ("temperature", 0.7)]),
        ("-g top-p:.85 -t .7 -g top-k:3", [("top-p", 0.85), ("temperature", 0.7), ("top-k", 3)]),
        ("-t .7 -g top-p:.85 --top-k 3 -g min-p:.15", [("temperature", 0.7), ("top-p", 0.85), ("top-k", 3), ("min-p", 0.15)]),
        ("-t 0 --top-k 0 --top-p 1 --min-p 0 --repeat-penalty 1", []),
        ("-t 0.2 -t 0.7", [("temperature", 0.7)]),
    ],
)  # fmt: skip
def test_guides_act_in_the_order_typed(flags: str, wanted: list[tuple[str, Any]], tiny: str) -> None:  # noqa: F811
    assert guides(told("w5", "-m", tiny, "-n", "2", *flags.split())) == wanted


def test_guides_of_a_config_file_come_first(tiny: str, tmp_path: Path) -> None:  # noqa: F811
    config = tmp_path / "config.yaml"
    config.write_text(f"model: {tiny}\nguide: top-k:3\n")
    answer = json.loads(call("--config", str(config), "run", "w5", "-t", "0.7", "-n", "2", "--json").stdout)
    assert guides(answer) == [("top-k", 3), ("temperature", 0.7)]


@pytest.mark.parametrize("name", ["-n", "--max-tokens", "--n-predict", "--max-new-tokens"])
def test_the_number_of_tokens_has_many_names(name: str, tiny: str) -> None:  # noqa: F811
    assert len(told("w5 w9", "-m", tiny, name, "3")["tokens"]) == 3


def test_minus_one_is_no_limit_and_no_seed(tiny: str) -> None:  # noqa: F811
    answer = told("w5 w9", "-m", tiny, "-n", "-1", "--seed", "-1")
    assert answer["finish_reason"] in ("stop", "length")
    assert len(answer["tokens"]) > 20
    assert len(told("w5 w9", "-m", tiny, "-n", "-1", "--ctx-size", "10")["tokens"]) == 8
    wrong = call("run", "w5", "-m", tiny, "--ctx-size", "97", code=2)
    assert "--ctx-size 97 is more than the context" in wrong.stderr.replace("\n", " ")


def test_prompts_from_files_and_pipes(tiny: str, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "prompt.txt").write_text("w5 w9 w12")
    common = ("-m", tiny, "-n", "6")
    wanted = told("w5 w9 w12", *common)["tokens"]
    assert told("-f", str(tmp_path / "prompt.txt"), *common)["tokens"] == wanted
    assert told(*common, input="w5 w9 w12")["tokens"] == wanted
    assert told("-", *common, input="w5 w9 w12")["tokens"] == wanted
    both = call("run", "w5", "-f", str(tmp_path / "prompt.txt"), *common, code=2)
    assert "leave out one of them" in both.stderr
    assert "no such file" in call("run", "-f", "/nowhere.txt", *common, code=2).stderr


def test_a_terminal_is_no_prompt(tiny: str, monkeypatch: Any) -> None:  # noqa: F811
    from decodery.cli import reading

    monkeypatch.setattr(reading.sys, "stdin", type("Terminal", (), {"isatty": lambda _: True})())
    with pytest.raises(DecoderyError, match="there is no prompt: give one, name a file with -f FILE"):
        reading.prompt_of(None)


def test_as_a_module_and_its_version() -> None:
    shown = subprocess.run([sys.executable, "-m", "decodery", "--version"], capture_output=True, text=True, timeout=60)
    assert shown.stdout == f"decodery {decodery.__version__}\n"


def test_threads_reach_all_that_computes(tiny: str, monkeypatch: Any) -> None:  # noqa: F811
    import torch

    before = torch.get_num_threads()
    monkeypatch.setenv("DECODERY_THREADS", "2")  # what a command sets goes with the test
    try:
        told("w5", "-m", tiny, "-n", "2", "--threads", "1")
        assert torch.get_num_threads() == 1
        monkeypatch.setenv("DECODERY_THREADS", "many")
        with pytest.raises(DecoderyError, match="DECODERY_THREADS"):
            decodery.load(tiny)
    finally:
        torch.set_num_threads(before)


def test_an_interrupt_shows_the_figures_so_far(tiny: str, monkeypatch: Any) -> None:  # noqa: F811
    from decodery.run.answer import Stream

    step, count = Stream.__next__, iter(range(99))

    def interrupted(self: Stream) -> Any:
        if next(count) == 3:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Stream, "__next__", interrupted)
    result = call("run", "w5 w9", "-m", tiny, "-n", "9", "-d", "none", code=130)
    assert "3 tokens" in result.stderr
    assert "stopped" in result.stderr
    assert "error" not in result.stderr


SAMPLING: list[tuple[dict[str, Any], list[str]]] = [
    ({}, []),
    ({"temperature": 0.6, "top_p": 0.9}, []),
    ({"repetition_penalty": 1.1}, ["repetition:1.1"]),
    ({"do_sample": True}, ["temperature:1.0", "top-k:50"]),
    ({"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.1},
     ["repetition:1.1", "temperature:0.6", "top-k:20", "top-p:0.95", "min-p:0.05"]),
    ({"do_sample": True, "top_k": 0, "no_repeat_ngram_size": 3}, ["no-repeat-ngram:3", "temperature:1.0"]),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "wanted"), SAMPLING)
def test_the_model_says_how_it_is_sampled(fields: dict[str, Any], wanted: list[str], tmp_path: Path) -> None:
    assert sampling_of(transformers.GenerationConfig(**fields)) == wanted
    words = tokenizer()
    words.chat_template = CHAT
    network("llama").save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps(fields | {"eos_token_id": 2}))
    model = decodery.load(tmp_path)
    assert model.facts.sampling == wanted
    plain = decodery.decode(model, PROMPTS[0], max_new_tokens=6, seed=1)
    drawn = decodery.decode(model, PROMPTS[0], max_new_tokens=6, seed=1, sampling="model")
    same = decodery.decode(model, PROMPTS[0], max_new_tokens=6, seed=1, guide=wanted)
    assert drawn.tokens == same.tokens
    assert plain.tokens == decodery.decode(model, PROMPTS[0], max_new_tokens=6).tokens, "greedy unless it is asked for"
    shown = call("run", "w5 w9", "-m", str(tmp_path), "-n", "2")
    assert ("sampled as the model says" in shown.stderr) == bool(wanted)
    assert "sampled as" not in call("run", "w5 w9", "-m", str(tmp_path), "-n", "2", "-t", "0").stderr


def test_sampling_is_one_way_or_the_other() -> None:
    model = decodery.load((network("llama"), tokenizer()))
    with pytest.raises(DecoderyError, match="no guides beside it"):
        decodery.decode(model, PROMPTS[0], sampling="model", guide="top-k:3")
    with pytest.raises(DecoderyError, match='sampling= takes "model"'):
        decodery.decode(model, PROMPTS[0], sampling="greedy")  # type: ignore[call-overload]


def model() -> Any:
    return decodery.load((network("llama"), tokenizer()))


def test_several_answers_to_several_prompts() -> None:
    loaded = model()
    options: Any = {"guide": "temperature:0.9", "seed": 3, "max_new_tokens": 5, "ignore_eos": True}
    both = decodery.decode(loaded, PROMPTS[:2], n=3, **options)
    assert [len(answers) for answers in both] == [3, 3]
    assert [one.tokens for one in both[0]] == [
        one.tokens for one in decodery.decode(loaded, PROMPTS[0], n=3, **options)
    ]
    assert [[one.tokens] for one in decodery.decode(loaded, PROMPTS[:2], max_new_tokens=4)] == [
        [one.tokens for one in answers] for answers in decodery.decode(loaded, PROMPTS[:2], n=1, max_new_tokens=4)
    ]
    with pytest.raises(DecoderyError, match="n must be at least 1"):
        decodery.decode(loaded, PROMPTS[:2], n=0)


def test_token_ids_end_an_answer() -> None:
    loaded = model()
    plain = decodery.decode(loaded, PROMPTS[0], max_new_tokens=12, ignore_eos=True).tokens
    ended = decodery.decode(loaded, PROMPTS[0], max_new_tokens=12, ignore_eos=True, stop=plain[4])
    assert ended.tokens == plain[: plain.index(plain[4]) + 1]
    assert ended.finish_reason == "stop"
    mixed = decodery.decode(loaded, PROMPTS[0], max_new_tokens=12, ignore_eos=True, stop=["nowhere", plain[2]])
    assert mixed.tokens == plain[: plain.index(plain[2]) + 1]
    for wrong in ("", 2.5, True, ["a", None]):
        with pytest.raises(DecoderyError, match="non-empty texts and token ids"):
            decodery.decode(loaded, PROMPTS[0], stop=[wrong] if not isinstance(wrong, list) else wrong)


def test_a_stream_is_closed_by_its_block_and_complete_at_any_moment() -> None:
    loaded, session = model(), None
    session = loaded.session()
    with decodery.stream(
        loaded, PROMPTS[0], session=session, max_new_tokens=9, ignore_eos=True, draft="none"
    ) as pieces:
        for count, _ in enumerate(pieces, 1):
            assert len(pieces.output.tokens) == count
            if count == 3:
                break
    assert not session.busy
    assert len(pieces.output.tokens) == 3
    assert pieces.output.text


def test_a_stream_in_an_event_loop() -> None:
    import asyncio

    async def run() -> list[str]:
        return [piece.text async for piece in decodery.stream(model(), PROMPTS[0], max_new_tokens=6, ignore_eos=True)]

    assert "".join(asyncio.run(run())) == decodery.decode(model(), PROMPTS[0], max_new_tokens=6, ignore_eos=True).text


@pytest.mark.parametrize("length", [1, 5, 70])
def test_the_score_of_a_text(length: int) -> None:
    import torch

    loaded, prompt = model(), [3, 4, 5]
    after = [(i * 7) % 50 + 3 for i in range(length)]
    found = decodery.score(loaded, prompt, after)
    rows = network("llama")(torch.tensor([[*prompt, *after]])).logits[0].log_softmax(-1)
    wanted = [float(rows[len(prompt) - 1 + i, token]) for i, token in enumerate(after)]
    assert found.logprobs == pytest.approx(wanted, abs=1e-4)
    assert found.logprob == pytest.approx(sum(wanted), abs=1e-3)
    assert found.tokens == tuple(after)
    best = decodery.decode(loaded, prompt, max_new_tokens=4, ignore_eos=True).tokens
    assert decodery.score(loaded, prompt, best).greedy
    assert not decodery.score(loaded, prompt, [*best[:-1], best[-1] % 50 + 4]).greedy
    text = decodery.score(loaded, "w5 w9", " w12 w7")
    assert len(text.tokens) == 2
    for wrong in ([], "", [5] * 200):
        with pytest.raises(DecoderyError):
            decodery.score(loaded, prompt, wrong)


def test_objects_of_transformers_are_taken_as_they_are() -> None:
    import torch

    words = tokenizer()
    loaded, bare = model(), decodery.load(network("llama"))
    assert bare.tokenizer is None
    wanted = decodery.decode(loaded, "w5 w9 w12", max_new_tokens=4).tokens
    ids = words("w5 w9 w12").input_ids
    for prompt in (ids, torch.tensor(ids), torch.tensor([ids]), words("w5 w9 w12"), words("w5 w9 w12", return_tensors="pt"),
                   words(["w5 w9 w12"])):  # fmt: skip
        assert decodery.decode(loaded, prompt, max_new_tokens=4).tokens == wanted
    assert decodery.decode(bare, ids, max_new_tokens=4).tokens == wanted

    class Adapted:
        def get_base_model(self) -> Any:
            return network("llama")

    assert decodery.load((Adapted(), words)).facts.kind == "LlamaForCausalLM"
    for wrong in (None, 3, (None, None)):
        with pytest.raises(DecoderyError, match="a model is a hub id"):
            decodery.load(wrong)


def test_what_a_notebook_completes() -> None:
    assert {"load", "decode", "score", "hf", "__version__"} <= set(dir(decodery))
    assert not {"Any", "TYPE_CHECKING", "import_module"} & set(dir(decodery))
    assert all(hasattr(decodery, name) for name in dir(decodery))


@pytest.mark.parametrize(("name", "hint"), [("llama3.2", "meta-llama/"), ("qwen3:4b", "Qwen/"), ("nobody/nothing", "")])
def test_a_hub_that_cannot_be_reached_is_told_at_once(name: str, hint: str, monkeypatch: Any) -> None:
    import time

    monkeypatch.setattr("decodery.model.resolve.reachable", lambda: False)
    monkeypatch.setattr("decodery.model.load.reachable", lambda: False)
    start = time.monotonic()
    for find in (decodery.load, decodery.resolve):
        with pytest.raises(DecoderyError) as told:
            find(name)
        assert hint in str(told.value)
        assert ":" in name or "cannot be reached from here" in str(told.value)
    assert time.monotonic() - start < 10


def test_a_notebook_shows_text_figures_and_candidates() -> None:
    output = decodery.decode(model(), PROMPTS[0], search="beam:width=2", max_new_tokens=4)
    output.text += "<b>"
    shown = output._repr_html_()
    assert "&lt;b&gt;" in shown
    assert "tokens/forward" in shown
    assert shown.count("<tr>") == 1 + len(output.candidates)


def test_a_suite_comes_with_the_package() -> None:
    from decodery.bench.suites import tasks_of

    tasks = tasks_of("mini")
    assert len(tasks) == 60
    assert len({task.category for task in tasks}) == 6
    assert len({task.turns for task in tasks}) == 60
    assert len(tasks_of("mini", limit=12)) == 12
