"""What the tokens of a pass gather from each other: span by span, so that no sequence sees another, and none changes
another's arithmetic.

Shapes: T tokens of the pass, S of one span, P of what comes before it, H heads, K key heads, E features of a head.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from engine.core.packing import Span

flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spans: Sequence[Span]
) -> torch.Tensor:
    """(T, H * E) from query (T, H, E), key and value (T, K, E)."""
    if query.device.type == "cpu":
        mixed: torch.Tensor = CpuAttention.apply(query, key, value, spans)  # type: ignore[no-untyped-call]
        return mixed.flatten(1)
    return in_pieces(query, key, value, spans).flatten(1)


class CpuAttention(torch.autograd.Function):
    """All spans as one operation: autograd's own for each of them took as long as a fifth of their arithmetic. What comes
    before a span is put together once more in the backward: to keep it would take the memory of as many tokens again
    for every sequence that shares them.

    In float32 inside: on a CPU the backward of bfloat16 takes four times as long.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spans: Sequence[Span]
    ) -> torch.Tensor:
        wide = [tensor.float() for tensor in (query, key, value)]
        mixed = torch.zeros_like(wide[0], memory_format=torch.contiguous_format)
        sums = []
        for span in spans:
            q, k, v = (heads(tensor) for tensor in seen(span, *wide))
            out, log_sums = flash(q, k, v, is_causal=not span.before, attn_mask=mask_of(span, query.device))
            mixed[span.start : span.end] = out[0].transpose(0, 1)
            sums.append(log_sums)
        ctx.save_for_backward(query, key, value, mixed, *sums)
        ctx.spans = spans
        return mixed.to(query.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, mixed, *sums = ctx.saved_tensors
        wide = [tensor.float() for tensor in (query, key, value)]
        grad_mixed = grads[0].float()
        found = [torch.zeros_like(tensor, memory_format=torch.contiguous_format) for tensor in wide]
        for span, log_sums in zip(ctx.spans, sums, strict=True):
            own = slice(span.start, span.end)
            q, k, v = (heads(tensor) for tensor in seen(span, *wide))
            parts = flash_backward(
                *(heads(grad_mixed[own]), q, k, v, heads(mixed[own]), log_sums),
                dropout_p=0.0,
                is_causal=not span.before,
                attn_mask=mask_of(span, query.device),
            )
            add_seen(span, found, [part[0].transpose(0, 1) for part in parts])
        return *(tensor.to(query.dtype) for tensor in found), None


def seen(
    span: Span, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Queries (S, H, E) of the span; keys and values (P + S, K, E) that they see."""
    own = slice(span.start, span.end)
    if not span.before:
        return query[own], key[own], value[own]
    places = [slice(start, end) for start, end in span.before] + [own]
    keys, values = (torch.cat([tensor[place] for place in places]) for tensor in (key, value))
    return query[own], keys, values


def add_seen(span: Span, totals: Sequence[torch.Tensor], parts: Sequence[torch.Tensor]) -> None:
    """Gradients of what `seen` gave, added where it was taken from."""
    totals[0][span.start : span.end] += parts[0]
    for total, part in zip(totals[1:], parts[1:], strict=True):
        at = 0
        for start, end in (*span.before, (span.start, span.end)):
            total[start:end] += part[at : at + end - start]
            at += end - start


def heads(tensor: torch.Tensor) -> torch.Tensor:
    """(1, H, S, E) of (S, H, E)."""
    return tensor.transpose(0, 1)[None]


def mask_of(span: Span, device: torch.device) -> torch.Tensor | None:
    """(S, P + S), added to the scores."""
    if not span.before:
        return None
    size = span.end - span.start
    return torch.full((size, span.prefix + size), -torch.inf, device=device).triu_(span.prefix + 1)


def in_pieces(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, spans: Sequence[Span]
) -> torch.Tensor:
    sizes = [span.end - span.start for span in spans]
    filled = query.shape[0] - sum(sizes)
    cuts = [*sizes, filled] if filled else sizes
    pieces = [torch.split(tensor, cuts) for tensor in (query, key, value)]
    at = {span.start: number for number, span in enumerate(spans)}
    mixed = []
    for number, span in enumerate(spans):
        q, k, v = (piece[number] for piece in pieces)
        if span.before:
            before = [at[start] for start, _ in span.before]
            keys, values = ([piece[one] for one in [*before, number]] for piece in pieces[1:])
            mixed.append(checkpoint(behind, q, keys, values, use_reentrant=False, preserve_rng_state=False))
        else:
            mixed.append(attended(q, k, v, mask=None))
    if filled:
        mixed.append(torch.zeros_like(pieces[0][-1]))
    return torch.cat(mixed)


def behind(q: torch.Tensor, keys: Sequence[torch.Tensor], values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Put together once more in the backward, as on a CPU."""
    k, v = torch.cat(list(keys)), torch.cat(list(values))
    mask = torch.ones((q.shape[0], k.shape[0]), dtype=torch.bool, device=q.device)
    return attended(q, k, v, mask=mask.tril_(k.shape[0] - q.shape[0]))


def attended(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, mask: torch.Tensor | None) -> torch.Tensor:
    """(S, H, E) from q (S, H, E) and k, v (P + S, K, E)."""
    out = F.scaled_dot_product_attention(
        heads(q),
        heads(k),
        heads(v),
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=q.shape[1] != k.shape[1],
    )
    return out[0].transpose(0, 1)
