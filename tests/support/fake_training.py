"""What the fake trainer computes, as a function of seed and rows: each step's weights are a hash of those before.

So a step that is lost, repeated or taken from a wrong checkpoint changes the last bytes, as it does in real training.
"""

import hashlib
import json
import struct
from collections.abc import Sequence
from typing import Final

CONFIG: Final = json.dumps(
    {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"]}
).encode()
PROBE: Final = tuple(range(1, 9))


def first_weights(seed: int) -> bytes:
    return hashlib.sha256(f"seed {seed}".encode()).digest()


def next_weights(weights: bytes, rows: Sequence[bytes]) -> bytes:
    return hashlib.sha256(weights + b"".join(rows)).digest()


def batch(rows: Sequence[bytes], *, size: int, step: int) -> Sequence[bytes]:
    """Of the step that comes after `step` steps."""
    per_epoch = -(-len(rows) // size)
    at = step % per_epoch * size
    return rows[at : at + size]


def steps_in(rows: int, *, size: int, epochs: int) -> int:
    return -(-rows // size) * epochs


def trained(rows: Sequence[bytes], *, seed: int, size: int, epochs: int) -> bytes:
    """The last weights of a run that nothing disturbed."""
    weights = first_weights(seed)
    for step in range(steps_in(len(rows), size=size, epochs=epochs)):
        weights = next_weights(weights, batch(rows, size=size, step=step))
    return weights


def tensor_file(weights: bytes) -> bytes:
    """A safetensors file of one tensor."""
    header = {"weights": {"dtype": "F32", "shape": [len(weights) // 4], "data_offsets": [0, len(weights)]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + weights


def weights_in(file: bytes) -> bytes:
    (length,) = struct.unpack("<Q", file[:8])
    return file[8 + length :]


def logprobs(weights: bytes, tokens: int) -> tuple[float, ...]:
    """What trainer and replica say of the probe, far enough apart from any other weights' to be told apart."""
    return tuple(-1.0 - weights[i % len(weights)] / 32 for i in range(tokens - 1))
