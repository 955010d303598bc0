"""Which way a base model is computed: our own fused passes where they know its family."""

import logging

from engine.models.decoder import why_unknown
from engine.models.resident import ResidentModel
from engine.passes.fused import FusedModel
from engine.passes.model import Model

log = logging.getLogger("tuningfork.trainer")


def model_of(base: ResidentModel, *, max_tokens: int, most_runs: int) -> Model:
    reason = why_unknown(base.causal_lm, max_tokens=max_tokens)
    if reason is None:
        return FusedModel(base, most_runs=most_runs)
    raise NotImplementedError(reason)
