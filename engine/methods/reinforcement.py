"""Reinforcement fine-tuning: answers sampled in groups, graded, and made likelier by how much better than their group.

Loss: -sum_i A_i sum_t ln p(o_it) / sum_i |o_i|, with A_i = reward_i - mean reward of its group: GRPO without the
division by the group's deviation, which favours questions that are too easy or too hard. One step per sampling, so
the ratio to the sampling policy is 1. Source: Liu et al., "Understanding R1-Zero-Like Training" (2025), section 3.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.contract.spec import Reinforcement
from engine.core.batches import derived_seed
from engine.data.chat import ChatFormat, Example
from engine.data.prompts import Prompt
from engine.graders.grading import Answer, Grade, TokenUse, grade
from engine.graders.samples import sample_of
from engine.graders.sandbox.bubblewrap import Sandbox
from engine.methods.objective import Policy, Score
from engine.methods.sft import weighted_gradients
from engine.models.grammar import schema_of
from engine.models.sampling import Sample, Sampling, sample

GROUP = 8  # samples per prompt at a compute_multiplier of 1
MIN_GROUP, MAX_GROUP = 2, 64
MAX_ANSWER_TOKENS = 256
MIN_ANSWER_TOKENS = 16
MAX_ROWS = 64  # samples in one pass: bounds the memory of their caches


class GraderFailedError(Exception):
    """Not one sample of a step could be graded: going on would teach nothing. `details` is for the job's owner."""

    def __init__(self, details: str) -> None:
        super().__init__("no sample could be graded")
        self.details = details


def group_size(compute_multiplier: float) -> int:
    return max(MIN_GROUP, min(MAX_GROUP, round(GROUP * compute_multiplier)))


def advantages(rewards: Sequence[float]) -> list[float]:
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

    def gradients(self, policy: Policy, batch: Sequence[int], *, step: int) -> Score:
        """A group whose rewards are all alike teaches nothing and adds nothing."""
        count = group_size(self._method.compute_multiplier)
        learned, grades, total, tokens = [], [], 0, 0
        prompts = [self._prompts[row] for row in batch]
        rollouts = self._rollouts(policy, prompts, count=count, seed=("rollout", step))
        for prompt, (samples, graded) in zip(prompts, rollouts, strict=True):
            grades += graded
            total += sum(len(each.token_ids) for each in samples)
            for each, advantage in zip(samples, advantages([g.reward for g in graded]), strict=True):
                tokens += len(prompt.token_ids) + len(each.token_ids)
                if advantage:
                    learned.append(weighted(prompt, each, advantage))
        raise_if_none_graded(grades)
        score = weighted_gradients(policy, learned, total=total) if learned else Score(loss=0.0, accuracy=0.0)
        extra = {**measured(grades), "completion_tokens_mean": total / len(grades)}
        return Score(loss=score.loss, accuracy=score.accuracy, tokens=tokens, extra=extra)

    def score(self, policy: Policy, rows: Sequence[int], *, step: int) -> Score:
        """Mean reward of `eval_samples` answers to each row; there is no loss to tell."""
        prompts = [self._valid[row] for row in rows]
        count, seed = self._method.eval_samples, ("validation", step)
        grades = [g for _, graded in self._rollouts(policy, prompts, count=count, seed=seed) for g in graded]
        return Score(loss=None, accuracy=None, extra=measured(grades))

    def probe_tokens(self) -> tuple[int, ...]:
        return (self._valid or self._prompts)[0].token_ids

    def _rollouts(
        self, policy: Policy, prompts: Sequence[Prompt], *, count: int, seed: tuple[int | str, ...]
    ) -> Iterator[tuple[list[Sample], list[Grade]]]:
        """Of each prompt, in order. As many at a time as fit `MAX_ROWS`."""
        training = policy.adapted.training
        policy.adapted.eval()
        at_once = max(1, MAX_ROWS // count)
        for start in range(0, len(prompts), at_once):
            group = prompts[start : start + at_once]
            room = self._chat.max_tokens - max(len(prompt.token_ids) for prompt in group)
            sampling = Sampling(
                max_tokens=min(MAX_ANSWER_TOKENS, room),
                seed=derived_seed(self._seed, *seed, start),
                schema=self._schema,
            )
            answers = sample(
                policy.base,
                [prompt.token_ids for prompt in group],
                count=count,
                sampling=sampling,
                end_of_turn=self._chat.end_of_turn,
            )
            for prompt, samples in zip(group, answers, strict=True):
                yield samples, asyncio.run(self._graded(policy, prompt, samples))
        policy.adapted.train(training)

    async def _graded(self, policy: Policy, prompt: Prompt, samples: Sequence[Sample]) -> list[Grade]:
        sandbox = Sandbox()  # of this loop, as its semaphore is

        async def ask(request: Mapping[str, Any]) -> Answer:
            return answer_of_base(policy, request, chat=self._chat, seed=self._seed)

        work = (
            grade(
                self._method.grader,
                sample=sample_of(each.text),
                item=prompt.item,
                ask=ask,
                sandbox=sandbox,
            )
            for each in samples
        )
        return list(await asyncio.gather(*work))


def weighted(prompt: Prompt, answer: Sample, advantage: float) -> Example:
    return Example(
        token_ids=prompt.token_ids + answer.token_ids,
        weights=(0.0,) * len(prompt.token_ids) + (advantage,) * len(answer.token_ids),
    )


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


def answer_of_base(policy: Policy, request: Mapping[str, Any], *, chat: ChatFormat, seed: int) -> Answer:
    """A model grader is the base model itself, its adapter off."""
    prompt = chat.render(request["messages"], tools=None, prompt=True)
    sampling = Sampling(
        max_tokens=max(1, min(int(request["max_completion_tokens"]), chat.max_tokens - len(prompt))),
        seed=derived_seed(seed, "grader", int(request.get("seed") or 0)),
        temperature=float(request.get("temperature", 0)),
        top_p=float(request.get("top_p", 1)),
        schema=schema_of(request.get("response_format")),
    )
    with policy.as_base():
        ((answer,),) = sample(policy.base, [prompt], count=1, sampling=sampling, end_of_turn=chat.end_of_turn)
    use = TokenUse(prompt_tokens=len(prompt), completion_tokens=len(answer.token_ids))
    return Answer(text=answer.text, model=policy.base.name, use=use)
