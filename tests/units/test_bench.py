"""The benchmark's parts, with runners that decode nothing."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("matplotlib")

from matplotlib.colors import to_hex

from decodery.bench import plots, runners
from decodery.bench.colours import FIXED, GROUND, INK, colour
from decodery.bench.driver import Bench, Record, read, timed
from decodery.bench.figures import figures
from decodery.bench.grade import code, number, passes
from decodery.bench.report import publish
from decodery.bench.run import Choice, run
from decodery.bench.runners import ALL, PEERS, PLAIN, Ours, Told, is_peer, methods, peer, peer_names
from decodery.bench.suites import Task, spread, tasks_of
from decodery.bench.sweep import told
from decodery.core.errors import DecoderyError
from decodery.core.values import Cap
from decodery.model.toy import ToyModel
from decodery.run.registry import ROLES

from ..hf.test_decode import model as tiny

EOS = frozenset({0})


class Fake:
    """Tells bursts of tokens, and counts its calls."""

    def __init__(self, name: str, bursts: list[list[int]], fails_at: int = -1) -> None:
        self.name, self.bursts, self.calls, self.fails_at = name, bursts, 0, fails_at

    def __call__(self, prompt: list[int], limit: int, mark: Any) -> Told:
        self.calls += 1
        if self.calls == self.fails_at:
            raise KeyboardInterrupt
        for burst in self.bursts:
            mark(burst)
        return Told(len(self.bursts), None, [1.0] * 99)


class Words:
    """A model that only knows its tokenizer."""

    eos, context = EOS, 1000
    text = SimpleNamespace(
        tokenizer=SimpleNamespace(chat_template="yes"), decode=lambda tokens: " ".join(map(str, tokens))
    )

    def encode(self, text: str) -> list[int]:
        return [len(word) for word in text.split()]

    def tokens(self, messages: list[dict[str, str]]) -> list[int]:
        return [n for message in messages for n in self.encode(message["content"])]


TASKS = [Task("a", "x", ("one two", "three")), Task("b", "y", ("four",))]
HEADER = {"config": {"suite": "t"}, "machine": {}, "date": "", "command": "", "left_out": [], "costs": {}}
HEADER |= {"footprints": {}}


def bench(folder: Path, *runners: Fake, config: str = "t", repeat: int = 1) -> Bench:
    header = json.loads(json.dumps(HEADER)) | {"config": {"suite": config, "repeat": repeat}}
    return Bench(Words(), runners, TASKS, 8, folder, header, repeat)  # type: ignore[arg-type]


def test_a_clock_for_all_cuts_at_the_end_and_at_the_limit() -> None:
    tokens, marks, _ = timed(Fake("x", [[1, 2], [3, 0, 9], [9]]), [1], 8, EOS)
    assert tokens == [1, 2, 3, 0]
    assert [n for _, n in marks] == [2, 4]
    assert timed(Fake("x", [[1, 2], [3, 4]]), [1], 3, EOS)[0] == [1, 2, 3]


def test_every_runner_answers_every_turn_with_plain_history(tmp_path: Path) -> None:
    seen: list[list[int]] = []

    class Watching(Fake):
        def __call__(self, prompt: list[int], limit: int, mark: Any) -> Told:
            seen.append(prompt)
            return super().__call__(prompt, limit, mark)

    plain, other = Fake(PLAIN, [[5], [6], [0]]), Watching("other", [[7, 7], [0]])
    list(bench(tmp_path, plain, other).run())
    records = read(tmp_path)
    assert len(records) == 6
    assert [3, 3, 1, 1, 1, 5] in seen  # the first turn, the plain answer "5 6 0" and the second turn


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        list(bench(tmp_path, Fake(PLAIN, [[1, 2]]), Fake("other", [[1], [2]], fails_at=3)).run())
    before = read(tmp_path)
    with (tmp_path / "records.jsonl").open("a") as file:
        file.write('{"runner": "oth')  # the machine went down while writing
    plain, other = Fake(PLAIN, [[1, 2]]), Fake("other", [[1], [2]])
    list(bench(tmp_path, plain, other).run())
    records = read(tmp_path)
    assert records[: len(before)] == before
    assert len({record.key for record in records}) == len(records) == 6
    assert plain.calls + other.calls == 6 - len(before) + 2  # and one warm-up each


def test_a_run_is_repeated_with_the_runners_in_turns(tmp_path: Path) -> None:
    order: list[str] = []

    class Noting(Fake):
        def __call__(self, prompt: list[int], limit: int, mark: Any) -> Told:
            order.append(self.name)
            return super().__call__(prompt, limit, mark)

    list(bench(tmp_path, Noting(PLAIN, [[1]]), Noting("other", [[1]]), repeat=3).run())
    records = read(tmp_path)
    assert len({record.key for record in records}) == len(records) == 18
    turns = order[2:]  # without the warm-up
    assert all(set(turns[i : i + 2]) == {PLAIN, "other"} for i in range(0, 18, 2))
    assert turns[0] != turns[6]  # who begins changes from repetition to repetition
    entries = {entry.runner: entry for entry in publish(tmp_path)}
    assert (entries["other"].prompts, entries["other"].answers, entries["other"].same) == (3, 9, 9)
    assert len(entries["other"].repetitions) == 3
    with pytest.raises(DecoderyError, match="repeat differ"):
        list(bench(tmp_path, Fake(PLAIN, [[1]]), repeat=2).run())


def test_a_run_of_before_there_were_repetitions_goes_on(tmp_path: Path) -> None:
    old = bench(tmp_path, Fake(PLAIN, [[1]]))
    del old.header["config"]["repeat"]
    list(old.run())
    list(bench(tmp_path, Fake(PLAIN, [[1]])).run())
    assert len(read(tmp_path)) == 3


def test_memory_and_repetitions_do_not_go_together(tmp_path: Path) -> None:
    """A drafter that remembers would have seen all answers in the first repetition."""
    with pytest.raises(DecoderyError, match="--keep and --repeat"):
        run(Choice("mini", keep=True, repeat=2), TASKS, tmp_path, SimpleNamespace())  # type: ignore[arg-type]


def test_all_training_free_takes_each_drafter_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    toys = {"fast": ToyModel(can=frozenset({Cap.TREE})), "torch": ToyModel()}
    monkeypatch.setattr(runners, "load", lambda _, backend: toys[backend])
    found, left_out = methods([PLAIN, ALL], "toy", "fast", "auto", {})
    names = [method.name for method in found]
    assert names[0] == PLAIN
    assert names[-1] == f"{PLAIN}@torch"
    assert {"ngram", "mix", "model@torch"} <= set(names)
    assert len(names) == len(set(names))
    assert {"datastore", "pearl"} <= {reason.partition(":")[0] for reason in left_out}
    assert len(found) + len(left_out) == len(ROLES["draft"].parts) + 1


def test_drafters_remember_only_where_asked_to() -> None:
    def forwards(keep: bool) -> list[int]:
        runner = Ours("recycling", tiny("llama"), "recycling", "off", keep=keep)
        return [runner([5, 9, 12, 7], 30, lambda _: None).forwards or 0 for _ in range(2)]

    first, second = forwards(keep=False)
    assert first == second
    first, second = forwards(keep=True)
    assert second < first


def test_another_run_is_not_continued(tmp_path: Path) -> None:
    list(bench(tmp_path, Fake(PLAIN, [[1]])).run())
    with pytest.raises(DecoderyError, match="suite"):
        list(bench(tmp_path, Fake(PLAIN, [[1]]), config="other").run())


def test_turns_that_are_too_long_are_left_out_and_counted(tmp_path: Path) -> None:
    run = bench(tmp_path, Fake(PLAIN, [[1], [2]]))
    run.header["config"]["turns"] = 4
    run.tasks = [*TASKS, Task("long", "x", ("word " * 995,))]
    list(run.run())
    assert len(publish(tmp_path)) == 1
    assert "1 of 4 turns were left out" in (tmp_path / "summary.md").read_text()
    assert "1 of 4 turns were left out" in (tmp_path / "report.html").read_text()


def record(runner: str, task: str, category: str, seconds: float, tokens: int = 11, **more: Any) -> Record:
    marks = [(1.0, 1), (1.0 + seconds, tokens)]
    return Record(runner, task, category, 0, 5, list(range(1, tokens + 1)), marks, tokens, **more)


def test_ratios_are_means_over_categories() -> None:
    records = [record(PLAIN, "a", "x", 1.0), record(PLAIN, "b", "y", 2.0)]
    records += [record("fast", "a", "x", 0.25), record("fast", "b", "y", 1.0)]
    plain, fast = figures(records, [PLAIN])
    assert plain.ratios[PLAIN] == (pytest.approx(1), None, None)
    assert fast.categories[PLAIN] == pytest.approx({"x": 4, "y": 2})
    assert fast.ratios[PLAIN][0] == pytest.approx(3)
    assert fast.speed == pytest.approx(20 / 1.25)
    assert fast.whole == pytest.approx(22 / 3.25)
    assert fast.same == 2


def test_an_interval_needs_two_measurements_of_each_category() -> None:
    def both(task: str, category: str, seconds: float, **more: Any) -> list[Record]:
        return [record(PLAIN, task, category, 1.0, **more), record("fast", task, category, seconds, **more)]

    records = [*both("a", "x", 0.5), *both("b", "x", 0.25), *both("c", "y", 0.5)]
    assert figures(records, [PLAIN])[1].ratios[PLAIN][1:] == (None, None)
    assert figures(records, [PLAIN])[1].speed_range is None
    records += both("c", "y", 0.25, repetition=1)
    mean, low, high = figures(
        [*records, *both("a", "x", 0.5, repetition=1), *both("b", "x", 0.25, repetition=1)], [PLAIN]
    )[1].ratios[PLAIN]
    assert low is not None
    assert high is not None
    assert 2 <= low < mean < high <= 4
    assert mean == pytest.approx(20 / 7.5)


def test_the_turns_of_a_conversation_are_drawn_together() -> None:
    """Two turns of one conversation are one measurement, not two."""
    records = []
    for turn, seconds in ((0, 0.5), (1, 0.25)):
        for runner, took in ((PLAIN, 1.0), ("fast", seconds)):
            records.append(record(runner, "a", "x", took))
            records[-1].turn = turn
    assert figures(records, [PLAIN])[1].ratios[PLAIN][1:] == (None, None)


def test_a_difference_is_counted_unless_it_is_a_tie() -> None:
    plain = record(PLAIN, "a", "x", 1.0, gaps=[1.0] * 5 + [1e-4] + [1.0] * 5)
    late, early = record("late", "a", "x", 1.0), record("early", "a", "x", 1.0)
    late.tokens[5], early.tokens[4] = 99, 99
    _, tie, differs = figures([plain, late, early], [PLAIN])
    assert (tie.same, tie.ties) == (1, 1)
    assert (differs.same, differs.ties) == (0, 0)


def test_turns_that_not_all_have_answered_do_not_count() -> None:
    records = [record(PLAIN, "a", "x", 1.0), record(PLAIN, "b", "x", 1.0), record("fast", "a", "x", 0.5)]
    assert {entry.prompts for entry in figures(records, [PLAIN])} == {1}


def test_a_report_stands_alone(tmp_path: Path) -> None:
    list(bench(tmp_path, Fake(PLAIN, [[1], [2], [3]]), Fake("transformers", [[1], [2], [3]])).run())
    publish(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "{{" not in page
    assert "<svg" in page
    assert "http://www.w3.org" in page
    assert "src=" not in page
    assert "prefers-color-scheme: dark" in page
    assert "currentColor" in page
    drawn = page.partition("</style>")[2]
    assert INK not in drawn  # would not be seen on a dark ground
    assert GROUND not in drawn
    assert 'name="viewport"' in page
    assert "| none |" in (tmp_path / "summary.md").read_text()
    assert not list(tmp_path.glob(".*partial"))
    for name in ("speed", "against-none", "against-transformers"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        assert "<svg" in (tmp_path / f"{name}.svg").read_text()


MACHINE = {
    "processor": "Some & CPU",
    "cores": 2,
    "torch": "2.13.0",
    "decodery": "0.1.0",
    "commit": "abc1234",
    "cuda": "none",
}


def test_every_title_says_which_run_it_was(tmp_path: Path) -> None:
    run = bench(tmp_path, Fake(PLAIN, [[1], [2]]), Fake("other_one", [[1, 2]]), repeat=2)
    run.header |= {"machine": MACHINE, "date": "2026-11-28T09:23+00:00"}
    run.header |= {"model": "tiny (1 M parameters)", "costs": {"x": {1: 2.0}}}
    list(run.run())
    publish(tmp_path)
    words = "tiny (1 M parameters) · Some & CPU, 2 cores · decodery 0.1.0 (abc1234), torch 2.13.0 · 2026-11-28"
    page = (tmp_path / "report.html").read_text()
    assert page.count(words.replace("&", "&amp;")) == 1 + 3  # the page's own, and one below each picture
    assert page.count("t, 2 repetitions") == 2 + 3
    assert words in (tmp_path / "summary.md").read_text()
    table = (tmp_path / "summary.tex").read_text()
    assert r"\caption{t, 2 repetitions. tiny (1 M parameters) $\cdot$ Some \& CPU" in table
    assert r"other\_one" in table
    assert table.count(r"\\") == 3
    with (tmp_path / "summary.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["method"] for line in lines] == [PLAIN, "other_one"]
    assert {line["commit"] for line in lines} == {"abc1234"}
    assert float(lines[1]["tokens_per_forward"]) == 2.0


def test_a_sweep_says_where_it_was_measured() -> None:
    found = {"config": {"model": "tiny", "rounds": 3}, "machine": MACHINE, "date": "2026-11-28T09:23+00:00"}
    found |= {"seconds from the shell to the first token": 1.0, "seconds to the first token": {}}
    shown = told({**found, "tokens a second of a batch": {}})
    words = "tiny · Some & CPU, 2 cores · decodery 0.1.0 (abc1234), torch 2.13.0 · 2026-11-28; medians of 3"
    assert shown.startswith(words)


def test_a_sweep_needs_nothing_to_draw_with() -> None:
    code = "import sys, decodery.bench.sweep; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_report_is_written_anew_from_what_was_recorded(tmp_path: Path) -> None:
    list(bench(tmp_path, Fake(PLAIN, [[1], [2], [3]]), Fake("transformers", [[1], [2], [3]])).run())
    publish(tmp_path)
    written = (
        "report.html",
        "summary.md",
        "summary.csv",
        "summary.tex",
        "summary.json",
        "speed.svg",
        "speed.pdf",
        "speed.png",
    )
    before = {name: (tmp_path / name).read_bytes() for name in written}
    publish(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in written} == before
    (tmp_path / "records.jsonl").unlink()  # of older results only the summary is kept
    for name in written:
        if name != "summary.json":
            (tmp_path / name).unlink()
    publish(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in written} == before
    with pytest.raises(DecoderyError, match=r"no run\.json"):
        publish(tmp_path / "nowhere")


def test_a_method_has_one_colour_everywhere() -> None:
    assert len({*FIXED.values()}) == len(FIXED)
    assert colour("suffix:factor=16&residual@torch") == colour("suffix") == FIXED["suffix"]
    assert colour("transformers-assisted=some/model") == FIXED["transformers-assisted"]
    assert colour("dyspec") == colour("dyspec:nodes=9") == FIXED["dyspec"]
    assert colour("mine") == "#94cf59"  # of a part from outside: the same in every process
    everyone = [*ROLES["draft"].parts, *PEERS]
    assert len({colour(name) for name in everyone}) == len(everyone)


def test_bars_have_the_colour_of_their_method_in_each_picture() -> None:
    records = [
        record(name, task, category, 1.0) for name in (PLAIN, "suffix", "openvino") for task, category in ("ax", "by")
    ]
    words = plots.Told("a run", "a machine")
    for picture in (
        plots.speeds(figures(records, [PLAIN]), words),
        plots.categories(figures(records, [PLAIN]), PLAIN, words),
    ):
        picture.draw_without_rendering()
        named, seen = [label.get_text() for label in picture.axes[0].get_yticklabels()], 0
        for axes in picture.axes:
            assert axes.get_legend() is None  # nothing can lie over the data: rows are named at the axis
            for name, bar in zip(named, axes.patches, strict=True):
                seen += 1
                assert to_hex(bar.get_facecolor()) == colour(name)
                assert bool(bar.get_hatch()) == is_peer(name)
        assert seen == 6


def test_what_is_not_installed_is_found_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import decodery.bench.run as module

    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "matplotlib" else True)
    monkeypatch.setattr(module, "methods", lambda *_: pytest.fail("models were loaded"))
    with pytest.raises(DecoderyError, match="pip install matplotlib"):
        run(Choice("mini"), TASKS, tmp_path, SimpleNamespace())  # type: ignore[arg-type]
    monkeypatch.setattr(module, "find_spec", lambda _: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    shown: list[str] = []

    def stop(*_: Any) -> None:
        assert "llamacpp is left out: it needs pip install llama-cpp-python" in shown[0]
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "methods", stop)
    with pytest.raises(KeyboardInterrupt):
        run(Choice("mini", peers="llamacpp"), TASKS, tmp_path, SimpleNamespace(print=shown.append))  # type: ignore[arg-type]


def test_suites(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"question_id": 7, "category": "writing", "turns": ["a", "b"]}\n\n{"prompt": "c"}\n')
    first, second = tasks_of("spec-bench", file)
    assert (first.category, first.turns, second.turns) == ("mt-bench", ("a", "b"), ("c",))
    assert tasks_of("mt-redundant", file)[0].group(1) == "turn 2"
    file.write_text('{"turns": []}\n')
    with pytest.raises(DecoderyError, match="line 1"):
        tasks_of("spec-bench", file)
    with pytest.raises(DecoderyError, match="no such file"):
        tasks_of("prompts", tmp_path / "absent")
    with pytest.raises(DecoderyError, match="suites"):
        tasks_of("nonsense")


def test_missing_data_says_where_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECODERY_DATA", str(tmp_path))
    with pytest.raises(DecoderyError, match="hemingkx/Spec-Bench"):
        tasks_of("spec-bench")


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=20), st.integers(1, 25))
def test_a_limit_is_spread_over_the_categories(categories: list[str], limit: int) -> None:
    tasks = [Task(str(i), category, ("x",)) for i, category in enumerate(categories)]
    kept = spread(tasks, limit)
    assert len(kept) == min(limit, len(tasks))
    counts = [sum(task.category == c for task in kept) for c in set(categories)]
    free = [n for c, n in zip(set(categories), counts, strict=True) if n < categories.count(c)]
    assert not free or max(counts) - min(free) <= 1


def test_peers_by_name() -> None:
    assert peer_names("transformers,llamacpp-lookup") == ["transformers", "transformers-lookup", "llamacpp-lookup"]
    with pytest.raises(DecoderyError, match="peers:"):
        peer_names("vllm")


def test_a_peer_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(DecoderyError, match="pip install llama-cpp-python"):
        peer("llamacpp", "smollm2", Words())  # type: ignore[arg-type]


def test_grading() -> None:
    prompt, test = "def twice(x):\n", "def check(f):\n    assert f(2) == 4\n"
    assert passes(prompt, "```python\ndef twice(x):\n    return 2 * x\n```", test, "twice")
    assert passes(prompt, "    return 2 * x\n", test, "twice")
    assert not passes(prompt, "```python\ndef twice(x):\n    return x\n```", test, "twice")
    assert not passes(prompt, "I do not know.", test, "twice")
    assert code("p", "```\nx = 1\n```") == "px = 1\n"
    assert number("So it is $1,234.50.") == 1234.5
    assert number("none") is None


def test_a_program_that_hangs_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decodery.bench.grade.SECONDS", 1)
    assert not passes("def f():\n", "    while True: pass\n", "def check(f): f()\n", "f")
