"""Direct preference optimisation on pairs of answers. The reference is the same model as the run began: its
adapter off, or as the tuned model had it that the run started from.

Loss of a pair: -ln sigmoid(beta * ((ln p_w - ln r_w) - (ln p_l - ln r_l))), p: policy, r: reference, w: preferred,
l: not; sums over the answer's tokens. Source: Rafailov et al., "Direct Preference Optimization" (2023), eq. 7.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from engine.core.batches import micro_batches
from engine.data.pairs import Pair
from engine.methods.objective import TOKEN_BUDGET, Policy, Score, as_reference
from engine.methods.sft import collate
from engine.models.resident import logits_of_rows


def answer_logprobs(policy: Policy, pairs: Sequence[Pair]) -> tuple[torch.Tensor, int, int]:
    """ln p of the answers (2N: all preferred, then all others), and on the preferred tokens: hits, count."""
    examples = [pair.preferred for pair in pairs] + [pair.other for pair in pairs]
    batch = collate(examples, device=policy.device)
    logits_RV = logits_of_rows(policy.causal_lm, token_ids_BT=batch.token_ids_BT, rows_R=batch.rows_R).float()
    logprobs_R = -F.cross_entropy(logits_RV, batch.targets_R, reduction="none")
    sums_E = torch.zeros(len(examples), device=policy.device).index_add(0, batch.examples_R, logprobs_R)
    with torch.no_grad():
        preferred_R = batch.examples_R < len(pairs)
        hits_R = (logits_RV.argmax(-1) == batch.targets_R) & preferred_R
    return sums_E, int(hits_R.sum()), int(preferred_R.sum())


def pair_sums(
    logprobs_E: torch.Tensor, reference_E: torch.Tensor, *, beta: float
) -> tuple[torch.Tensor, ...]:
    """Losses and implicit reward margins, one per pair (N)."""
    preferred_N, other_N = (logprobs_E - reference_E).chunk(2)
    margins_N = beta * (preferred_N - other_N)
    return -F.logsigmoid(margins_N), margins_N.detach()


class DpoObjective:
    full_interval: int | None = None

    def __init__(self, pairs: Sequence[Pair], valid: Sequence[Pair], *, beta: float) -> None:
        self._pairs, self._valid, self._beta = pairs, valid, beta
        self._references: dict[int, tuple[float, float]] = {}
        self.train_examples, self.valid_examples = len(pairs), len(valid)
        self.tokens_per_epoch = sum(pair.tokens for pair in pairs)

    def gradients(self, policy: Policy, batch: Sequence[int], *, step: int) -> Score:
        pairs = [self._pairs[i] for i in batch]
        return self._over(policy, pairs, learn=True)

    def score(self, policy: Policy, rows: Sequence[int], *, step: int) -> Score:
        return self._over(policy, [self._valid[i] for i in rows], learn=False)

    def _over(self, policy: Policy, pairs: Sequence[Pair], *, learn: bool) -> Score:
        loss, wins, margin, right, rows = 0.0, 0, 0.0, 0, 0
        reference = [self.reference(policy, pair) for pair in pairs]
        lengths = [2 * pair.longest for pair in pairs]  # a pair is two rows
        for group in micro_batches(range(len(pairs)), lengths=lengths, token_budget=TOKEN_BUDGET):
            chosen = [pairs[i] for i in group]
            reference_E = torch.tensor(
                [reference[i][0] for i in group] + [reference[i][1] for i in group], device=policy.device
            )
            with torch.set_grad_enabled(learn):
                logprobs_E, hits, count = answer_logprobs(policy, chosen)
                losses_N, margins_N = pair_sums(logprobs_E, reference_E, beta=self._beta)
            if learn:
                (losses_N.sum() / len(pairs)).backward()  # type: ignore[no-untyped-call]
            loss += float(losses_N.detach().sum())
            wins, margin = wins + int((margins_N > 0).sum()), margin + float(margins_N.sum())
            right, rows = right + hits, rows + count
        extra = {"reward_accuracy": wins / len(pairs), "reward_margin": margin / len(pairs)}
        tokens = sum(pair.tokens for pair in pairs)
        return Score(loss=loss / len(pairs), accuracy=right / rows, tokens=tokens, extra=extra)

    def reference(self, policy: Policy, pair: Pair) -> tuple[float, float]:
        """Asked once per pair, and alone: so it is the same number whatever batch the pair comes in, before and
        after a resume."""
        if id(pair) not in self._references:
            training = policy.adapted.training
            policy.adapted.eval()
            with as_reference(policy), torch.inference_mode():
                preferred, other = answer_logprobs(policy, [pair])[0].tolist()
            policy.adapted.train(training)
            self._references[id(pair)] = (preferred, other)
        return self._references[id(pair)]

    def probe_tokens(self) -> tuple[int, ...]:
        return (self._valid or self._pairs)[0].preferred.token_ids
