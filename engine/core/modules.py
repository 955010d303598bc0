"""The linear layers of a decoder layer of the Llama, Mistral and Qwen families, as our passes group them. No tensor."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

# Modules that read the same input are one product: their weights lie side by side, and the A of their adapters too.
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "o": ("o_proj",),
    "gate_up": ("gate_proj", "up_proj"),
    "down": ("down_proj",),
}
BLOCKS: Final[Mapping[str, str]] = {"qkv": "self_attn", "o": "self_attn", "gate_up": "mlp", "down": "mlp"}


@dataclass(frozen=True, kw_only=True)
class ModuleShapes:
    """Of one decoder layer, the same in all: `inputs[group]`, `outputs[module]` features."""

    layers: int
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
