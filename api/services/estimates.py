"""Estimates: has a replica of the base count the tokens of a sample, and remembers what it said for when none answers.

The control plane has no tokenizer, and wants none: the replica's is the one that the engine uses. What it has counted of a
file is not asked again: many jobs may name one file.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from api.domain.cost import Estimate
from api.domain.estimates import Checked, conversations, estimated, fitted, name_of, trained_length
from api.domain.jobs import Method
from api.services.jsonl import LineError, parse_line
from api.services.remembered import Remembered
from api.store import cost
from api.store.database import Database
from engine.contract.spec import TrainingOptions
from serving.gateway.client import ReplicaClient, ReplicaError
from serving.gateway.replicas import Replicas

AT_ONCE: Final = 8
PATIENCE_SECONDS: Final = 3.0  # for the whole sample: what has not been counted then is left out
REMEMBERED_BYTES: Final = 8 * 1024 * 1024
PAIR_BYTES: Final = 120  # of two small numbers in a tuple
Pairs = Sequence[tuple[int, int]]  # bytes and tokens of each row that was counted

log = logging.getLogger("tuningfork.estimates")


class Estimates:
    def __init__(self, *, database: Database, replicas: Replicas) -> None:
        self._database, self._replicas = database, replicas
        self._remembered = Remembered[tuple[str, str, str], Pairs](
            most_bytes=REMEMBERED_BYTES, weigh=lambda pairs: PAIR_BYTES * (len(pairs) + 2)
        )

    async def of(
        self, base_model: str, method: Method, training: TrainingOptions, checked: Checked
    ) -> Estimate:
        """`method` holds no "auto" any more."""
        fit = fitted(await self._pairs(base_model, method, checked), checked=checked)
        async with self._database.transaction() as connection:
            name = name_of(method)
            rate = await cost.rate(connection, base_model=base_model, method=name)
            if fit is not None:
                await cost.remember_line(connection, base_model=base_model, method=name, line=fit.line)
        return estimated(method, training, checked=checked, fit=fit, rate=rate)

    async def _pairs(self, base_model: str, method: Method, checked: Checked) -> Pairs:
        key = (base_model, name_of(method), checked.file_id)
        pairs = self._remembered.of(key)
        if pairs is None:
            pairs = await self._counted(base_model, method, checked.sample)
            if len(pairs) == len(checked.sample):
                self._remembered.keep(key, pairs)
        return pairs

    async def _counted(self, base_model: str, method: Method, sample: Sequence[bytes]) -> Pairs:
        """Of each row that was counted in time."""
        if base_model not in self._replicas.base_models:
            return ()
        replica, turns = self._replicas.of(base_model), asyncio.Semaphore(AT_ONCE)
        tasks = [asyncio.create_task(row_tokens(replica, method, line, turns)) for line in sample]
        if not tasks:
            return ()
        try:
            done, late = await asyncio.wait(tasks, timeout=PATIENCE_SECONDS)
        finally:  # also when this process ends: nobody would wait for them
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        faults = [fault for task in done if (fault := task.exception()) is not None]
        if faults or late:
            log.info("%d of %d rows were not counted: %s", len(faults) + len(late), len(tasks), faults[:1])
        return [task.result() for task in tasks if task in done and task.exception() is None]


async def row_tokens(
    replica: ReplicaClient, method: Method, line: bytes, turns: asyncio.Semaphore
) -> tuple[int, int]:
    """Raises ReplicaError."""
    async with turns:
        counts = [
            length_of(each, await replica.tokenize(each)) for each in conversations(method, row_of(line))
        ]
    return len(line), sum(counts)


def row_of(line: bytes) -> Any:
    try:
        return parse_line(line)
    except LineError as error:  # it has been checked: only a cut one would be
        raise ReplicaError(error.reason) from error


def length_of(conversation: Mapping[str, Any], tokens: Sequence[str]) -> int:
    return len(tokens) if conversation["add_generation_prompt"] else trained_length(tokens)
