"""Files and folders that are whole or not there at all."""

from __future__ import annotations

import logging
import multiprocessing
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from decodery.core import files
from decodery.core.files import locked, make_once, write_folder, write_whole


def test_a_file_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: Any) -> None:
    file = tmp_path / "a"
    write_whole(file, "one \N{SNOWMAN}")
    assert file.read_bytes() == "one \N{SNOWMAN}".encode()
    file.chmod(0o640)
    write_whole(file, b"two")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    for where in ("os.fsync", "os.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(where, lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            with pytest.raises(OSError, match=f"cannot write {file}: No space left on device"):
                write_whole(file, b"three")
    assert file.read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a"]


def test_a_link_stays_a_link_and_what_is_no_file_stays(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    for wrong in (tmp_path, Path("/dev/null"), tmp_path / "no" / "folder", tmp_path / "real" / "below"):
        with pytest.raises(OSError, match="cannot write"):
            write_whole(wrong, "x")
    assert Path("/dev/null").is_char_device()


def test_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    threads = [threading.Thread(target=write_whole, args=(tmp_path / "a", bytes([i]) * 10_000)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set((tmp_path / "a").read_bytes())) == 1
    assert os.listdir(tmp_path) == ["a"]


def test_a_folder_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    def half(folder: Path) -> None:
        (folder / "x").write_text("x")
        raise KeyboardInterrupt

    for make in (write_folder, make_once):
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "made", half)
        assert not (tmp_path / "made").exists()
        assert not list(tmp_path.glob("*.partial"))
    write_folder(tmp_path / "made", lambda folder: (folder / "x").write_text("x"))
    with pytest.raises(OSError, match=r"cannot make .*made: it exists already"):
        write_folder(tmp_path / "made", lambda _: None)
    make_once(tmp_path / "made", lambda _: pytest.fail("made twice"))


def test_who_waits_says_so_and_not_for_ever(tmp_path: Path, monkeypatch: Any, caplog: Any) -> None:
    caplog.set_level(logging.INFO, "decodery")
    context = multiprocessing.get_context("fork")
    begun, end = context.Event(), context.Event()

    def hold() -> None:
        with locked(tmp_path / "made"):
            begun.set()
            end.wait()

    holder = context.Process(target=hold)
    holder.start()
    begun.wait()
    monkeypatch.setattr(files, "PATIENCE", 0.2)
    try:
        with pytest.raises(OSError, match=r"cannot make .*another process has been making it"):
            make_once(tmp_path / "made", lambda _: None)
    finally:
        end.set()
        holder.join()
    assert "another process is making" in caplog.text
    assert make_once(tmp_path / "made", lambda _: None).is_dir()
