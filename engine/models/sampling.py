"""Answers sampled from the resident model: several for each prompt, repeatable by a seed, bound to a schema if asked."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from xgrammar.contrib.hf import LogitsProcessor

from engine.models.grammar import grammar
from engine.models.resident import ResidentModel


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """`temperature` 0 takes the likeliest token. `schema`: JSON schema that every whole answer satisfies."""

    max_tokens: int
    seed: int
    temperature: float = 1.0
    top_p: float = 1.0
    schema: str | None = None


@dataclass(frozen=True, kw_only=True)
class Sample:
    """`token_ids` with the end of turn, if it came to one: else it was cut off."""

    token_ids: tuple[int, ...]
    text: str
    whole: bool


def sample(
    base: ResidentModel,
    prompts: Sequence[Sequence[int]],
    *,
    count: int,
    sampling: Sampling,
    end_of_turn: frozenset[int],
) -> list[list[Sample]]:
    """`count` answers to each prompt, all in one pass, whatever adapter is on the base. The global generator stays as
    it was."""
    rows = [list(prompt) for prompt in prompts for _ in range(count)]
    longest = max(len(row) for row in rows)
    pad = min(end_of_turn)
    ids_BT = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=base.device)
    mask_BT = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=base.device)
    processors = []
    if sampling.schema is not None:
        processors = [LogitsProcessor(grammar(base, sampling.schema))]
    greedy = sampling.temperature == 0
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(sampling.seed)
        out_BT = base.causal_lm.generate(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            do_sample=not greedy,
            temperature=None if greedy else sampling.temperature,
            top_p=None if greedy else sampling.top_p,
            top_k=None if greedy else 0,
            max_new_tokens=sampling.max_tokens,
            eos_token_id=sorted(end_of_turn),
            pad_token_id=pad,
            logits_processor=processors,
        )
    answers = [sample_from(row, base=base, end_of_turn=end_of_turn) for row in out_BT[:, longest:].tolist()]
    return [answers[start : start + count] for start in range(0, len(answers), count)]


def sample_from(row: list[int], *, base: ResidentModel, end_of_turn: frozenset[int]) -> Sample:
    ends = (i for i, token in enumerate(row) if token in end_of_turn)
    end = next(ends, None)
    ids = row if end is None else row[: end + 1]
    text = base.tokenizer.decode(ids if end is None else ids[:-1], skip_special_tokens=True)
    return Sample(token_ids=tuple(ids), text=str(text), whole=end is not None)
