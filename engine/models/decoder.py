"""The weights of a decoder of the Llama, Mistral and Qwen families, taken from transformers and laid out for our own
passes. Knows no adapter and no loss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch

from engine.models.frozen import FloatLinear, Frozen

FAMILIES: Final = frozenset({"llama", "mistral", "qwen2", "qwen3"})
# Rotary embeddings that do not depend on how long the sequence is.
STEADY_ROPES: Final = frozenset({"default", "linear", "llama3", "yarn"})
MODULES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "qkv": ("self_attn", ("q_proj", "k_proj", "v_proj")),
    "o": ("self_attn", ("o_proj",)),
    "gate_up": ("mlp", ("gate_proj", "up_proj")),
    "down": ("mlp", ("down_proj",)),
}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """Norm weights are (D,); `query_norm` and `key_norm` (E,) are Qwen 3's."""

    input_norm: torch.Tensor
    mlp_norm: torch.Tensor
    query_norm: torch.Tensor | None
    key_norm: torch.Tensor | None
    linear: Mapping[str, Frozen]


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """embedding: (V, D); head: (V, D). `rotary(positions_T)` gives cos and sin (T, 1, E)."""

    embedding: torch.Tensor
    layers: Sequence[Layer]
    norm: torch.Tensor
    head: torch.Tensor
    heads: int
    key_heads: int
    head_size: int
    eps: float
    rotary_module: Any
    outputs: Mapping[str, int]

    @property
    def device(self) -> torch.device:
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.dtype

    def rotary(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = self.rotary_module(self.embedding, position_ids=positions[None])
        return cos[0, :, None], sin[0, :, None]


def why_unknown(causal_lm: Any, *, max_tokens: int) -> str | None:
    """Why our own passes cannot run this model; None when they can."""
    config = causal_lm.config
    if config.model_type not in FAMILIES:
        return f"its architecture, {config.model_type}, is none of {', '.join(sorted(FAMILIES))}"
    rope = str((getattr(config, "rope_parameters", None) or {}).get("rope_type", "default"))
    if rope not in STEADY_ROPES:
        return f"its rotary embedding is of the type {rope}"
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}"
    window = sliding_window(config)
    if window is not None and window < max_tokens:
        return f"its attention has a window of {window} tokens, and examples may have {max_tokens}"
    return None


def sliding_window(config: Any) -> int | None:
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    return None if window is None or (types and "sliding_attention" not in types) else int(window)


def decoder_of(causal_lm: Any) -> Decoder:
    """Shares the model's memory: the model itself still works, and its weights are now views of these."""
    config, model = causal_lm.config, causal_lm.model
    first = model.layers[0]
    heads = int(config.num_attention_heads)
    head_size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return Decoder(
        embedding=model.embed_tokens.weight.detach(),
        layers=[layer_of(layer) for layer in model.layers],
        norm=model.norm.weight.detach(),
        head=causal_lm.lm_head.weight.detach(),
        heads=heads,
        key_heads=int(config.num_key_value_heads),
        head_size=head_size,
        eps=float(config.rms_norm_eps),
        rotary_module=model.rotary_emb,
        outputs={
            name: getattr(getattr(first, block), name).out_features
            for block, names in MODULES.values()
            for name in names
        },
    )


def layer_of(layer: Any) -> Layer:
    attention = layer.self_attn
    norms = [getattr(getattr(attention, name, None), "weight", None) for name in ("q_norm", "k_norm")]
    return Layer(
        input_norm=layer.input_layernorm.weight.detach(),
        mlp_norm=layer.post_attention_layernorm.weight.detach(),
        query_norm=norms[0],
        key_norm=norms[1],
        linear={
            group: FloatLinear([getattr(getattr(layer, block), name) for name in names])
            for group, (block, names) in MODULES.items()
        },
    )
