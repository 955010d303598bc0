"""The forward pass of a packed batch through the decoder, with every run's own adapter on its own tokens.

Shapes: T tokens of the pass, R rows wanted, D features, H heads, K key heads, E features of a head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from engine.core.elementwise import rms_norm, rotate, swiglu
from engine.core.packing import Packed, Span
from engine.lora.linear import Place, Segment, lora_linear
from engine.models.decoder import Decoder, Layer
from engine.passes.attention import attention

# Number of the layer, q (T, H, E), k and v (T, K, E) -> what the tokens gather, (T, H * E).
Attend: TypeAlias = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
OneLayer: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
Through: TypeAlias = Callable[[OneLayer, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The packs of several runs behind each other. `segments` of tokens, `row_segments` of rows, one per run.

    tile: see `engine.models.frozen.product`. T and R are multiples of it, the rest filled up with what nobody reads.
    """

    token_ids: torch.Tensor
    positions: torch.Tensor
    rows: torch.Tensor
    spans: tuple[Span, ...]
    segments: tuple[Segment, ...]
    row_segments: tuple[Segment, ...]
    tile: int | None


def batch_of(
    parts: Sequence[tuple[Packed, Segment]], *, device: torch.device, tile: int | None, multiple: int = 1
) -> Batch:
    """Each part's segment gives adapter and dropout; where it lies is decided here. T and R are filled up to a multiple of
    `tile`, or of `multiple` where there is none."""
    ids: list[int] = []
    positions: list[int] = []
    rows: list[int] = []
    spans: list[Span] = []
    segments, row_segments = [], []
    for packed, wanted in parts:
        start, first_row = len(ids), len(rows)
        ids += packed.token_ids
        positions += packed.positions
        rows += [start + row for row in packed.rows]
        spans += [moved(span, start) for span in packed.spans]
        segments.append(replace(wanted, start=start, end=len(ids)))
        row_segments.append(replace(wanted, start=first_row, end=len(rows)))
    multiple = tile or multiple
    ids += [0] * (-len(ids) % multiple)
    positions += [0] * (len(ids) - len(positions))
    rows += [0] * (-len(rows) % multiple)
    return Batch(
        token_ids=torch.tensor(ids, device=device),
        positions=torch.tensor(positions, device=device),
        rows=torch.tensor(rows, device=device, dtype=torch.long),
        spans=tuple(spans),
        segments=tuple(segments),
        row_segments=tuple(row_segments),
        tile=tile,
    )


def moved(span: Span, by: int) -> Span:
    before = tuple((start + by, end + by) for start, end in span.before)
    return Span(start=span.start + by, end=span.end + by, before=before)


def keeping(layer: OneLayer, x: torch.Tensor) -> torch.Tensor:
    """The backward finds all that it needs."""
    return layer(x)


def recomputing(layer: OneLayer, x: torch.Tensor) -> torch.Tensor:
    """Only the layer's input is kept: the backward computes the layer again, with the same bits, as dropout is drawn from
    seeds. Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost" (2016)."""
    out: torch.Tensor = checkpoint(layer, x, use_reentrant=False, preserve_rng_state=False)
    return out


def hidden_rows(
    decoder: Decoder, batch: Batch, *, attend: Attend | None = None, through: Through = keeping
) -> torch.Tensor:
    """Final hidden states (R, D), after the last norm, of the rows alone: the last layer's MLP runs on no other.

    attend: what the tokens see, where that is not each other within the batch's spans.
    """
    x = F.embedding(batch.token_ids, decoder.embedding)
    anchor = torch.zeros(0, device=decoder.device, requires_grad=True)
    cos_sin = decoder.rotary(batch.positions)
    for number in range(len(decoder.layers)):
        layer = partial(
            after_layer,
            number=number,
            decoder=decoder,
            batch=batch,
            cos_sin=cos_sin,
            attend=attend,
            anchor=anchor,
        )
        x = through(layer, x)
    return normed(x, decoder.norm, decoder, tile=batch.tile)


def after_layer(
    x: torch.Tensor,
    *,
    number: int,
    decoder: Decoder,
    batch: Batch,
    cos_sin: tuple[torch.Tensor, torch.Tensor],
    attend: Attend | None,
    anchor: torch.Tensor,
) -> torch.Tensor:
    layer = decoder.layers[number]
    stream = normed(x, layer.input_norm, decoder, tile=batch.tile)
    place = Place(layer=number, group="qkv", tile=batch.tile, needs_input_gradient=number > 0)
    qkv = lora_linear(stream, anchor, layer.linear["qkv"], place, batch.segments)
    query, key, value = heads_of(qkv, decoder, layer, cos_sin, tile=batch.tile)
    mixed = attention(query, key, value, batch.spans) if attend is None else attend(number, query, key, value)
    segments = batch.segments
    if number == len(decoder.layers) - 1:
        # Not x[rows]: rows that repeat (a shared prefix's last) would be added up in any order in the backward.
        x, mixed = x.index_select(0, batch.rows), mixed.index_select(0, batch.rows)
        segments = batch.row_segments
    return block(x, mixed, decoder, layer, number, segments, tile=batch.tile, anchor=anchor)


def block(
    x: torch.Tensor,
    mixed: torch.Tensor,
    decoder: Decoder,
    layer: Layer,
    number: int,
    segments: Sequence[Segment],
    *,
    tile: int | None,
    anchor: torch.Tensor,
) -> torch.Tensor:
    """What follows the attention: its output projection and the MLP, each added to the stream."""

    def linear(value: torch.Tensor, group: str) -> torch.Tensor:
        place = Place(layer=number, group=group, tile=tile, needs_input_gradient=True)
        return lora_linear(value, anchor, layer.linear[group], place, segments)

    x = x + linear(mixed, "o")
    stream = normed(x, layer.mlp_norm, decoder, tile=tile)
    return x + linear(swiglu(linear(stream, "gate_up")), "down")


def normed(x: torch.Tensor, weight: torch.Tensor, decoder: Decoder, *, tile: int | None) -> torch.Tensor:
    """A GPU adds up a row in an order that depends on how many rows there are: with a tile it is given equally many."""
    if tile is None or x.shape[0] == tile:
        return rms_norm(x, weight, decoder.eps)
    return torch.cat([rms_norm(rows, weight, decoder.eps) for rows in torch.split(x, tile)])


def heads_of(
    qkv: torch.Tensor,
    decoder: Decoder,
    layer: Layer,
    cos_sin: tuple[torch.Tensor, torch.Tensor],
    *,
    tile: int | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q (T, H, E), k and v (T, K, E); q and k rotated."""
    sizes = [decoder.heads, decoder.key_heads, decoder.key_heads]
    heads = qkv.view(qkv.shape[0], -1, decoder.head_size)
    query, key, value = torch.split(heads, sizes, dim=1)
    if layer.query_norm is not None and layer.key_norm is not None:
        query = normed(query, layer.query_norm, decoder, tile=tile)
        key = normed(key, layer.key_norm, decoder, tile=tile)
    return rotate(query, *cos_sin), rotate(key, *cos_sin), value
