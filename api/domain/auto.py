"""What "auto" becomes once the training file has been counted. Pure arithmetic.

The shape follows what OpenAI's jobs echo: about 100 examples give 3 epochs and a batch of 1, ten give 10; the batch
grows with 0.2 % of the examples. The learning rate's scale is the engine's own, so its multiplier is 1.
"""

from typing import Final

from api.domain.jobs import Hyperparameters, Method, SupervisedMethod

EPOCHS: Final = 3
MOST_EPOCHS: Final = 25
FEWEST_SEEN: Final = 100  # examples seen in all, where the file is small
MOST_SEEN: Final = 25_000  # and where it is big
MAX_BATCH: Final = 256
BATCH_SHARE: Final = 0.002


def resolved(method: Method, *, examples: int) -> Method:
    asked = method.hyperparameters
    return SupervisedMethod(
        hyperparameters=Hyperparameters(
            n_epochs=epochs(examples) if asked.n_epochs == "auto" else asked.n_epochs,
            batch_size=batch_size(examples) if asked.batch_size == "auto" else asked.batch_size,
            learning_rate_multiplier=(
                1.0 if asked.learning_rate_multiplier == "auto" else asked.learning_rate_multiplier
            ),
        )
    )


def epochs(examples: int) -> int:
    if examples * EPOCHS < FEWEST_SEEN:
        return min(MOST_EPOCHS, FEWEST_SEEN // examples)
    if examples * EPOCHS > MOST_SEEN:
        return max(1, MOST_SEEN // examples)
    return EPOCHS


def batch_size(examples: int) -> int:
    return max(1, min(MAX_BATCH, round(BATCH_SHARE * examples)))
