"""What drafters learnt, kept in a file: one for each user (and model), whichever drafters use it.

By default nothing is kept: what a drafter learns is private to its object. A file is read and written only where asked:

    draft = Recycling()
    decodery.load_memory(draft, model, "anna.memory")
    decodery.decode(model, prompt, draft=draft)
    decodery.save_memory(draft, model, "anna.memory")

It is a safetensors file of plain arrays, so reading one runs no code. Names are ``part.array``; a drafter finds its own by
the name of the part and leaves the others' in place. The size is bounded by what each part documents. Several processes may
use one file: who saves takes up first what others saved since, under a lock on ``FILE.lock``.
"""

from __future__ import annotations

import glob
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from decodery.core.errors import BadMemory
from decodery.core.files import locked, write_whole
from decodery.core.lore import Arrays, Lore
from decodery.core.part import Model, ready
from decodery.core.roles import Drafter
from decodery.core.values import NO_TOKEN, Array
from decodery.run.registry import name_of

FORMAT = "2"
DTYPES = (np.uint32, np.float64)


def save_memory(draft: Drafter, model: Model, path: str | Path) -> int:
    """Write what ``draft`` and the drafters it is made of have learnt; returns the bytes of the file.

    What other drafters kept in the file stays there, and what other processes learnt since is taken up: the file, and
    ``draft``, then know both. The file is replaced as a whole or not at all. Raises ``BadMemory`` where there is nothing to
    keep, or where the file there is of another tokenizer or no memory.
    """
    path, learners = Path(path).expanduser().resolve(), _learners(draft, model)
    try:
        if not path.parent.is_dir():
            raise OSError(f"cannot write {path}: there is no folder {path.parent}")
        with locked(path):
            held = _read(path, model) if path.exists() else {}
            written = {name: _exchange(name, lore, _of(held, name), path) for name, lore in learners.items()}
            kept = {key: array for key, array in held.items() if key.rpartition(".")[0] not in written}
            kept |= {f"{name}.{key}": array for name, arrays in written.items() for key, array in arrays.items()}
            header = {"decodery-memory": FORMAT, "tokenizer": model.fingerprint(), "crc32": str(_checksum(kept))}
            data = save(kept, metadata=header)
            for leftover in path.parent.glob(f"{glob.escape(path.name)}.*.partial"):  # of a process that was killed
                leftover.unlink(missing_ok=True)
            write_whole(path, data)
            for name, lore in learners.items():
                lore.files[path] = written[name]
    except OSError as error:
        raise BadMemory(f"the memory is not kept: {error}") from error
    return len(data)


def load_memory(draft: Drafter, model: Model, path: str | Path) -> list[str]:
    """Give ``draft`` and the drafters it is made of what the file holds for them; returns the names of those it knew.

    What ``draft`` learnt before stays. Raises ``BadMemory`` where the file is missing, damaged, of another tokenizer, or
    where the draft learns nothing.
    """
    path, learners = Path(path).expanduser().resolve(), _learners(draft, model)
    held = _read(path, model)
    known = [name for name in learners if _of(held, name)]
    for name in known:
        _exchange(name, learners[name], _of(held, name), path)
    return known


@contextmanager
def remembered(draft: Drafter, model: Model, path: str | Path | None) -> Iterator[None]:
    """Load the file at the beginning, if there is one, and save it at the end, however that comes; None: do nothing."""
    if path is None:
        yield
        return
    if Path(path).expanduser().exists():
        load_memory(draft, model, path)
    save_memory(draft, model, path)  # what cannot be saved is better said before the answer than after it
    try:
        yield
    finally:
        save_memory(draft, model, path)


def _exchange(name: str, lore: Lore, theirs: Arrays, path: Path) -> dict[str, Array]:
    """Take up what the file holds for a drafter; returns all that the drafter knows then."""
    with lore.lock:
        try:
            if theirs and _forms(theirs) != _forms(lore.arrays()):
                raise ValueError(f"its arrays are {_forms(theirs)}")
            lore.merge(theirs, lore.files.get(path, {}) if theirs else {})
            lore.files[path] = theirs
        except (ValueError, TypeError) as error:
            raise BadMemory(f"the memory {path} is not one of the draft part {name!r}: {error}") from error
        return {key: np.ascontiguousarray(array) for key, array in lore.arrays().items()}


def _learners(draft: Drafter, model: Model) -> dict[str, Lore]:
    """What the drafters with a memory have learnt with this tokenizer, by name; the second one of a name is ``name#2``."""
    found: dict[str, Lore] = {}
    try:
        waiting = [ready(draft, model)]
    except ValueError as error:
        raise BadMemory(f"the draft part {name_of(draft)[1]!r} does not fit the model: {error}") from error
    while waiting:
        part = waiting.pop(0)
        waiting += part.inner()
        if (lore := part.lore) is None or any(lore is other for other in found.values()):  # one object in two places
            continue
        with lore.lock:
            kept = bool(lore.arrays())
        if kept:
            name = " ".join(filter(None, (name_of(part)[1], lore.kind)))
            same = sum(key.partition("#")[0] == name for key in found)
            found[f"{name}#{same + 1}" if same else name] = lore
    if not found:
        raise BadMemory(
            f"the draft part {name_of(draft)[1]!r} has no memory: it keeps nothing from one request to the next; "
            "recycling and aded do"
        )
    return found


def _of(held: Arrays, name: str) -> dict[str, Array]:
    """The arrays of one drafter."""
    return {key.rpartition(".")[2]: array for key, array in held.items() if key.rpartition(".")[0] == name}


def _read(path: Path, model: Model) -> dict[str, Array]:
    """The arrays of a file, checked: as they were written, of this tokenizer, token ids within the vocabulary."""
    if not path.is_file():
        raise BadMemory(f"there is no memory file at {path}")
    try:
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
            if header.get("decodery-memory", FORMAT) != FORMAT:
                raise BadMemory(
                    f"the memory {path} was written by another version of Decodery; remove it to begin anew"
                )
            if "decodery-memory" not in header:
                raise BadMemory(f"{path} is no memory of drafters; choose another file")
            if header.get("tokenizer") != model.fingerprint():
                raise BadMemory(
                    f"the memory {path} was learnt with another tokenizer than this model's; use a file for each model"
                )
            arrays: dict[str, Array] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except BadMemory:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadMemory(f"{path} is no memory file, or damaged ({error}); remove it to begin anew") from error
    sound = header.get("crc32") == str(_checksum(arrays)) and all(a.dtype in DTYPES for a in arrays.values())
    ids = [array[array != NO_TOKEN] for array in arrays.values() if array.dtype == np.uint32]
    if not sound or any(array.size and array.max() >= model.vocab for array in ids):
        raise BadMemory(f"the memory {path} is damaged: it is not what was written; remove it to begin anew")
    return arrays


def _forms(arrays: Mapping[str, Array]) -> dict[str, str]:
    return {name: f"{array.ndim}-D {array.dtype}" for name, array in sorted(arrays.items())}


def _checksum(arrays: Mapping[str, Array]) -> int:
    total = 0
    for name in sorted(arrays):
        array = arrays[name]
        total = zlib.crc32(array.tobytes(), zlib.crc32(f"{name} {array.dtype.str} {array.shape}".encode(), total))
    return total
