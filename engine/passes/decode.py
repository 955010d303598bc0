"""Answers sampled with our own decoder and one run's adapter: each prompt is read once for all its answers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import torch
import xgrammar

from engine.core.batches import derived_seed
from engine.core.drawing import drawn
from engine.core.packing import Packed, Span
from engine.lora.adapter import Adapter
from engine.lora.linear import Segment
from engine.models.decoder import Decoder
from engine.models.grammar import compiled
from engine.passes.attention import attention
from engine.passes.cache import Cache
from engine.passes.forward import Batch, batch_of, hidden_rows
from engine.passes.work import Answer, Sampling, Stepwise

MAX_ROWS: Final = 64  # answers at a time, and
MAX_PROMPT_TOKENS: Final = 16_384  # padded tokens of their prompts: both bound the memory of the caches


@dataclass(frozen=True, kw_only=True)
class Portion:
    """Answers of one prompt that are sampled together. `number`: the prompt's."""

    number: int
    prompt: Sequence[int]
    samples: range


@dataclass(frozen=True, kw_only=True)
class Row:
    """One answer in the making."""

    number: int
    generator: torch.Generator
    matcher: Any | None
    token_ids: list[int] = field(default_factory=list)

    def ended(self, *, sampling: Sampling, end_of_turn: frozenset[int]) -> bool:
        return self.token_ids[-1] in end_of_turn or len(self.token_ids) == sampling.max_tokens


def sample(
    decoder: Decoder,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    count: int,
    sampling: Sampling,
    adapter: Adapter | None,
    end_of_turn: frozenset[int],
) -> Stepwise:
    """`count` answers to each prompt, which has a token at least. Repeatable by the seed; the global generator is
    untouched. No dropout. Yields after each token of all unfinished answers, so that others may compute in between.

    Raises RuntimeError for a schema that cannot be compiled.
    """
    found: list[list[Answer]] = [[] for _ in prompts]
    for portions in chunks(prompts, count=count):
        rows = rows_of(portions, decoder, tokenizer, sampling=sampling, end_of_turn=end_of_turn)
        yield from complete(
            portions, rows, decoder, sampling=sampling, adapter=adapter, end_of_turn=end_of_turn
        )
        for row in rows:
            found[row.number].append(answer_of(row.token_ids, tokenizer, end_of_turn=end_of_turn))
    return found


def chunks(prompts: Sequence[Sequence[int]], *, count: int) -> Iterator[list[Portion]]:
    """What is sampled at a time. A prompt's answers are parted only if they are more than `MAX_ROWS`."""
    chunk: list[Portion] = []
    for number, prompt in enumerate(prompts):
        for start in range(0, count, MAX_ROWS):
            portion = Portion(
                number=number, prompt=prompt, samples=range(start, min(start + MAX_ROWS, count))
            )
            if chunk and not fits([*chunk, portion]):
                yield chunk
                chunk = []
            chunk.append(portion)
    if chunk:
        yield chunk


def fits(portions: Sequence[Portion]) -> bool:
    padded = len(portions) * max(len(portion.prompt) for portion in portions)
    return sum(len(p.samples) for p in portions) <= MAX_ROWS and padded <= MAX_PROMPT_TOKENS


def rows_of(
    portions: Sequence[Portion],
    decoder: Decoder,
    tokenizer: Any,
    *,
    sampling: Sampling,
    end_of_turn: frozenset[int],
) -> list[Row]:
    """Every answer draws from a generator of its own."""
    grammar = None
    if sampling.schema is not None:
        grammar = compiled(tokenizer, decoder.head.shape[0], sampling.schema)
    rows = []
    for portion in portions:
        for nth in portion.samples:
            seed = derived_seed(sampling.seed, portion.number, nth)
            matcher = None
            if grammar is not None:
                matcher = xgrammar.GrammarMatcher(grammar, override_stop_tokens=sorted(end_of_turn))
            generator = torch.Generator().manual_seed(seed)
            rows.append(Row(number=portion.number, generator=generator, matcher=matcher))
    return rows


