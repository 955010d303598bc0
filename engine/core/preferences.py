"""Losses of preferences: functions of the log-probabilities that answers have, whatever pass computed them.

ln p of an answer: the sum over its tokens, given the prompt, under the policy or the reference. N pairs of a preferred
(w) and another (l) answer to the same prompt. Knows no model, no adapter and no file.
"""

from dataclasses import dataclass
from typing import NamedTuple, assert_never

import torch
from torch.nn import functional as F

from engine.contract.spec import Dpo, PairLoss

MOST_LIKELY = -1e-6  # mean ln p above which an answer's odds no longer count: at 0 they are infinite


class Answers(NamedTuple):
    """One number of each answer: its ln p, or how many tokens it has."""

    preferred_N: torch.Tensor
    other_N: torch.Tensor


class PairLosses(NamedTuple):
    """Losses carry the gradient; margins (preferred reward less the other's) are numbers."""

    losses_N: torch.Tensor
    margins_N: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class PreferenceLoss:
    """Of the pairs of one micro-batch: answers 2i and 2i + 1 are pair i's, and row r is of answer `owners[r]`.

    `references`: ln p of each answer, where the loss needs them. `pairs`: of the whole batch, whose mean is learned.
    """

    owners: tuple[int, ...]
    references: tuple[float, ...] | None
    method: Dpo
    kl: float
    pairs: int

    def __call__(self, logprobs: torch.Tensor, rows: slice) -> torch.Tensor:
        return self.losses(logprobs, rows).losses_N.sum() / self.pairs

    def losses(self, logprobs: torch.Tensor, rows: slice) -> PairLosses:
        """Of the pairs whose rows these are; whole pairs."""
        owners = torch.tensor(self.owners[rows], device=logprobs.device)
        first, last = self.owners[rows.start], self.owners[rows.stop - 1]
        count = last - first + 1
        sums = logprobs.new_zeros(count).index_add(0, owners - first, logprobs)
        tokens = torch.bincount(owners - first, minlength=count)
        reference = None
        if self.references is not None:
            known = self.references[first : first + count]
            reference = answers(torch.tensor(known, device=logprobs.device))
        return pair_losses(
            self.method, policy=answers(sums), tokens=answers(tokens), reference=reference, kl=self.kl
        )


def answers(values: torch.Tensor) -> Answers:
    return Answers(values[0::2], values[1::2])


def needs_reference(loss: PairLoss) -> bool:
    return loss in ("sigmoid", "ipo", "kto")


def pair_losses(
    method: Dpo, *, policy: Answers, tokens: Answers, reference: Answers | None = None, kl: float = 0.0
) -> PairLosses:
    """By the method's loss. `reference` where `needs_reference`; `kl` for kto alone, from `reference_point`."""
    beta = method.beta
    match method.loss:
        case "sigmoid":
            assert reference is not None
            return sigmoid(policy, reference, beta=beta, label_smoothing=method.label_smoothing)
        case "ipo":
            assert reference is not None
            return ipo(policy, reference, tokens, beta=beta)
        case "kto":
            assert reference is not None
            return kto(
                policy,
                reference,
                beta=beta,
                kl=kl,
                desirable_weight=method.desirable_weight,
                undesirable_weight=method.undesirable_weight,
            )
        case "orpo":
            return orpo(policy, tokens, beta=beta)
        case "simpo":
            return simpo(policy, tokens, beta=beta, gamma=method.gamma)
        case _:
            assert_never(method.loss)


def sigmoid(policy: Answers, reference: Answers, *, beta: float, label_smoothing: float = 0.0) -> PairLosses:
    """-(1 - e) ln sigmoid(m) - e ln sigmoid(-m), m = beta * ((ln p_w - ln r_w) - (ln p_l - ln r_l)).

    Sources: Rafailov et al., "Direct Preference Optimization" (2023), eq. 7; with e, the share of pairs whose label is
    wrong: Mitchell, "A note on DPO with noisy preferences & relationship to IPO" (2023): "conservative DPO".
    """
    preferred_N, other_N = less(policy, reference)
    margins_N = beta * (preferred_N - other_N)
    losses_N = -F.logsigmoid(margins_N)
    if label_smoothing:
        losses_N = (1 - label_smoothing) * losses_N - label_smoothing * F.logsigmoid(-margins_N)
    return PairLosses(losses_N, margins_N.detach())


