"""A rank other than 0: a replica of the base that computes what it is told, and remembers adapters, nothing else."""

import logging
from collections.abc import Sequence

import torch

from engine.lora.adapter import Adapter
from engine.passes import orders, sums
from engine.passes.faults import bare, end_if_lost, out_of_memory
from engine.passes.fused import FusedModel
from engine.passes.model import Lesson, Question
from engine.passes.orders import Order, Reply
from engine.passes.team import Post
from engine.passes.work import finished

log = logging.getLogger("tuningfork.trainer")


class Follower:
    def __init__(self, model: FusedModel, post: Post) -> None:
        self._model, self._post = model, post
        self._adapters: dict[int, Adapter] = {}

    def serve(self) -> None:
        """Returns when rank 0 has gone."""
        walk = self._model.walk
        ready = orders.Ready(room=self._model.room, base_bytes=walk.own_bytes if walk else 0)
        self._post.reply(orders.encoded(ready))
        while (payload := self._post.order()) is not None:
            self._obey(orders.order_of(payload))

    def _obey(self, order: Order) -> None:
        if order.gather is not None:
            assert self._model.walk is not None
            self._model.walk.use(order.gather)
            return
        for number in order.forget:
            self._adapters.pop(number, None)
        for fresh in order.fresh:
            if fresh.number not in self._adapters:
                self._adapters[fresh.number] = self._model.new_adapter(fresh.options)
            self._post.receive(self._adapters[fresh.number].weights)
        if order.question is not None:
            self._post.reply(orders.encoded(self._answered(order.question)))
            return
        assert order.plan is not None
        reply, totals = self._computed(order, order.plan)
        self._post.reply(orders.encoded(reply))
        for total in totals:
            self._post.send(total)

    def _computed(self, order: Order, plan: sums.Plan) -> tuple[Reply, Sequence[torch.Tensor]]:
        lessons = [
            Lesson(
                packed=sent.packed,
                adapter=self._adapter(sent.adapter),
                loss=sent.loss,
                dropout_seed=sent.dropout_seed,
                recompute=sent.recompute,
            )
            for sent in order.lessons
        ]
        try:
            done = sums.computed(self._model, lessons, plan)
        except Exception as error:
            end_if_lost(error)
            failure = bare(error)
        else:
            outcomes = tuple(orders.sent_outcome(outcome) for outcome in done.outcomes)
            return Reply(outcomes=outcomes), done.sums
        return self._failed(failure), ()

    def _failed(self, error: Exception) -> Reply:
        """Rank 0 decides what becomes of the pass. Of the error, only what it is leaves this process, and the log."""
        too_large = out_of_memory(error)
        log.warning("a pass failed here: %s", type(error).__name__)
        for adapter in self._adapters.values():
            adapter.gradient.zero_()
        if too_large and torch.cuda.is_available():
            torch.cuda.empty_cache()
        return Reply(fault=orders.fault_of(error, out_of_memory=too_large))

    def _answered(self, sent: orders.SentQuestion) -> Reply:
        question = Question(
            prompts=sent.prompts,
            count=sent.count,
            sampling=sent.sampling,
            adapter=self._adapter(sent.adapter),
        )
        try:
            answers = finished(self._model.sample(question, end_of_turn=frozenset(sent.end_of_turn)))
        except Exception as error:
            end_if_lost(error)
            log.warning("a sampling failed here: %s", type(error).__name__)
            return Reply(fault=orders.fault_of(error, out_of_memory=out_of_memory(error)))
        return Reply(answers=tuple(tuple(some) for some in answers))

    def _adapter(self, number: int | None) -> Adapter | None:
        return None if number is None else self._adapters[number]