def complete(
    portions: Sequence[Portion],
    rows: Sequence[Row],
    decoder: Decoder,
    *,
    sampling: Sampling,
    adapter: Adapter | None,
    end_of_turn: frozenset[int],
) -> Iterator[None]:
    """One token of all unfinished rows at a time. A row that has ended is no longer computed."""
    with torch.no_grad():  # not around a yield: who computes in between may want gradients
        cache, hidden = prefilled(portions, decoder, adapter)
        logits = logits_of(hidden, decoder)[cache.prompt_of]
    live = list(rows)
    while True:
        extend(live, logits, sampling)
        for place in reversed(range(len(live))):
            if live[place].ended(sampling=sampling, end_of_turn=end_of_turn):
                cache.drop(place)
                live[place] = live[-1]
                live.pop()
        if not live:
            return
        yield
        with torch.no_grad():
            batch = newest(live, cache.next_token(), adapter)
            hidden = hidden_rows(decoder, batch, attend=cache.attend)
            logits = logits_of(hidden, decoder)


def prefilled(
    portions: Sequence[Portion], decoder: Decoder, adapter: Adapter | None
) -> tuple[Cache, torch.Tensor]:
    """The prompts' keys and values, and the hidden state (N, D) that the first token of each's answers follows from."""
    lengths = [len(portion.prompt) for portion in portions]
    cache = Cache(lengths, [len(portion.samples) for portion in portions], device=decoder.device)
    packed = packed_prompts([portion.prompt for portion in portions])
    segment = Segment(start=0, end=0, adapter=adapter)
    batch = batch_of([(packed, segment)], device=decoder.device, tile=None)
    attend = partial(attend_and_keep, cache, batch)
    return cache, hidden_rows(decoder, batch, attend=attend)


def attend_and_keep(
    cache: Cache, batch: Batch, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> torch.Tensor:
    cache.keep(key, value)
    return attention(query, key, value, batch.spans)


def packed_prompts(prompts: Sequence[Sequence[int]]) -> Packed:
    """Behind each other; the last token of each is a row. Nothing is scored, so there are no targets."""
    ids: list[int] = []
    spans = []
    for prompt in prompts:
        spans.append(Span(start=len(ids), end=len(ids) + len(prompt)))
        ids += prompt
    return Packed(
        token_ids=tuple(ids),
        positions=tuple(position for prompt in prompts for position in range(len(prompt))),
        spans=tuple(spans),
        rows=tuple(span.end - 1 for span in spans),
        targets=(),
        weights=(),
        owners=(),
        bounds=(),
    )


def newest(live: Sequence[Row], positions: torch.Tensor, adapter: Adapter | None) -> Batch:
    """The newest token of each row."""
    segments = (Segment(start=0, end=len(live), adapter=adapter),)
    return Batch(
        token_ids=torch.tensor([row.token_ids[-1] for row in live], device=positions.device),
        positions=positions,
        rows=torch.arange(len(live), device=positions.device),
        spans=(),
        segments=segments,
        row_segments=segments,
        tile=None,
    )


def logits_of(hidden: torch.Tensor, decoder: Decoder) -> torch.Tensor:
    return (hidden @ decoder.head.T).float()


def extend(live: Sequence[Row], logits: torch.Tensor, sampling: Sampling) -> None:
    """By one token each. logits: (B, V), overwritten."""
    bind(live, logits)
    uniform = torch.cat([torch.rand(1, generator=row.generator) for row in live]).to(logits.device)
    tokens = drawn(logits, uniform, temperature=sampling.temperature, top_p=sampling.top_p).tolist()
    for row, token in zip(live, tokens, strict=True):
        row.token_ids.append(token)
        if row.matcher is not None:
            row.matcher.accept_token(token)


def bind(live: Sequence[Row], logits: torch.Tensor) -> None:
    """Forbids what the rows' grammars forbid."""
    bound = [(place, row.matcher) for place, row in enumerate(live) if row.matcher is not None]
    if bound:
        allowed = xgrammar.allocate_token_bitmask(len(live), logits.shape[1])
        for place, matcher in bound:
            matcher.fill_next_token_bitmask(allowed, place)
        xgrammar.apply_token_bitmask_inplace(logits, allowed.to(logits.device))


def answer_of(ids: Sequence[int], tokenizer: Any, *, end_of_turn: frozenset[int]) -> Answer:
    whole = ids[-1] in end_of_turn
    text = tokenizer.decode(ids[:-1] if whole else ids, skip_special_tokens=True)
    return Answer(token_ids=tuple(ids), text=str(text), whole=whole)
