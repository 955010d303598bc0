"""A customer with the official SDK, who asks again until there is an answer. Knows nothing of the service's inside."""

import asyncio
import itertools
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

import openai
from openai import AsyncOpenAI
from openai.types.fine_tuning import FineTuningJob

from tests.chaos.orders import BATCH_SIZE, DataSet, Order, Wish

T = TypeVar("T")
TERMINAL: Final = frozenset({"succeeded", "failed", "cancelled"})
PATIENCE_SECONDS: Final = 300.0  # of one call, through any number of answers that say "later"
RETRY_SECONDS: Final = 0.3
PAGE: Final = 100

log = logging.getLogger("chaos.customer")


class ImpatientError(AssertionError):
    """A call had no answer for too long."""


class Customer:
    """`addresses`: where the service can be reached, each as good as the other. `answers` counts what was said."""

    def __init__(self, addresses: Sequence[str], *, key: str, model: str, look_seconds: float = 1.0) -> None:
        self._clients = [
            AsyncOpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, timeout=20)
            for address in addresses
        ]
        self._turn = itertools.cycle(range(len(self._clients)))
        self._model, self._look_seconds = model, look_seconds
        self._files: dict[str, asyncio.Task[str]] = {}
        self.answers: Counter[str] = Counter()
        self.ended: dict[str, FineTuningJob] = {}  # by order key
        self.open: list[str] = []
        self._resumed: set[str] = set()

    async def close(self) -> None:
        for client in self._clients:
            await client.close()

    async def persist(self, call: Callable[[AsyncOpenAI], Awaitable[T]]) -> T:
        """The same call until it is answered for good. Raises openai.APIStatusError for a refusal."""
        deadline = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        while True:
            client = self._clients[next(self._turn)]
            try:
                answer = await call(client)
            except openai.APIConnectionError:  # a timeout too
                self.answers["no answer"] += 1
            except (openai.InternalServerError, openai.ConflictError, openai.RateLimitError) as error:
                self.answers[str(error.status_code)] += 1
                if error.status_code == 500:
                    log.error("500: %s", error.message)
            else:
                self.answers["ok"] += 1
                return answer
            if asyncio.get_running_loop().time() > deadline:
                raise ImpatientError("a call was not answered for good")
            await asyncio.sleep(RETRY_SECONDS * (0.5 + random.random()))

    async def order_all(
        self, orders: Sequence[Order], *, at_once: int, may: Callable[[int], bool] = lambda _: True
    ) -> Mapping[str, FineTuningJob]:
        """Creates them all, at most `at_once` not yet ended, and returns what they became by their keys. `may`: whether
        it is time for the order of this number."""
        places = asyncio.Semaphore(at_once)
        waiting: dict[str, Order] = {}  # by job id
        done = asyncio.Event()
        follower = asyncio.create_task(self._follow(waiting, places, done))

        async def one(order: Order) -> None:
            job = await self._create(order)
            waiting[job.id] = order
            await self._fulfil(order, job.id)

        makers = set()
        try:
            for number, order in enumerate(orders):
                await places.acquire()
                while not may(number):
                    await asyncio.sleep(0.1)
                makers.add(asyncio.create_task(one(order)))
                makers = {maker for maker in makers if not maker.done() or maker.result() is not None}
            await asyncio.gather(*makers)
        finally:
            done.set()
        await follower
        return self.ended

    async def _look(self, waiting: Mapping[str, Order]) -> list[FineTuningJob]:
        """Of a job that was paused after all the resume is said again: a late pause may have come behind it."""
        found = [job for job in await self._newest(set(waiting)) if job.id in waiting]
        for job in found:
            if job.status == "paused" and job.id in self._resumed:
                await self._willing(lambda client, job_id=job.id: client.fine_tuning.jobs.resume(job_id))
        self.open = [f"{job.id} {job.status}" for job in found if job.status not in TERMINAL]
        return found

    async def _follow(
        self, waiting: dict[str, Order], places: asyncio.Semaphore, done: asyncio.Event
    ) -> None:
        while waiting or not done.is_set():
            await asyncio.sleep(self._look_seconds)
            for job in await self._look(waiting):
                if job.status in TERMINAL:
                    self.ended[waiting.pop(job.id).key] = job
                    places.release()

    async def _newest(self, wanted: set[str]) -> list[FineTuningJob]:
        """Pages of the list until all that is wanted was on them."""
        found: list[FineTuningJob] = []
        after: str | openai.Omit = openai.omit
        while wanted:
            page = await self.persist(
                lambda client, after=after: client.fine_tuning.jobs.list(limit=PAGE, after=after)
            )
            found += page.data
            wanted -= {job.id for job in page.data}
            if not page.has_more:
                break
            after = page.data[-1].id
        return found

    async def _create(self, order: Order) -> FineTuningJob:
        file_id = await self._file(order.data)
        return await self.persist(
            lambda client: client.fine_tuning.jobs.create(
                model=self._model,
                training_file=file_id,
                seed=order.seed,
                metadata={"key": order.key},
                method={
                    "type": "supervised",
                    "supervised": {"hyperparameters": {"n_epochs": order.epochs, "batch_size": BATCH_SIZE}},
                },
                extra_headers={"Idempotency-Key": order.key},
            )
        )

    async def _file(self, data: DataSet) -> str:
        if data.name not in self._files:
            self._files[data.name] = asyncio.create_task(self._upload(data))
        return await asyncio.shield(self._files[data.name])

    async def _upload(self, data: DataSet) -> str:
        file = await self.persist(
            lambda client: client.files.create(
                file=(f"{data.name}.jsonl", data.content),
                purpose="fine-tune",
                extra_headers={"Idempotency-Key": data.name},
            )
        )
        return file.id

    async def _fulfil(self, order: Order, job_id: str) -> None:
        """What is refused came too late: the job has ended."""
        match order.wish:
            case Wish.LEAVE:
                return
            case Wish.CANCEL:
                await asyncio.sleep(random.random() * 5)
                await self._willing(lambda client: client.fine_tuning.jobs.cancel(job_id))
            case Wish.PAUSE:
                await asyncio.sleep(random.random() * 5)
                await self._willing(lambda client: client.fine_tuning.jobs.pause(job_id))
                await asyncio.sleep(random.random() * 3)
                self._resumed.add(job_id)
                await self._willing(lambda client: client.fine_tuning.jobs.resume(job_id))

    async def _willing(self, call: Callable[[AsyncOpenAI], Awaitable[FineTuningJob]]) -> None:
        try:
            await self.persist(call)
        except openai.BadRequestError:
            self.answers["too late"] += 1
