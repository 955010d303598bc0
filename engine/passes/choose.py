"""Which way a base model is computed: our own fused passes where they know its family."""

import logging

from engine.models.decoder import why_unknown
from engine.models.resident import ResidentModel
from engine.passes.fused import FusedModel
from engine.passes.model import Model
from engine.passes.peft import PlainModel

log = logging.getLogger("tuningfork.trainer")


def model_of(
    base: ResidentModel, *, max_tokens: int, most_runs: int, room: int | None = None, sharded: bool = False
) -> Model:
    """`room`: bytes that runs may use together; None: what this machine can give. `sharded`: see `FusedModel`; other
    families cannot be."""
    reason = why_unknown(base.causal_lm, max_tokens=max_tokens)
    if reason is None:
        return FusedModel(base, most_runs=most_runs, room=room, sharded=sharded)
    log.warning("%s is trained through transformers and peft, one run at a time: %s", base.name, reason)
    return PlainModel(base, token_budget=max_tokens, reason=reason, room=room)
