"""Answers sampled with transformers' `generate`: several for each prompt, repeatable by a seed, bound to a schema."""

from collections.abc import Sequence

import torch
from xgrammar.contrib.hf import LogitsProcessor

from engine.models.grammar import grammar
from engine.models.resident import ResidentModel
from engine.passes.decode import answer_of
from engine.passes.work import Answer, Sampling


def sampled(
    base: ResidentModel,
    prompts: Sequence[Sequence[int]],
    *,
    count: int,
    sampling: Sampling,
    end_of_turn: frozenset[int],
) -> list[list[Answer]]:
    """`count` answers to each prompt, all in one pass, whatever adapter is on the base. The global generator stays as
    it was."""
    rows = [list(prompt) for prompt in prompts for _ in range(count)]
    if not rows:
        return [[] for _ in prompts]
    longest = max(len(row) for row in rows)
    pad = min(end_of_turn)
    ids_BT = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=base.device)
    mask_BT = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=base.device)
    processors = []
    if sampling.schema is not None:
        processors = [LogitsProcessor(grammar(base, sampling.schema))]
    greedy = sampling.temperature == 0
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(sampling.seed)
        out_BT = base.causal_lm.generate(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            do_sample=not greedy,
            temperature=None if greedy else sampling.temperature,
            top_p=None if greedy else sampling.top_p,
            top_k=None if greedy else 0,
            repetition_penalty=1.0,  # a folder's own default would sample from another distribution than is learned
            max_new_tokens=sampling.max_tokens,
            eos_token_id=sorted(end_of_turn),
            pad_token_id=pad,
            logits_processor=processors,
        )
    answers = [
        answer_of(cut(row, end_of_turn), base.tokenizer, end_of_turn=end_of_turn)
        for row in out_BT[:, longest:].tolist()
    ]
    return [answers[start : start + count] for start in range(0, len(answers), count)]


def cut(row: list[int], end_of_turn: frozenset[int]) -> list[int]:
    """Without the padding behind the end of turn."""
    end = next((i for i, token in enumerate(row) if token in end_of_turn), len(row))
    return row[: end + 1]
