"""The weights of a decoder of the Llama, Mistral and Qwen families, taken from transformers and laid out for our own
passes. Knows no adapter and no loss.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from engine.core.modules import BLOCKS, GROUPS, ModuleShapes
from engine.models.frozen import Frozen, frozen_of, is_nf4

FAMILIES: Final[Mapping[str, str]] = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
KINDS_OF_LAYERS: Final = frozenset({"full_attention", "sliding_attention"})
# What our passes do not do. transformers ignores most of these in the families above: a config that names one is
# of a model that only says it is of the family.
PLAIN: Final[Mapping[str, float]] = {
    "attention_dropout": 0,
    "attn_logit_softcapping": 0,
    "final_logit_softcapping": 0,
    "embedding_multiplier": 1,
    "residual_multiplier": 1,
    "attention_multiplier": 1,
    "logits_scaling": 1,
    "logit_scale": 1,
    "partial_rotary_factor": 1,
}
# Rotary embeddings that do not depend on how long the sequence is.
STEADY_ROPES: Final = frozenset({"default", "linear", "llama3", "yarn"})


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
    shapes: ModuleShapes

    @property
    def device(self) -> torch.device:
        return self.embedding.device

    def rotary(self, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = self.rotary_module(self.embedding, position_ids=positions[None])
        return cos[0, :, None], sin[0, :, None]


def why_unknown(causal_lm: Any, *, max_tokens: int) -> str | None:
    """Why our own passes cannot run this model; None when they can. Whoever teaches them more takes a line away."""
    config = causal_lm.config
    kind = type(causal_lm).__name__
    if FAMILIES.get(config.model_type) != kind:
        return f"its architecture, {config.model_type} as {kind}, is none of {', '.join(sorted(FAMILIES))}"
    return why_other_attention(config, max_tokens=max_tokens) or why_other_parts(causal_lm)


def why_other_attention(config: Any, *, max_tokens: int) -> str | None:
    unsteady = sorted(rope_types(config) - STEADY_ROPES)
    if unsteady:
        return f"its rotary embedding is of the type {unsteady[0]}"
    if rope_parameters(config).keys() & KINDS_OF_LAYERS:
        return "its layers have rotary embeddings of their own"
    partial = rope_parameters(config).get("partial_rotary_factor", 1.0)
    if partial != 1:
        return f"only {partial} of each head is rotated"
    others = sorted(set(getattr(config, "layer_types", None) or ()) - KINDS_OF_LAYERS)
    if others:
        return f"it has layers of the type {others[0]}"
    window = sliding_window(config)
    if window is not None and window < max_tokens:
        return f"its attention has a window of {window} tokens, and examples may have {max_tokens}"
    if getattr(config, "is_causal", True) is False:
        return "its attention is not causal"
    return None


def why_other_parts(causal_lm: Any) -> str | None:
    config = causal_lm.config
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act}"
    for name, plain in PLAIN.items():
        value = getattr(config, name, None)
        if value is not None and value != plain:
            return f"its config has {name} = {value}"
    if getattr(causal_lm.lm_head, "bias", None) is not None:
        return "its head has a bias"
    for layer in causal_lm.model.layers:
        for group, names in GROUPS.items():
            block = BLOCKS[group]
            for name in names:
                module = getattr(getattr(layer, block), name, None)
                if type(module) is not nn.Linear and not is_nf4(module):
                    kind = type(module)
                    found = "missing" if module is None else f"a {kind.__module__}.{kind.__name__}"
                    return f"its {block}.{name} is {found}, not an ordinary linear layer"
    return None


def rope_parameters(config: Any) -> dict[str, Any]:
    return dict(getattr(config, "rope_parameters", None) or {})


def rope_types(config: Any) -> set[str]:
    """Of the model, or of each kind of its layers."""
    found = rope_parameters(config)
    parts = [part for part in found.values() if isinstance(part, dict)] or [found]
    return {str(part.get("rope_type", "default")) for part in parts}


def steady_rope(config: Any) -> bool:
    return rope_types(config.get_text_config()) <= STEADY_ROPES


def sliding_window(config: Any) -> int | None:
    window = getattr(config, "sliding_window", None)
    types = getattr(config, "layer_types", None)
    return None if window is None or (types and "sliding_attention" not in types) else int(window)


def as_it_is(_: Any, layer: Layer) -> Layer:
    return layer


def decoder_of(causal_lm: Any, *, each: Callable[[Any, Layer], Layer] = as_it_is) -> Decoder:
    """Shares the model's memory: the model itself still works, and its weights are now views of these.

    each: what becomes of a layer, beside the module it is of, before the next one is read.
    """
    config, model = causal_lm.config, causal_lm.model
    heads = int(config.num_attention_heads)
    head_size = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return Decoder(
        embedding=model.embed_tokens.weight.detach(),
        layers=[each(layer, layer_of(layer)) for layer in model.layers],
        norm=model.norm.weight.detach(),
        head=causal_lm.lm_head.weight.detach(),
        heads=heads,
        key_heads=int(config.num_key_value_heads),
        head_size=head_size,
        eps=float(config.rms_norm_eps),
        rotary_module=model.rotary_emb,
        shapes=shapes_of(model.layers),
    )


def shapes_of(layers: Any) -> ModuleShapes:
    modules = {group: modules_of(layers[0], group) for group in GROUPS}
    return ModuleShapes(
        layers=len(layers),
        inputs={group: found[0].in_features for group, found in modules.items()},
        outputs={
            name: module.out_features
            for group, found in modules.items()
            for name, module in zip(GROUPS[group], found, strict=True)
        },
    )


def scratch_of(decoder: Decoder) -> int:
    """Values that the largest product holds while it runs."""
    return max(linear.scratch_values for layer in decoder.layers for linear in layer.linear.values())


def modules_of(layer: Any, group: str) -> list[nn.Linear]:
    return [getattr(getattr(layer, BLOCKS[group]), name) for name in GROUPS[group]]


def layer_of(layer: Any) -> Layer:
    attention = layer.self_attn
    norms = [getattr(getattr(attention, name, None), "weight", None) for name in ("q_norm", "k_norm")]
    return Layer(
        input_norm=layer.input_layernorm.weight.detach(),
        mlp_norm=layer.post_attention_layernorm.weight.detach(),
        query_norm=norms[0],
        key_norm=norms[1],
        linear={group: frozen_of(modules_of(layer, group)) for group in GROUPS},
    )
