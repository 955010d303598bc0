"""Reinforcement fine-tuning: answers sampled in groups, graded, and made likelier by how much better than their group.

Loss: -sum_i A_i sum_t ln p(o_it) / sum_i |o_i|, with A_i = reward_i - mean reward of its group: GRPO without the
division by the group's deviation, which favours questions that are too easy or too hard. One step per sampling, so
the ratio to the sampling policy is 1. Source: Liu et al., "Understanding R1-Zero-Like Training" (2025), section 3.
"""

import asyncio
import json
from collections.abc import Coroutine, Generator, Mapping, Sequence
from typing import Any, Final, TypeVar

from engine.contract.sampling import MAX_ANSWER_TOKENS, group_size
from engine.contract.spec import Reinforcement
from engine.core.batches import derived_seed
from engine.core.packing import Tokens
from engine.data.chat import ChatFormat
from engine.data.prompts import Prompt
from engine.graders.grading import Answer as GraderAnswer
from engine.graders.grading import Grade, TokenUse, grade
from engine.graders.samples import sample_of
from engine.graders.sandbox.bubblewrap import Sandbox
from engine.methods.objective import Score, Scoring, StepContext
from engine.methods.sft import learn_weighted
from engine.models.grammar import schema_of
from engine.passes.work import (
    Answer,
    Ask,
    Gone,
    GoneError,
    Outside,
    Results,
    Sample,
    Sampling,
    Weights,
    Works,
)

Rollout = tuple[Sequence[Answer], list[Grade]]
MIN_ANSWER_TOKENS = 16
GONE_SECONDS: Final = 1.0  # between looks at whether anybody still waits for the grades
T = TypeVar("T")
MAX_ROWS = 64  # samples asked for at a time: other runs have their turn in between


class GraderFailedError(Exception):
    """Not one sample of a step could be graded: going on would teach nothing. `details` is for the job's owner."""

    def __init__(self, details: str) -> None:
        super().__init__("no sample could be graded")
        self.details = details


def advantages(rewards: Sequence[float]) -> list[float]:
    if min(rewards) == max(rewards):
        return [0.0] * len(rewards)  # their mean may be one bit off
    mean = sum(rewards) / len(rewards)
    return [reward - mean for reward in rewards]


