"""How much memory a run needs, before it runs. Arithmetic on shapes; bytes unless said otherwise.

Shapes: D model features, Q and K features of queries and keys, F inner features, V vocabulary, P adapter weights.
"""

from dataclasses import dataclass
from typing import Final

ADAPTER_BYTES: Final = 16  # of one weight in float32: itself, its gradient, Adam's two moments
BEST_BYTES: Final = 4  # a copy of the best weights, or of those that a tuned model began with
HEAD_ROWS: Final = 256  # whose logits are there at a time
MARGIN: Final = 1.25  # what an allocator loses between the tensors, and what the backward holds for a moment


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """`value_bytes`: of one activation; `attention_bytes`: of one that the attention reads or makes. `scratch`: values of
    base weights that are floats only while a product runs."""

    layers: int
    features: int
    queries: int
    keys: int
    inner: int
    vocabulary: int
    value_bytes: int
    attention_bytes: int
    scratch: int = 0


def pass_bytes(shape: ModelShape, tokens: int) -> int:
    """Of one forward and backward over so many tokens."""
    return bytes_of(shape, tokens, kept=shape.layers * layer_bytes(shape))


def recomputing_bytes(shape: ModelShape, tokens: int) -> int:
    """The same where each layer keeps its input alone (D), and is computed again when its backward runs."""
    inputs = shape.layers * shape.features * shape.value_bytes
    return bytes_of(shape, tokens, kept=inputs + layer_bytes(shape))


def layer_bytes(shape: ModelShape) -> int:
    """Of one token, kept by a layer: its input and the normed one (2D), q, k and v before and after their rotation
    (2Q + 3K), the attention's output (Q), the stream and the normed stream in its middle (2D), gate and up (2F) and their
    product (F).
    """
    values = (4 * shape.features + 3 * shape.inner) * shape.value_bytes
    return values + 3 * (shape.queries + shape.keys) * shape.attention_bytes


def bytes_of(shape: ModelShape, tokens: int, *, kept: int) -> int:
    """`kept`: of one token."""
    moment = 4 * (shape.inner + shape.features) * shape.value_bytes  # of the one layer whose backward runs
    activations = tokens * (kept + moment) + shape.scratch * shape.value_bytes
    head = 2 * min(tokens, HEAD_ROWS) * shape.vocabulary * 4
    return int((activations + head) * MARGIN)


@dataclass(frozen=True, kw_only=True)
class Need:
    """`resident` while the run is live, `passing` while one of its passes runs."""

    resident: int
    passing: int

    @property
    def total(self) -> int:
        return self.resident + self.passing


def need_of(weights: int, *, copies: int, passing: int) -> Need:
    """`copies`: of the weights, beside what training needs."""
    return Need(resident=weights * (ADAPTER_BYTES + copies * BEST_BYTES), passing=passing)


def tokens_that_fit(shape: ModelShape, room: int, *, most: int) -> int:
    """The largest power of two, at most `most`, whose pass fits; 0 when not even one token does."""
    tokens = most
    while tokens and pass_bytes(shape, tokens) > room:
        tokens //= 2
    return tokens


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