def ipo(policy: Answers, reference: Answers, tokens: Answers, *, beta: float) -> PairLosses:
    """(h - 1 / (2 beta))^2, h = (ln p_w - ln r_w) / |w| - (ln p_l - ln r_l) / |l|; beta is the paper's tau.

    Source: Azar et al., "A General Theoretical Paradigm to Understand Learning from Human Preferences" (2023), eq. 17.
    Means over the tokens, as TRL has it on the authors' word: the target 1 / (2 beta) knows no length.
    """
    preferred_N, other_N = per_token(Answers(*less(policy, reference)), tokens)
    gaps_N = preferred_N - other_N
    return PairLosses((gaps_N - 1 / (2 * beta)) ** 2, beta * gaps_N.detach())


def kto(
    policy: Answers,
    reference: Answers,
    *,
    beta: float,
    kl: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> PairLosses:
    """Half of D (1 - sigmoid(beta (ln p_w - ln r_w - z))) + U (1 - sigmoid(beta (z - ln p_l + ln r_l))).

    Source: Ethayarajh et al., "KTO: Model Alignment as Prospect Theoretic Optimization" (2024), eq. 7, as TRL's trainer
    has it. A pair gives one desirable and one undesirable example; the half makes the mean over pairs the mean over
    examples. z is the reference point, from `reference_point`: one number of the whole batch, so that how the batch is
    cut into passes changes nothing.
    """
    preferred_N, other_N = less(policy, reference)
    point = max(0.0, kl)
    desirable_N = desirable_weight * torch.sigmoid(-beta * (preferred_N - point))
    undesirable_N = undesirable_weight * torch.sigmoid(-beta * (point - other_N))
    margins_N = beta * (preferred_N - other_N)
    return PairLosses((desirable_N + undesirable_N) / 2, margins_N.detach())


def reference_point(policy_M: torch.Tensor, reference_M: torch.Tensor) -> float:
    """KTO's z: max(0, mean of ln p(y'|x) - ln r(y'|x)), a number without gradient; 0 of no answers.

    y' answers another prompt than x: the mean tells how far the policy has left the reference, KL(p || r), which the
    answers being trained on would overstate. As in the paper, the y' of a batch are its own answers, moved on by one:
    of N pairs, in the order of the batch, prompt i goes with both answers of pair (i + 1) mod N, so M = 2N. The caller
    scores them under the policy and under the reference, once, without gradient and with dropout off, before the
    gradients of the batch. A batch of one pair borrows the answers of the pair that is next in the file (mod its
    length), so that z depends on (seed, step) and the weights alone.
    """
    if not policy_M.numel():
        return 0.0
    return max(0.0, float((policy_M.detach().double() - reference_M.detach().double()).mean()))


def orpo(policy: Answers, tokens: Answers, *, beta: float) -> PairLosses:
    """-ln p_w / |w| - beta ln sigmoid(ln odds_w - ln odds_l), odds = P / (1 - P), P = exp(ln p / |.|).

    Source: Hong et al., "ORPO: Monolithic Preference Optimization without Reference Model" (2024), eq. 4, 6 and 7;
    beta is the paper's lambda. The first term is supervised training on the preferred answer.
    """
    preferred_N, other_N = per_token(policy, tokens)
    odds_N = log_odds(preferred_N) - log_odds(other_N)
    losses_N = -preferred_N - beta * F.logsigmoid(odds_N)
    return PairLosses(losses_N, beta * (preferred_N - other_N).detach())


def log_odds(logprobs_N: torch.Tensor) -> torch.Tensor:
    """ln (P / (1 - P)) from ln P below 0."""
    bounded_N = logprobs_N.clamp(max=MOST_LIKELY)
    return bounded_N - torch.log(-torch.expm1(bounded_N))


def simpo(policy: Answers, tokens: Answers, *, beta: float, gamma: float) -> PairLosses:
    """-ln sigmoid(beta (ln p_w / |w| - ln p_l / |l|) - gamma).

    Source: Meng et al., "SimPO: Simple Preference Optimization with a Reference-Free Reward" (2024), eq. 6.
    """
    preferred_N, other_N = per_token(policy, tokens)
    margins_N = beta * (preferred_N - other_N)
    return PairLosses(-F.logsigmoid(margins_N - gamma), margins_N.detach())


def less(policy: Answers, reference: Answers) -> Answers:
    """The log-ratios of policy and reference."""
    return Answers(
        policy.preferred_N - reference.preferred_N.detach(), policy.other_N - reference.other_N.detach()
    )


def per_token(sums: Answers, tokens: Answers) -> Answers:
    return Answers(sums.preferred_N / tokens.preferred_N, sums.other_N / tokens.other_N)