class ReinforcementObjective:
    def __init__(
        self,
        prompts: Sequence[Prompt],
        valid: Sequence[Prompt],
        *,
        method: Reinforcement,
        chat: ChatFormat,
        seed: int,
    ) -> None:
        self._prompts, self._valid, self._method = prompts, valid, method
        self._chat, self._seed = chat, seed
        self._schema = schema_of(method.response_format)
        self.full_interval: int | None = method.eval_interval
        self.train_examples, self.valid_examples = len(prompts), len(valid)
        self.tokens_per_epoch = sum(len(prompt.token_ids) for prompt in prompts)
        longest = max(len(prompt.token_ids) for prompt in prompts)
        self.largest_group = longest + group_size(method.compute_multiplier) * MAX_ANSWER_TOKENS

    def gradients(self, batch: Sequence[int], context: StepContext) -> Scoring:
        """A group whose rewards are all alike teaches nothing and adds nothing."""
        count = group_size(self._method.compute_multiplier)
        prompts = [self._prompts[row] for row in batch]
        rollouts = yield from self._rollouts(prompts, count=count, seed=("rollout", context.step))
        groups, tokens = [], 0
        for prompt, (answers, graded) in zip(prompts, rollouts, strict=True):
            tokens += sum(len(prompt.token_ids) + len(each.token_ids) for each in answers)
            groups.append(weighted_group(prompt, answers, advantages([one.reward for one in graded])))
        grades = [one for _, graded in rollouts for one in graded]
        raise_if_none_graded(grades)
        total = sum(len(each.token_ids) for answers, _ in rollouts for each in answers)
        learned = [group for group in groups if group]
        score = Score(loss=0.0, accuracy=0.0)
        if learned:
            score = yield from learn_weighted(learned, context, total=total)
        extra = {**measured(grades), "completion_tokens_mean": total / len(grades)}
        return Score(loss=score.loss, accuracy=score.accuracy, tokens=tokens, extra=extra)

    def score(self, rows: Sequence[int], context: StepContext) -> Scoring:
        """Mean reward of `eval_samples` answers to each row; there is no loss to tell."""
        prompts = [self._valid[row] for row in rows]
        count = self._method.eval_samples
        rollouts = yield from self._rollouts(prompts, count=count, seed=("validation", context.step))
        grades = [one for _, graded in rollouts for one in graded]
        return Score(loss=None, accuracy=None, extra=measured(grades))

    def probe_tokens(self) -> tuple[int, ...]:
        return (self._valid or self._prompts)[0].token_ids

    def _rollouts(
        self, prompts: Sequence[Prompt], *, count: int, seed: tuple[int | str, ...]
    ) -> Generator[Works, Results, list[Rollout]]:
        """Of each prompt, in order. As many are sampled at a time as fit `MAX_ROWS`; then all are graded."""
        groups = together([self._limit(prompt) for prompt in prompts], at_once=max(1, MAX_ROWS // count))
        sampled = yield [
            self._sample(
                [prompts[place] for place in group],
                count=count,
                seed=derived_seed(self._seed, *seed, group[0]),
            )
            for group in groups
        ]
        found = {
            place: one
            for group, each in zip(groups, sampled, strict=True)
            for place, one in zip(group, each, strict=True)
        }
        answers = [found[place] for place in range(len(prompts))]
        (graded,) = yield [Outside(task=lambda ask, gone: self._all_graded(prompts, answers, ask, gone))]
        return list(zip(answers, graded, strict=True))

    def _limit(self, prompt: Prompt) -> int:
        """Tokens that an answer may have."""
        return min(MAX_ANSWER_TOKENS, self._chat.max_tokens - len(prompt.token_ids))

    def _sample(self, prompts: Sequence[Prompt], *, count: int, seed: int) -> Sample:
        """`prompts` have one limit."""
        sampling = Sampling(max_tokens=self._limit(prompts[0]), seed=seed, schema=self._schema)
        return Sample(prompts=[prompt.token_ids for prompt in prompts], count=count, sampling=sampling)

    def _all_graded(
        self, prompts: Sequence[Prompt], answers: Sequence[Sequence[Answer]], ask: Ask, gone: Gone
    ) -> list[list[Grade]]:
        async def one_by_one() -> list[list[Grade]]:
            sandbox = Sandbox()  # of this loop, as its semaphore is
            return [
                await self._graded(prompt, each, ask, sandbox)
                for prompt, each in zip(prompts, answers, strict=True)
            ]

        return asyncio.run(unless_gone(one_by_one(), gone))

    async def _graded(
        self, prompt: Prompt, answers: Sequence[Answer], ask: Ask, sandbox: Sandbox
    ) -> list[Grade]:
        async def ask_base(request: Mapping[str, Any]) -> GraderAnswer:
            return await asyncio.to_thread(answer_of_base, ask, request, chat=self._chat, seed=self._seed)

        work = (
            grade(
                self._method.grader,
                sample=sample_of(each.text),
                item=prompt.item,
                ask=ask_base,
                sandbox=sandbox,
            )
            for each in answers
        )
        return list(await asyncio.gather(*work))


async def unless_gone(work: Coroutine[Any, Any, T], gone: Gone) -> T:
    """A step's grading may take hours, also of a run that was cancelled: then what runs in a sandbox is killed, and what
    waits for one is dropped. Raises GoneError."""
    task = asyncio.create_task(work)
    while not task.done():
        if gone():
            task.cancel()  # again: `wait_for` may lose one that comes with what it waits for
        await asyncio.wait({task}, timeout=GONE_SECONDS)
    if task.cancelled():
        raise GoneError
    return task.result()


def together(limits: Sequence[int], *, at_once: int) -> list[list[int]]:
    """Places of the prompts that are asked in one go: a long one's limit must not cut the answers to others. Where all
    have one limit they are cut in their order.
    """
    alike: dict[int, list[int]] = {}
    for place, limit in enumerate(limits):
        alike.setdefault(limit, []).append(place)
    return [
        places[start : start + at_once]
        for places in alike.values()
        for start in range(0, len(places), at_once)
    ]


def weighted_group(prompt: Prompt, answers: Sequence[Answer], by: Sequence[float]) -> list[Tokens]:
    """The answers that teach something, their tokens weighted by their advantage."""
    return [
        Tokens(
            token_ids=prompt.token_ids + each.token_ids,
            weights=(0.0,) * len(prompt.token_ids) + (advantage,) * len(each.token_ids),
        )
        for each, advantage in zip(answers, by, strict=True)
        if advantage
    ]


def measured(grades: Sequence[Grade]) -> dict[str, float]:
    count = len(grades)
    found = {
        "mean_reward": sum(each.reward for each in grades) / count,
        "mean_parse_error": sum(each.errors.sample_parse_error for each in grades) / count,
        "mean_grader_error": sum(each.errors.any for each in grades) / count,
    }
    for key in grades[0].scores:
        found[f"reward_mean.{key}"] = sum(each.scores.get(key, 0.0) for each in grades) / count
    return found


def broken(grade: Grade) -> bool:
    """By a fault of the grader, not of the answer."""
    errors = grade.errors
    return (
        errors.python_grader_runtime_error
        or errors.python_grader_server_error
        or errors.model_grader_server_error
        or errors.formula_parse_error
    )


def raise_if_none_graded(grades: Sequence[Grade]) -> None:
    if all(broken(each) for each in grades):
        errors = {name: value for name, value in vars(grades[0].errors).items() if value}
        raise GraderFailedError(json.dumps(errors)[:2000])


def answer_of_base(ask: Ask, request: Mapping[str, Any], *, chat: ChatFormat, seed: int) -> GraderAnswer:
    """A model grader is the base model itself, its adapter off."""
    prompt = chat.render(request["messages"], tools=None, prompt=True)
    sampling = Sampling(
        max_tokens=max(1, min(int(request["max_completion_tokens"]), chat.max_tokens - len(prompt))),
        seed=derived_seed(seed, "grader", int(request.get("seed") or 0)),
        temperature=float(request.get("temperature", 0)),
        top_p=float(request.get("top_p", 1)),
        schema=schema_of(request.get("response_format")),
    )
    ((answer,),) = ask(Sample(prompts=[prompt], count=1, sampling=sampling, weights=Weights.BASE))
    use = TokenUse(prompt_tokens=len(prompt), completion_tokens=len(answer.token_ids))
    return GraderAnswer(text=answer.text, model=chat.model, use=use)
