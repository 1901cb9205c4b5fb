"""What drafters learnt, kept in a file: one for each user (and model), whichever drafters use it.

By default nothing is kept: a drafter's memory is private to its object. A file is read and written only where asked:

    draft = Recycling()
    decodery.load_memory(draft, model, "anna.memory")
    decodery.decode(model, prompt, draft=draft)
    decodery.save_memory(draft, model, "anna.memory")

It is a safetensors file of plain arrays, so reading one runs no code. Names are ``part.array``; a drafter finds its own by
the name of the part and leaves the others' in place. The size is bounded by what each part documents.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from decodery.core.errors import BadMemory
from decodery.core.files import write_whole
from decodery.core.roles import Drafter, Model
from decodery.core.values import NO_TOKEN, Array
from decodery.run.registry import name_of

FORMAT = "1"
DTYPES = (np.uint32, np.float64)


def save_memory(draft: Drafter, model: Model, path: str | Path) -> int:
    """Write what ``draft`` and the drafters it is made of have learnt; returns the bytes of the file.

    What other drafters kept in the file stays there. The file is replaced as a whole or not at all. Raises ``BadMemory``
    where there is nothing to keep, or where the file there is of another tokenizer or no memory.
    """
    path = Path(path).expanduser()
    kept = _read(path, model) if path.exists() else {}
    for name, part in _learners(draft):
        kept = {key: array for key, array in kept.items() if key.rpartition(".")[0] != name}
        kept |= {f"{name}.{key}": np.ascontiguousarray(array) for key, array in part.memory().items()}
    header = {"decodery-memory": FORMAT, "tokenizer": model.fingerprint(), "crc32": str(_checksum(kept))}
    data = save(kept, metadata=header)
    try:
        write_whole(path, data)
    except OSError as error:
        raise BadMemory(f"the memory is not kept: {error}") from error
    return len(data)


def load_memory(draft: Drafter, model: Model, path: str | Path) -> list[str]:
    """Give ``draft`` and the drafters it is made of what the file holds for them; returns the names of those it knew.

    Raises ``BadMemory`` where the file is missing, damaged, of another tokenizer, or where the draft learns nothing.
    """
    path = Path(path).expanduser()
    held, known = _read(path, model), []
    for name, part in _learners(draft):
        mine = {key.rpartition(".")[2]: array for key, array in held.items() if key.rpartition(".")[0] == name}
        if not mine:
            continue
        try:
            if _forms(mine) != _forms(part.memory()):
                raise ValueError(f"its arrays are {_forms(mine)}")
            part.remember(mine)
        except (ValueError, TypeError) as error:
            raise BadMemory(f"the memory {path} is not one of the draft part {name!r}: {error}") from error
        known.append(name)
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


def filled(rows: Collection[Collection[float]], width: int, dtype: type = np.uint32) -> Array:
    """Rows of at most ``width`` numbers as an array ``[n, width]``, filled up with ``NO_TOKEN`` (or zeros)."""
    array: Array = np.full((len(rows), width), NO_TOKEN if dtype is np.uint32 else 0, dtype)
    for place, row in zip(array, rows, strict=True):
        place[: len(row)] = list(row)
    return array


def _learners(draft: Drafter) -> list[tuple[str, Drafter]]:
    """The drafters with a memory by name; the second one of a name is called ``name#2``."""
    found: dict[str, Drafter] = {}
    waiting = [draft]
    while waiting:
        part = waiting.pop(0)
        waiting += part.inner()
        if part.memory():
            name = name_of(part)[1]
            same = sum(key.partition("#")[0] == name for key in found)
            found[f"{name}#{same + 1}" if same else name] = part
    if not found:
        raise BadMemory(
            f"the draft part {name_of(draft)[1]!r} keeps nothing from one request to the next; recycling and aded do"
        )
    return list(found.items())


def _read(path: Path, model: Model) -> dict[str, Array]:
    """The arrays of a file, checked: as they were written, of this tokenizer, token ids within the vocabulary."""
    if not path.is_file():
        raise BadMemory(f"there is no memory file at {path}")
    try:
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
            if header.get("decodery-memory") != FORMAT:
                raise BadMemory(f"{path} is no memory of drafters that this Decodery reads; choose another file")
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
