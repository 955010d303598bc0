"""One base on several devices, each a process of its own: rank 0, which trains, deals out the lessons of a round, computes
its own share meanwhile, and adds up what comes back. Only rank 0 knows runs, optimizers and checkpoints.

Gradients are gathered, not reduced: an adapter's are small, and rank 0 adds every lesson's own sum in the order of the
lessons, so that on a CPU the bits are those of one device.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import torch

from engine.contract.spec import LoraOptions
from engine.core.batches import Shares
from engine.core.memory import Need
from engine.lora.adapter import Adapter
from engine.passes import orders, sums
from engine.passes.fused import FusedModel
from engine.passes.model import Lesson, Outcome, Question, Trainable
from engine.passes.team import Member, Team
from engine.passes.work import Stepwise

POLL_SECONDS: Final = 0.001


@dataclass
class Known:
    """An adapter that other ranks have a copy of. `versions`: of its weights, by rank."""

    number: int
    adapter: Trainable
    versions: dict[int, int] = field(default_factory=dict)


class ParallelModel:
    """`own`: rank 0's. `base_bytes`: what each rank keeps of the layers of a sharded base."""

    notice: str | None = None

    def __init__(self, own: FusedModel, team: Team) -> None:
        self.own, self.team = own, team
        self.base, self.most_runs, self.shape, self.devices = own.base, own.most_runs, own.shape, team.devices
        self.common = own.common
        others = [orders.ready_of(member.reply()) for member in team.members]
        rooms = [own.room, *(one.room for one in others)]
        self.room = min(rooms) if own.device.type == "cuda" else own.room // self.devices
        self.base_bytes = [own.walk.own_bytes if own.walk else 0, *(one.base_bytes for one in others)]
        self._known: dict[int, Known] = {}
        self._forget: dict[int, list[int]] = {member.rank: [] for member in team.members}
        self._numbers = 0
        self._sampling: set[int] = set()  # ranks that answer a question
        self._unheard: set[int] = set()  # those of them whose answer nobody waits for any more
        if own.walk is not None:
            own.walk.announce = self._gather

    def need(self, options: LoraOptions, *, copies: int, tokens: int) -> Need:
        """The sums of a run's pieces, one from each device, lie beside its gradient until they are added."""
        return self.own.need(options, copies=copies + self.devices, tokens=tokens)

    def least_need(self, options: LoraOptions, *, copies: int, tokens: int) -> Need:
        return self.own.least_need(options, copies=copies + self.devices, tokens=tokens)

    def new_adapter(self, options: LoraOptions) -> Adapter:
        return self.own.new_adapter(options)

    def frozen_copy(self, adapter: Trainable) -> Adapter:
        return self.own.frozen_copy(adapter)

    def release(self, adapter: Trainable) -> None:
        known = self._known.pop(id(adapter), None)
        if known is not None:
            for rank in known.versions:
                self._forget[rank].append(known.number)

    def run_pass(self, lessons: Sequence[Lesson]) -> list[Outcome]:
        """Each rank that does not sample computes its share; what any of them raises is raised when all are done."""
        deal = self._dealt([lesson.packed.tokens for lesson in lessons])
        shares = [[lessons[number] for number in own] for own in deal]
        before = set_aside(lessons)
        passes = max(len(sums.units(len(share), apart=self.own.apart)) for share in shares)
        plan = sums.Plan(passes=passes, learning=any(lesson.loss is not None for lesson in lessons))
        done = self._done(shares, plan)
        for adapter, gradient in before:
            adapter.gradient.copy_(gradient)
        self._add(lessons, deal, done)
        outcomes = {
            number: outcome
            for own, part in zip(deal, done, strict=True)
            for number, outcome in zip(own, part.outcomes, strict=True)
        }
        return [outcomes[number] for number in range(len(lessons))]

    def _done(self, shares: Sequence[Sequence[Lesson]], plan: sums.Plan) -> list[sums.Computed]:
        """Of each rank; where the base is sharded, also those without lessons have a part in it."""
        asked = [member for member in self.team.members if shares[member.rank] or self.own.walk]
        room = {member.rank: self._room_for_sums(shares[member.rank]) for member in asked}
        for member in asked:
            self._teach(member, shares[member.rank], plan)
        done = [sums.Computed(outcomes=[], sums=[]) for _ in shares]
        failures: list[Exception] = []
        try:
            done[0] = sums.computed(self.own, shares[0], plan)
        except Exception as error:
            failures.append(error)
        for member in asked:
            reply = orders.reply_of(member.reply())
            if reply.fault is not None:
                failures.append(orders.raised(reply.fault))
                continue
            for tensor in room[member.rank]:
                member.receive(tensor)
            outcomes = [orders.outcome_of(one) for one in reply.outcomes]
            done[member.rank] = sums.Computed(outcomes=outcomes, sums=room[member.rank])
        if failures:
            raise orders.worst(failures)
        return done

    def sample(self, question: Question, *, end_of_turn: frozenset[int]) -> Stepwise:
        """On another device that samples nothing yet, and meanwhile has no part in passes; else on rank 0, step by step,
        as always where the base is sharded."""
        free = [member for member in self._free() if self.own.walk is None]
        if not free:
            return (yield from self.own.sample(question, end_of_turn=end_of_turn))
        member, heard = free[0], False
        self._sampling.add(member.rank)
        try:
            self._ask(member, question, end_of_turn=end_of_turn)
            while not member.answered(within=POLL_SECONDS):
                yield
            said, heard = orders.reply_of(member.reply()), True
        finally:
            if heard:
                self._sampling.discard(member.rank)
            else:
                self._unheard.add(member.rank)
        if said.fault is not None:
            raise orders.raised(said.fault)
        return said.answers

    def _free(self) -> list[Member]:
        for member in self.team.members:
            if member.rank in self._unheard and member.answered(within=0.0):
                member.reply()
                self._unheard.discard(member.rank)
                self._sampling.discard(member.rank)
        return [member for member in self.team.members if member.rank not in self._sampling]

    def _dealt(self, sizes: Sequence[int]) -> list[list[int]]:
        """By rank."""
        ranks = [0, *(member.rank for member in self._free())]
        deal: list[list[int]] = [[] for _ in range(self.devices)]
        for rank, own in zip(ranks, dealt(sizes, len(ranks)), strict=True):
            deal[rank] = own
        return deal

    def _room_for_sums(self, share: Sequence[Lesson]) -> list[torch.Tensor]:
        """Made before anything is asked for: a rank that has begun to send must find it."""
        found = []
        for number in sums.all_summed(share, apart=self.own.apart):
            adapter = share[number].adapter
            assert adapter is not None
            found.append(torch.empty_like(adapter.gradient))
        return found

    def _teach(self, member: Member, share: Sequence[Lesson], plan: sums.Plan) -> None:
        fresh = self._fresh(member.rank, [lesson.adapter for lesson in share])
        lessons = tuple(orders.sent_lesson(lesson, adapter=self._number(lesson.adapter)) for lesson in share)
        self._send(member, fresh, orders.Order(lessons=lessons, plan=plan))

    def _ask(self, member: Member, question: Question, *, end_of_turn: frozenset[int]) -> None:
        fresh = self._fresh(member.rank, [question.adapter])
        sent = orders.SentQuestion(
            prompts=tuple(tuple(prompt) for prompt in question.prompts),
            count=question.count,
            sampling=question.sampling,
            adapter=self._number(question.adapter),
            end_of_turn=tuple(sorted(end_of_turn)),
        )
        self._send(member, fresh, orders.Order(question=sent))

    def _gather(self, layer: int) -> None:
        """Outside a pass: rank 0 samples, and the others lend it their parts."""
        for member in self.team.members:
            member.order(orders.encoded(orders.Order(gather=layer)))

    def _send(self, member: Member, fresh: Sequence[Known], order: orders.Order) -> None:
        forget, self._forget[member.rank] = self._forget[member.rank], []
        told = replace(
            order,
            forget=tuple(forget),
            fresh=tuple(orders.Fresh(number=one.number, options=one.adapter.options) for one in fresh),
        )
        member.order(orders.encoded(told))
        for one in fresh:
            member.send(one.adapter.weights)

    def _fresh(self, rank: int, adapters: Sequence[Trainable | None]) -> list[Known]:
        """Those whose weights the rank does not have as they are now."""
        found = []
        for adapter in adapters:
            if adapter is None:
                continue
            known = self._knows(adapter)
            if known.versions.get(rank) != adapter.weights._version:
                known.versions[rank] = adapter.weights._version
                found.append(known)
        return found

    def _number(self, adapter: Trainable | None) -> int | None:
        return None if adapter is None else self._knows(adapter).number

    def _knows(self, adapter: Trainable) -> Known:
        if id(adapter) not in self._known:
            self._numbers += 1
            self._known[id(adapter)] = Known(number=self._numbers, adapter=adapter)
        return self._known[id(adapter)]

    def _add(
        self, lessons: Sequence[Lesson], deal: Sequence[Sequence[int]], done: Sequence[sums.Computed]
    ) -> None:
        """In the order of the lessons, whoever computed them."""
        found: dict[int, torch.Tensor] = {}
        for own, part in zip(deal, done, strict=True):
            named = sums.all_summed([lessons[number] for number in own], apart=self.own.apart)
            found |= {own[number]: total for number, total in zip(named, part.sums, strict=True)}
        for number in sorted(found):
            adapter = lessons[number].adapter
            assert adapter is not None
            adapter.gradient.add_(found[number])


def dealt(sizes: Sequence[int], devices: int) -> list[list[int]]:
    """Which pieces each device has; rank 0 has the first."""
    shares, deal = Shares(devices), [list[int]() for _ in range(devices)]
    for number, size in enumerate(sizes):
        deal[shares.add(size)].append(number)
    return deal


def set_aside(lessons: Sequence[Lesson]) -> list[tuple[Trainable, torch.Tensor]]:
    """What earlier passes have added. The gradients are zero afterwards."""
    kept: dict[int, tuple[Trainable, torch.Tensor]] = {}
    seen: set[int] = set()
    for lesson in lessons:
        adapter = lesson.adapter
        if lesson.loss is None or adapter is None or id(adapter) in seen:
            continue
        seen.add(id(adapter))
        if not lesson.first:
            kept[id(adapter)] = (adapter, adapter.gradient.clone())
            adapter.gradient.zero_()
    return list(kept.values())
