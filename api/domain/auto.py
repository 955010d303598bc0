"""What "auto" becomes once the training file has been counted. Pure arithmetic.

The shape follows what OpenAI's jobs echo: about 100 examples give 3 epochs and a batch of 1, ten give 10; the batch
grows with 0.2 % of the examples. The learning rate's scale is the engine's own, that of supervised training, so its
multiplier is 1 but for preferences.
"""

from dataclasses import replace
from typing import Any, Final, assert_never

from api.domain.jobs import (
    DpoMethod,
    Hyperparameters,
    Method,
    ReinforcementHyperparameters,
    ReinforcementMethod,
    SupervisedMethod,
)
from engine.contract.spec import PairLoss

EPOCHS: Final = 3
MOST_EPOCHS: Final = 25
FEWEST_SEEN: Final = 100  # examples seen in all, where the file is small
MOST_SEEN: Final = 25_000  # and where it is big
MAX_BATCH: Final = 256
BATCH_SHARE: Final = 0.002
BETA: Final = 0.1  # the value of the DPO paper's experiments
SIMPO_BETA: Final = (
    2.0  # SimPO's rewards are means over tokens, so much smaller; the least value of its paper's experiments
)
# To about 1e-5, as tinker-cookbook's guide says (1e-6 to 1e-5) and TRL's script for DPO with LoRA (5e-6; 2e-4 for SFT).
# SmolLM2 on 20 pairs: at 1 the loss was 0 within 8 steps and went on to push the other answers from -93 nats to -419; at
# 0.02 to -142, with every held-out pair right too.
PREFERENCE_MULTIPLIER: Final = 0.02
KTO_PAIRS: Final = 8  # at least, where the batch is auto: its reference point is a mean over them
PROMPTS_PER_STEP: Final = 8  # each stands for a group of samples
EVALUATIONS: Final = 10  # of the validation file over a reinforcement run


def resolved(method: Method, *, examples: int) -> Method:
    found: dict[str, Any] = {
        "n_epochs": epochs(examples),
        "batch_size": batch_size(examples),
        "learning_rate_multiplier": 1.0,
    }
    match method:
        case SupervisedMethod():
            supervised = method.hyperparameters
            return replace(method, hyperparameters=replace(supervised, **filled(supervised, found)))
        case DpoMethod():
            found |= preferences(method.options.loss, found["batch_size"], examples=examples)
            dpo = method.hyperparameters
            return replace(method, hyperparameters=replace(dpo, **filled(dpo, found)))
        case ReinforcementMethod():
            asked = method.hyperparameters
            found |= reinforcement(asked, found["n_epochs"], examples=examples)
            return replace(method, hyperparameters=replace(asked, **filled(asked, found)))
        case _:
            assert_never(method)


def filled(asked: Hyperparameters, found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if getattr(asked, name) == "auto"}


def preferences(loss: PairLoss, size: int, *, examples: int) -> dict[str, Any]:
    return {
        "learning_rate_multiplier": PREFERENCE_MULTIPLIER,
        "beta": SIMPO_BETA if loss == "simpo" else BETA,
        "batch_size": max(size, min(KTO_PAIRS, examples)) if loss == "kto" else size,
    }


def reinforcement(asked: ReinforcementHyperparameters, n_epochs: int, *, examples: int) -> dict[str, Any]:
    prompts = min(PROMPTS_PER_STEP, examples)
    size = prompts if asked.batch_size == "auto" else asked.batch_size
    rounds = n_epochs if asked.n_epochs == "auto" else asked.n_epochs
    steps = -(-examples // size) * rounds
    return {
        "batch_size": prompts,
        "compute_multiplier": 1.0,
        "eval_interval": max(1, steps // EVALUATIONS),
        "eval_samples": 1,
    }


def epochs(examples: int) -> int:
    if examples * EPOCHS < FEWEST_SEEN:
        return min(MOST_EPOCHS, FEWEST_SEEN // examples)
    if examples * EPOCHS > MOST_SEEN:
        return max(1, MOST_SEEN // examples)
    return EPOCHS


def batch_size(examples: int) -> int:
    return max(1, min(MAX_BATCH, round(BATCH_SHARE * examples)))
