"""A bounded memory of what was found out lately and never changes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Found = TypeVar("Found")


class Remembered(Generic[Key, Found]):
    """The latest, for so many bytes as `weigh` says each takes."""

    def __init__(self, *, most_bytes: int, weigh: Callable[[Found], int]) -> None:
        self._most_bytes, self._weigh, self._bytes = most_bytes, weigh, 0
        self._found: OrderedDict[Key, Found] = OrderedDict()

    def of(self, key: Key) -> Found | None:
        if key in self._found:
            self._found.move_to_end(key)
        return self._found.get(key)

    def keep(self, key: Key, found: Found) -> None:
        if key in self._found:  # two have found it at the same time
            return
        self._found[key] = found
        self._bytes += self._weigh(found)
        while self._bytes > self._most_bytes:
            _, gone = self._found.popitem(last=False)
            self._bytes -= self._weigh(gone)
