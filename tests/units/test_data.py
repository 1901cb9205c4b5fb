"""The prompts of benchmarks: fetched from a server on this machine and from files."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from decodery.bench.data import SOURCES, Source, get, state
from decodery.bench.suites import tasks_of
from decodery.core.errors import DecoderyError

from .test_cli import call

QUESTIONS = b'{"question_id": 1, "category": "qa", "turns": ["Who wrote Ulysses?"]}\n'


class Answers(BaseHTTPRequestHandler):
    """Serves the questions: whole, packed, cut off, stalled, or not at all."""

    def do_GET(self) -> None:
        body = gzip.compress(QUESTIONS) if self.path.endswith(".gz") else QUESTIONS
        if self.path == "/absent":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/cut":
            self.wfile.write(body[:20])
            return
        if self.path == "/stall":
            self.wfile.write(body[:20])
            self.wfile.flush()
            time.sleep(30)
            return
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    found = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The data folder; the suite spec-bench is the file of one question."""
    known = replace(SOURCES["spec-bench"], digest=hashlib.sha256(QUESTIONS).hexdigest(), size=len(QUESTIONS), prompts=1)
    monkeypatch.setitem(SOURCES, "spec-bench", known)
    monkeypatch.setenv("DECODERY_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def files(folder: Path) -> list[str]:
    return (
        sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()) if folder.exists() else []
    )


@pytest.mark.parametrize("path", ["/question.jsonl", "/question.jsonl.gz"])
def test_a_suite_is_fetched_checked_and_read(folder: Path, server: str, path: str) -> None:
    told = call("data", "get", "spec-bench", "--from", server + path)
    assert files(folder) == ["spec_bench/question.jsonl"]
    assert SOURCES["spec-bench"].digest in told.stderr
    assert tasks_of("spec-bench")[0].turns == ("Who wrote Ulysses?",)
    rows = {row["suite"]: row for row in json.loads(call("data", "list", "--json").stdout)}
    assert (rows["spec-bench"]["state"], rows["gsm8k"]["state"]) == ("here", "not here")
    call("data", "get", "spec-bench", "--from", "http://127.0.0.1:1/nobody")  # it is here: nothing is fetched


def test_without_from_the_origin_is_asked(folder: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Source, "url", property(lambda self: f"{server}/{self.path}"))
    get("spec-bench")
    assert files(folder) == ["spec_bench/question.jsonl"]


def test_a_file_serves_as_well(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "q").write_bytes(QUESTIONS)
    call("data", "get", "spec-bench", "--from", str(tmp_path / "q"))
    assert files(folder) == ["spec_bench/question.jsonl"]


@pytest.mark.parametrize(
    ("name", "path", "told"),
    [
        ("gsm8k", "/question.jsonl", f"its SHA-256 is {hashlib.sha256(QUESTIONS).hexdigest()}, not 3730d312"),
        ("spec-bench", "/absent", "the server says 404"),
        ("spec-bench", "/cut", "20 of"),
        ("mini", "/", "comes with the package"),
        ("spec_bench", "/", "suites: spec-bench, mt-bench"),
    ],
)
def test_what_is_not_the_suite_leaves_nothing(folder: Path, server: str, name: str, path: str, told: str) -> None:
    result = call("data", "get", name, "--from", server + path, code=2)
    assert told in " ".join(result.stderr.split())
    assert files(folder) == []


def test_offline_says_what_to_do(folder: Path) -> None:
    told = call("data", "get", "spec-bench", "--from", "http://127.0.0.1:1/q", code=2).stderr
    assert "decodery data get spec-bench --from FILE" in told
    assert "no such file" in call("data", "get", "spec-bench", "--from", "ftp://somewhere", code=2).stderr


def test_a_damaged_or_huge_file_is_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torn.gz").write_bytes(gzip.compress(QUESTIONS)[:-9])
    with pytest.raises(DecoderyError, match="damaged gzip"):
        get("spec-bench", str(tmp_path / "torn.gz"))
    monkeypatch.setattr("decodery.bench.data.LARGEST", 10)
    (tmp_path / "large").write_bytes(QUESTIONS)
    with pytest.raises(DecoderyError, match="more than"):
        get("spec-bench", str(tmp_path / "large"))


def test_another_file_in_its_place_is_kept(folder: Path, server: str) -> None:
    place = folder / "spec_bench" / "question.jsonl"
    place.parent.mkdir(parents=True)
    place.write_text("mine\n")
    with pytest.raises(DecoderyError, match="another file"):
        get("spec-bench", f"{server}/q")
    assert place.read_text() == "mine\n"
    assert "another file" in call("data", "list").stdout


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path, folder: Path, server: str) -> None:
    folder.write_text("a file where the folder should be")
    with pytest.raises(DecoderyError, match="set DECODERY_DATA"):
        get("spec-bench", f"{server}/q")


def test_a_kill_leaves_nothing(folder: Path, server: str) -> None:
    folder.mkdir()
    code = f"from decodery.bench.data import get; print('go', flush=True); get('spec-bench', '{server}/stall')"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ.copy()) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
    assert files(folder) == []


def test_a_missing_suite_names_the_command(folder: Path) -> None:
    for name in SOURCES:
        with pytest.raises(DecoderyError, match=f"decodery data get {name}"):
            tasks_of(name)


@pytest.mark.parametrize("name", SOURCES)
def test_this_projects_own_data_are_told_to_be_parts(name: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECODERY_DATA", str(data))
    assert state(SOURCES[name]).startswith(("here", "another file, or a part"))
    assert SOURCES[name].place().stat().st_size <= SOURCES[name].size
    assert tasks_of(name, limit=1)
