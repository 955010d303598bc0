"""Whether our own passes compute what the model itself computes, asked once when it is loaded. Nothing is learned from
a config's words here: a feature that no list of ours names shows in the logits."""

from dataclasses import replace
from typing import Any, Final

import torch

from engine.lora.linear import Segment
from engine.models.decoder import Decoder
from engine.passes.decode import packed_prompts
from engine.passes.forward import batch_of, hidden_rows

TOKENS: Final = 24
# How far apart logits may be, relative. Rounding makes 3e-6 of it in float32 and 4e-2 in bfloat16 (SmolLM2, 30 layers),
# so that bfloat16 shows only what is far off.
ROUNDING: Final = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.03}


def why_apart(decoder: Decoder, causal_lm: Any) -> str | None:
    """Why the model is not to be trusted to our passes; None where its logits are ours."""
    vocabulary = decoder.embedding.shape[0]
    ids = [(7919 * at + 13) % vocabulary for at in range(TOKENS)]  # all over the vocabulary
    with torch.no_grad():
        theirs = causal_lm(input_ids=torch.tensor([ids], device=decoder.device), use_cache=False).logits[0]
        ours = logits_of(decoder, ids)
    apart = distance(ours, theirs)
    if apart <= ROUNDING.get(decoder.embedding.dtype, ROUNDING[torch.bfloat16]):
        return None
    return f"the logits of {TOKENS} tokens differ by {apart:.1%} from those of our own passes"


def logits_of(decoder: Decoder, ids: list[int]) -> torch.Tensor:
    """(T, V): of one sequence, each of whose tokens is a row."""
    whole = replace(packed_prompts([ids]), rows=tuple(range(len(ids))))
    batch = batch_of([(whole, Segment(start=0, end=0, adapter=None))], device=decoder.device, tile=None)
    return hidden_rows(decoder, batch) @ decoder.head.T


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Relative, of what a softmax sees. Not a number where either has one that is none."""
    left, right = (logits.float() - logits.float().mean(-1, keepdim=True) for logits in (ours, theirs))
    return float((left - right).norm() / right.norm())
