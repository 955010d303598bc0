"""One base on several devices, each a process of its own: rank 0, which trains, deals out the lessons of a round, computes
its own share meanwhile, and adds up what comes back. Only rank 0 knows runs, optimizers and checkpoints.

Gradients are gathered, not reduced: an adapter's are small, and rank 0 adds every lesson's own sum in the order of the
lessons, so that on a CPU the bits are those of one device.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from engine.contract.spec import LoraOptions
from engine.core.batches import Shares
from engine.core.memory import Need
from engine.lora.adapter import Adapter
from engine.passes import orders, sums
from engine.passes.fused import FusedModel
from engine.passes.model import Lesson, Outcome, Question, Trainable
from engine.passes.team import Member, Team
from engine.passes.work import Answers


@dataclass
class Known:
    """An adapter that other ranks have a copy of. `versions`: of its weights, by rank."""

    number: int
    adapter: Trainable
    versions: dict[int, int] = field(default_factory=dict)


class ParallelModel:
    """`own`: rank 0's. The other ranks have said `room` before this is made."""

    notice: str | None = None

    def __init__(self, own: FusedModel, team: Team) -> None:
        self.own, self.team = own, team
        self.base, self.most_runs, self.shape, self.devices = own.base, own.most_runs, own.shape, team.devices
        rooms = [orders.reply_of(member.reply()).room for member in team.members]
        self.room = min([own.room, *rooms]) if own.device.type == "cuda" else own.room // self.devices
        self._known: dict[int, Known] = {}
        self._forget: dict[int, list[int]] = {member.rank: [] for member in team.members}
        self._numbers = 0

    def need(self, options: LoraOptions, *, copies: int, tokens: int) -> Need:
        """The sums of a run's pieces, one from each device, lie beside its gradient until they are added."""
        return self.own.need(options, copies=copies + self.devices, tokens=tokens)

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
        """Each rank computes its share; what any of them raises is raised when all are done."""
        deal = dealt([lesson.packed.tokens for lesson in lessons], self.devices)
        before = set_aside(lessons)
        shares = {rank: [lessons[number] for number in deal[rank]] for rank in range(self.devices)}
        room = {member.rank: self._room_for_sums(shares[member.rank]) for member in self.team.members}
        for member in self.team.members:
            self._teach(member, shares[member.rank])
        done: dict[int, sums.Computed] = {}
        failures: list[Exception] = []
        for rank in range(self.devices):
            try:
                if rank == 0:
                    done[rank] = sums.computed(self.own, shares[rank])
                else:
                    done[rank] = self._learned(self.team.members[rank - 1], shares[rank], room[rank])
            except Exception as error:
                failures.append(error)
        if failures:
            raise orders.worst(failures)
        self._add(lessons, deal, done, before)
        outcomes = {
            n: outcome for rank in done for n, outcome in zip(deal[rank], done[rank].outcomes, strict=True)
        }
        return [outcomes[number] for number in range(len(lessons))]

    def answers(
        self, questions: Sequence[Question], *, end_of_turn: frozenset[int]
    ) -> list[Answers | Exception]:
        """A question is answered on one device as a whole."""
        deal = dealt([len(one.prompts) * one.count for one in questions], self.devices)
        for member in self.team.members:
            self._ask(member, [questions[number] for number in deal[member.rank]], end_of_turn=end_of_turn)
        own = self.own.answers([questions[number] for number in deal[0]], end_of_turn=end_of_turn)
        found: dict[int, Answers | Exception] = dict(zip(deal[0], own, strict=True))
        for member in self.team.members:
            if deal[member.rank]:
                said = orders.reply_of(member.reply())
                given: Sequence[Answers | orders.Fault] = said.answers
                if said.fault is not None:
                    given = [said.fault] * len(deal[member.rank])
                for number, answer in zip(deal[member.rank], given, strict=True):
                    found[number] = orders.raised(answer) if isinstance(answer, orders.Fault) else answer
        return [found[number] for number in range(len(questions))]

    def _room_for_sums(self, share: Sequence[Lesson]) -> list[torch.Tensor]:
        """Made before anything is asked for: a rank that has begun to send must find it."""
        found = []
        for number in sums.all_summed(share, apart=self.own.apart):
            adapter = share[number].adapter
            assert adapter is not None
            found.append(torch.empty_like(adapter.gradient))
        return found

    def _teach(self, member: Member, share: Sequence[Lesson]) -> None:
        if share:
            fresh = self._fresh(member.rank, [lesson.adapter for lesson in share])
            lessons = tuple(
                orders.sent_lesson(lesson, adapter=self._number(lesson.adapter)) for lesson in share
            )
            self._send(member, fresh, lessons=lessons)

    def _ask(self, member: Member, share: Sequence[Question], *, end_of_turn: frozenset[int]) -> None:
        if share:
            fresh = self._fresh(member.rank, [question.adapter for question in share])
            questions = tuple(
                orders.SentQuestion(
                    prompts=tuple(tuple(prompt) for prompt in question.prompts),
                    count=question.count,
                    sampling=question.sampling,
                    adapter=self._number(question.adapter),
                    end_of_turn=tuple(sorted(end_of_turn)),
                )
                for question in share
            )
            self._send(member, fresh, questions=questions)

    def _send(
        self,
        member: Member,
        fresh: Sequence[Known],
        *,
        lessons: tuple[orders.SentLesson, ...] = (),
        questions: tuple[orders.SentQuestion, ...] = (),
    ) -> None:
        forget, self._forget[member.rank] = self._forget[member.rank], []
        order = orders.Order(
            forget=tuple(forget),
            fresh=tuple(orders.Fresh(number=one.number, options=one.adapter.options) for one in fresh),
            lessons=lessons,
            questions=questions,
        )
        member.order(orders.encoded(order))
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

    def _learned(
        self, member: Member, share: Sequence[Lesson], room: Sequence[torch.Tensor]
    ) -> sums.Computed:
        if not share:
            return sums.Computed(outcomes=[], sums=[])
        reply = orders.reply_of(member.reply())
        if reply.fault is not None:
            raise orders.raised(reply.fault)
        for tensor in room:
            member.receive(tensor)
        return sums.Computed(outcomes=[orders.outcome_of(one) for one in reply.outcomes], sums=list(room))

    def _add(
        self,
        lessons: Sequence[Lesson],
        deal: Sequence[Sequence[int]],
        done: Mapping[int, sums.Computed],
        before: Sequence[tuple[Trainable, torch.Tensor]],
    ) -> None:
        for learner, gradient in before:
            learner.gradient.copy_(gradient)
        found = [
            (deal[rank][number], total)
            for rank, computed in done.items()
            for number, total in zip(
                sums.all_summed([lessons[n] for n in deal[rank]], apart=self.own.apart),
                computed.sums,
                strict=True,
            )
        ]
        for number, total in sorted(found, key=lambda pair: pair[0]):
            adapter = lessons[number].adapter
            assert adapter is not None
            adapter.gradient.add_(total)


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
