"""The published prompts that the benchmark knows: where each comes from, and how it gets to this machine."""

from __future__ import annotations

import gzip
import hashlib
import os
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import platformdirs

from decodery.core.errors import DecoderyError
from decodery.core.files import write_whole

SECONDS = 30.0
"""How long a server may be silent."""

LARGEST = 64 << 20
"""Bytes: more than any suite has."""


@dataclass(frozen=True)
class Source:
    """A suite's file at a commit that cannot change.

    ``file``: its place below the data folder; ``parts``: other places, where a part of it may lie; ``digest``: SHA-256 of the
    content, unpacked where the origin packs it; ``size``: bytes of the same; ``licence``: what the origin states.
    """

    repository: str
    commit: str
    path: str
    file: str
    licence: str
    prompts: int
    size: int
    digest: str
    parts: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """Where it is downloaded."""
        return f"https://raw.githubusercontent.com/{self.repository}/{self.commit}/{self.path}"

    def place(self) -> Path:
        """Where it lies or should lie: the first of its places that has a file, else the first."""
        places = [data_dir() / file for file in (self.file, *self.parts)]
        return next((place for place in places if place.is_file()), places[0])


SOURCES = {
    "spec-bench": Source(
        "hemingkx/Spec-Bench",
        "fd2c1cd7d2201ef71db4c5f4e455008f017967bf",
        "data/spec_bench/question.jsonl",
        "spec_bench/question.jsonl",
        "Apache-2.0",
        480,
        698768,
        "4b6d33e79484f9841c487ee87d1cf6aa8c6066f61d5d482ff09e5a007fafdf04",
    ),
    "mt-bench": Source(
        "lm-sys/FastChat",
        "0e6d3e4beaab66f4d3f93db72541a4abab8af28d",
        "fastchat/llm_judge/data/mt_bench/question.jsonl",
        "mt_bench/question.jsonl",
        "Apache-2.0",
        80,
        48929,
        "119565adbab82227089cefdb44c8d7e2cf04dc0a0ec233634c82e7d4e2a944f7",
    ),
    "mt-redundant": Source(
        "RazvanDu/CopySpec",
        "8797be892b56d9fb45b4a0d8b67c38eb80d40499",
        "FastChat/fastchat/llm_judge/data/mt_bench/question_redundant.jsonl",
        "mt_bench/question_redundant.jsonl",
        "MIT (its FastChat part Apache-2.0)",
        80,
        53538,
        "647df7a6f5f4a19d1cb8135dd1f57afd39cb6c49b7bff4feae4eb74f44223a46",
    ),
    "humaneval": Source(
        "openai/human-eval",
        "6d43fb980f9fee3c892a914eda09951f772ad10d",
        "data/HumanEval.jsonl.gz",
        "humaneval/HumanEval.jsonl",
        "MIT",
        164,
        214438,
        "1d49078ba3e2b196b9344535bef34a43021f038fad9561d6ee7c53450609a6a2",
    ),
    "gsm8k": Source(
        "openai/grade-school-math",
        "3101c7d5072418e28b9008a6636bde82a006892c",
        "grade_school_math/data/test.jsonl",
        "gsm8k/test.jsonl",
        "MIT",
        1319,
        749738,
        "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
        ("gsm8k/test_sample.jsonl",),
    ),
}
"""Suite -> its source."""


def data_dir() -> Path:
    """``$DECODERY_DATA``, else ``../shared/data`` where that is a folder, else the user's folder for data of this program."""
    shared = Path("../shared/data")
    named = os.environ.get("DECODERY_DATA")
    return Path(named) if named else shared if shared.is_dir() else Path(platformdirs.user_data_dir("decodery"))


def state(source: Source) -> str:
    """What of a source is here: "here", "not here", or "another file" and where."""
    place = source.place()
    if not place.is_file():
        return "not here"
    return "here" if _digest(place.read_bytes()) == source.digest else f"another file, or a part of it, is at {place}"


def get(name: str, origin: str = "") -> Path:
    """Fetch a suite into the data folder, from ``origin`` (a file or a URL) where one is named; returns its place.

    The file appears whole or not at all, and only if its SHA-256 is the known one. Raises ``DecoderyError`` for unknown names,
    for what cannot be fetched or is another file, and where another file is in its place.
    """
    if name not in SOURCES:
        raise DecoderyError(
            f"there is nothing to get for {name!r}; suites: {', '.join(SOURCES)} (mini comes with the package)"
        )
    source = SOURCES[name]
    place = data_dir() / source.file
    if place.is_file():
        if _digest(place.read_bytes()) == source.digest:
            return place
        raise DecoderyError(
            f"{place} is there already and is another file; move it away, or set DECODERY_DATA to another folder"
        )
    data = _unpacked(_fetch(name, origin or source.url), origin or source.url)
    if (seen := _digest(data)) != source.digest:
        told = f"{origin or source.url} is not the {name} that is known: its SHA-256 is {seen}, not {source.digest}"
        raise DecoderyError(f"{told}. To use it nonetheless, name the file: decodery bench {name} FILE")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, data)
    except OSError as error:
        raise DecoderyError(f"{error}; set DECODERY_DATA to a folder that you may write to") from error
    return place


def _fetch(name: str, origin: str) -> bytes:
    """The bytes of a file or of what a URL names."""
    if not origin.startswith(("http://", "https://")):
        file = Path(origin).expanduser()
        if not file.is_file():
            raise DecoderyError(
                f"no such file: {origin}; --from takes a file, or a URL that begins with http:// or https://"
            )
        with file.open("rb") as opened:
            return opened.read(LARGEST + 1)
    try:
        with urlopen(Request(origin, headers={"User-Agent": "decodery"}), timeout=SECONDS) as answer:
            data: bytes = answer.read(LARGEST + 1)
            told = answer.headers.get("Content-Length")
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(error, HTTPError):
            reason = f"the server says {error.code} {error.reason}"
        offline = f"Without a network, fetch it on another machine and say: decodery data get {name} --from FILE"
        raise DecoderyError(f"cannot get {origin}: {reason}. {offline}") from error
    if told is not None and len(data) < min(int(told), LARGEST):
        raise DecoderyError(f"{origin} broke off after {len(data)} of {told} bytes; try again")
    return data


def _unpacked(data: bytes, origin: str) -> bytes:
    """The content of a gzip file, and of any other file its bytes."""
    try:
        content = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError) as error:
        raise DecoderyError(f"{origin} is a damaged gzip file: {error}") from error
    if len(content) > LARGEST:
        raise DecoderyError(f"{origin} has more than {LARGEST >> 20} MiB and is therefore none of the known suites")
    return content


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
