"""Who may run a network: any number of plain passes at once, or one that patches or hooks its modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock, get_ident
from weakref import WeakKeyDictionary

from torch import nn


class NetworkLock:
    """Shared by plain passes; held alone by a pass that changes modules for its length.

    Whoever waits to be alone is not overtaken by new plain passes. A thread that is alone may take the lock again.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._sharing = 0
        self._waiting = 0
        self._owner: int | None = None
        self._depth = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Run beside other plain passes."""
        mine = self._owner == get_ident()
        if not mine:
            with self._changed:
                self._changed.wait_for(lambda: self._owner is None and not self._waiting)
                self._sharing += 1
        try:
            yield
        finally:
            if not mine:
                with self._changed:
                    self._sharing -= 1
                    self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Run while nobody else does."""
        with self._changed:
            if self._owner != get_ident():
                self._waiting += 1
                try:
                    self._changed.wait_for(lambda: self._owner is None and not self._sharing)
                finally:
                    self._waiting -= 1
                self._owner = get_ident()
            self._depth += 1
        try:
            yield
        finally:
            with self._changed:
                self._depth -= 1
                if not self._depth:
                    self._owner = None
                    self._changed.notify_all()


_locks: WeakKeyDictionary[nn.Module, NetworkLock] = WeakKeyDictionary()
_making = Lock()


def lock_of(network: nn.Module) -> NetworkLock:
    """The one lock of a network, however many models and backends run it."""
    with _making:
        return _locks.setdefault(network, NetworkLock())
