"""Which way a base model is computed: our own fused passes where they know its family and agree with it."""

import logging

from engine.models.decoder import why_unknown
from engine.models.resident import ResidentModel
from engine.passes.agreement import why_apart
from engine.passes.fused import FusedModel
from engine.passes.model import Model

log = logging.getLogger("tuningfork.trainer")


def model_of(
    base: ResidentModel,
    *,
    max_tokens: int,
    most_runs: int,
    room: int | None = None,
    fixed_shapes: bool = False,
    sharded: bool = False,
) -> Model:
    """`room`: bytes that runs may use together; None: what this machine can give. `sharded`: see `FusedModel`; other
    families cannot be.

    Raises ValueError for a quantised base that our own passes do not know. Such a base is not compared with
    transformers' own pass, whose layers bitsandbytes may compute in bfloat16; nor is a sharded one, whose layers are gone.
    """
    reason = why_unknown(base.causal_lm, max_tokens=max_tokens)
    if reason is None:
        fused = FusedModel(base, most_runs=most_runs, room=room, fixed_shapes=fixed_shapes, sharded=sharded)
        reason = None if base.notice or sharded else why_apart(fused.decoder, base.causal_lm)
        if reason is None:
            return fused
    if base.notice:
        raise ValueError(f"{base.name} cannot be held in NF4: {reason}.")
    log.warning("%s is trained through transformers and peft, one run at a time: %s", base.name, reason)
    from engine.passes.peft import PlainModel  # with peft, whose import takes long

    return PlainModel(base, token_budget=max_tokens, reason=reason, room=room)
