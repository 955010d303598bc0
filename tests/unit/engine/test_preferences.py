"""Losses of pairs against their papers' formulas, written out in numpy's float64, and their gradients."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from engine.contract.spec import Dpo, PairLoss
from engine.core import preferences
from engine.core.preferences import Answers, PairLosses, needs_reference, pair_losses, reference_point

N = 64
KL = 1.7
Array = np.ndarray


def sigma(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


class Data:
    """Sums over answers of 1 to 40 tokens at 0.1 to 3 nats each, under a policy and a reference that lies near it."""

    def __init__(self, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.n_w, self.n_l = random.integers(1, 41, N).astype(float), random.integers(1, 41, N).astype(float)
        self.w, self.l = -self.n_w * random.uniform(0.1, 3, N), -self.n_l * random.uniform(0.1, 3, N)
        self.r_w, self.r_l = self.w + random.normal(0, 4, N), self.l + random.normal(0, 4, N)

    @property
    def tensors(self) -> tuple[Answers, Answers, Answers]:
        """Policy, reference, tokens."""
        pairs = ((self.w, self.l), (self.r_w, self.r_l), (self.n_w, self.n_l))
        policy, reference, tokens = (Answers(*(torch.from_numpy(each) for each in pair)) for pair in pairs)
        return policy, reference, tokens


def dpo(loss: PairLoss, **changes: float) -> Dpo:
    fields = {"n_epochs": 1, "batch_size": 1, "learning_rate_multiplier": 1.0, "beta": 0.3} | changes
    return Dpo(loss=loss, **fields)  # type: ignore[arg-type]


def rewards(d: Data) -> Array:
    return 0.3 * ((d.w - d.r_w) - (d.l - d.r_l))


def of_sigmoid(d: Data) -> tuple[Array, Array]:
    return -np.log(sigma(rewards(d))), rewards(d)


def of_smoothed(d: Data) -> tuple[Array, Array]:
    m = rewards(d)
    return -(0.8 * np.log(sigma(m)) + 0.2 * np.log(sigma(-m))), m


def of_ipo(d: Data) -> tuple[Array, Array]:
    h = (d.w - d.r_w) / d.n_w - (d.l - d.r_l) / d.n_l
    return np.square(h - 0.5 / 0.3), 0.3 * h


def of_kto(d: Data) -> tuple[Array, Array]:
    good = 1.5 - 1.5 * sigma(0.3 * (d.w - d.r_w - KL))
    bad = 0.5 - 0.5 * sigma(0.3 * (KL - (d.l - d.r_l)))
    return (good + bad) / 2, rewards(d)


def of_orpo(d: Data) -> tuple[Array, Array]:
    p_w, p_l = np.exp(d.w / d.n_w), np.exp(d.l / d.n_l)
    ratio = (p_w / (1 - p_w)) / (p_l / (1 - p_l))
    return -np.log(p_w) - 0.3 * np.log(sigma(np.log(ratio))), 0.3 * np.log(p_w / p_l)


def of_simpo(d: Data) -> tuple[Array, Array]:
    m = 0.3 * d.w / d.n_w - 0.3 * d.l / d.n_l
    return -np.log(sigma(m - 1.25)), m


FORMULAS: dict[str, tuple[Dpo, Callable[[Data], tuple[Array, Array]]]] = {
    "sigmoid": (dpo("sigmoid"), of_sigmoid),
    "smoothed": (dpo("sigmoid", label_smoothing=0.2), of_smoothed),
    "ipo": (dpo("ipo"), of_ipo),
    "kto": (dpo("kto", desirable_weight=1.5, undesirable_weight=0.5), of_kto),
    "orpo": (dpo("orpo"), of_orpo),
    "simpo": (dpo("simpo", gamma=1.25), of_simpo),
}


def losses(method: Dpo, policy: Answers, reference: Answers, tokens: Answers) -> PairLosses:
    given = reference if needs_reference(method.loss) else None
    return pair_losses(method, policy=policy, tokens=tokens, reference=given, kl=KL)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("seed", range(3))
def test_a_loss_is_its_papers(name: str, seed: int) -> None:
    method, formula = FORMULAS[name]
    data = Data(seed)
    found, (expected, margins) = losses(method, *data.tensors), formula(data)
    np.testing.assert_allclose(found.losses_N.numpy(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.margins_N.numpy(), margins, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", FORMULAS)
def test_its_gradient_is_its_own(name: str) -> None:
    method, _ = FORMULAS[name]
    policy, reference, tokens = (Answers(*(each[:5] for each in answers)) for answers in Data().tensors)

    def both(preferred_N: torch.Tensor, other_N: torch.Tensor) -> torch.Tensor:
        return losses(method, Answers(preferred_N, other_N), reference, tokens).losses_N

    assert torch.autograd.gradcheck(both, tuple(each.clone().requires_grad_() for each in policy))


@pytest.mark.parametrize("name", FORMULAS)
def test_neither_the_margins_nor_the_reference_learn(name: str) -> None:
    method, _ = FORMULAS[name]
    policy, reference, tokens = Data().tensors
    for answers in (policy, reference):
        for each in answers:
            each.requires_grad_()
    found = losses(method, policy, reference, tokens)
    found.losses_N.sum().backward()
    assert not found.margins_N.requires_grad
    assert all(each.grad is not None and bool(each.grad.any()) for each in policy)
    assert all(each.grad is None for each in reference)


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("sums", [(0.0, -5000.0), (-5000.0, 0.0), (0.0, 0.0), (-5000.0, -5000.0)])
def test_extremes_stay_numbers_in_float32(name: str, sums: tuple[float, float]) -> None:
    """An answer that is certain, or one that is out of the question."""
    method, _ = FORMULAS[name]
    policy = Answers(*(torch.tensor([each], requires_grad=True) for each in sums))
    reference = Answers(torch.tensor([-40.0]), torch.tensor([-40.0]))
    tokens = Answers(torch.tensor([10]), torch.tensor([10]))
    found = losses(method, policy, reference, tokens)
    found.losses_N.sum().backward()
    for each in (found.losses_N, found.margins_N, policy.preferred_N.grad, policy.other_N.grad):
        assert each is not None and bool(torch.isfinite(each).all())


def test_without_smoothing_the_default_is_the_older_formula_to_the_bit() -> None:
    """Runs that an older engine began go on under this one."""
    policy, reference, tokens = (Answers(*(each.float() for each in pair)) for pair in Data().tensors)
    margins_N = 0.3 * ((policy.preferred_N - reference.preferred_N) - (policy.other_N - reference.other_N))
    found = losses(dpo("sigmoid"), policy, reference, tokens)
    assert torch.equal(found.losses_N, -torch.nn.functional.logsigmoid(margins_N))
    assert torch.equal(found.margins_N, margins_N)


def test_the_reference_point_is_a_mean_above_0() -> None:
    policy, reference = torch.tensor([-1.0, -5.0], requires_grad=True), torch.tensor([-4.0, -6.0])
    assert reference_point(policy, reference) == 2.0
    assert reference_point(reference, policy) == 0.0
    assert reference_point(torch.empty(0), torch.empty(0)) == 0.0


def test_a_negative_reference_point_counts_as_0() -> None:
    policy, reference, _ = Data().tensors
    least = preferences.kto(policy, reference, beta=0.3, kl=0.0)
    assert torch.equal(preferences.kto(policy, reference, beta=0.3, kl=-9.0).losses_N, least.losses_N)


def test_two_equal_answers_leave_the_losses_at_their_start() -> None:
    """The policy is the reference, as in a run's first step."""
    same = Answers(torch.tensor([-6.0]), torch.tensor([-6.0]))
    tokens = Answers(torch.tensor([3]), torch.tensor([3]))
    start = {
        "sigmoid": math.log(2),
        "ipo": (0.5 / 0.3) ** 2,
        "kto": 0.5,
        "orpo": 2.0 + 0.3 * math.log(2),
        "simpo": math.log1p(math.e),
    }
    for loss, expected in start.items():
        found = pair_losses(dpo(loss), policy=same, tokens=tokens, reference=same)  # type: ignore[arg-type]
        assert float(found.losses_N) == pytest.approx(expected, rel=1e-6) and float(found.margins_N) == 0
