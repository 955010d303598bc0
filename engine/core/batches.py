"""Which example is trained on when: a pure function of (seed, epoch). Knows lengths, no tokens."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import torch


def derived_seed(*parts: int | str) -> int:
    """63 bits that depend on every part and on nothing else."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@lru_cache(maxsize=64)
def epoch_batches(*, examples: int, batch_size: int, seed: int, epoch: int) -> Sequence[Sequence[int]]:
    """A fresh shuffle cut into batches; the last one may be smaller, so that every example counts. Kept: each step asks."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "epoch", epoch))
    order = torch.randperm(examples, generator=generator).tolist()
    return [order[start : start + batch_size] for start in range(0, examples, batch_size)]


class Shares:
    """Pieces dealt out in their order, each to whoever has least so far."""

    def __init__(self, count: int) -> None:
        self.sizes = [0] * count

    def add(self, size: int) -> int:
        """Whose it is."""
        share = self.sizes.index(min(self.sizes))
        self.sizes[share] += size
        return share
