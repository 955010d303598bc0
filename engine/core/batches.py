"""Which example is trained on when: a pure function of (seed, epoch). Knows lengths, no tokens."""

import hashlib
from collections.abc import Sequence

import torch


def derived_seed(*parts: int | str) -> int:
    """63 bits that depend on every part and on nothing else."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def epoch_batches(*, examples: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """A fresh shuffle cut into batches; the last one may be smaller, so that every example counts."""
    generator = torch.Generator().manual_seed(derived_seed(seed, "epoch", epoch))
    order = torch.randperm(examples, generator=generator).tolist()
    return [order[start : start + batch_size] for start in range(0, examples, batch_size)]


def micro_batches(batch: Sequence[int], *, lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Splits a batch by length so that little is padded and `rows * longest` stays within the budget.

    An example longer than the budget is alone.
    """
    groups: list[list[int]] = []
    for index in sorted(batch, key=lambda i: (-lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= token_budget:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups
