"""Which bases our own passes run, and that every other one is told why not: none is computed wrongly in silence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn

from engine.models.decoder import decoder_of, why_unknown
from engine.models.resident import ResidentModel, load
from engine.passes.agreement import why_apart
from engine.passes.choose import model_of
from engine.passes.fused import FusedModel
from engine.passes.peft import PlainModel

MAX_TOKENS = 128
HEAD = 8
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": 64}


def model(family: str = "Llama", **changes: Any) -> Any:
    config = {
        "vocab_size": 64,
        "hidden_size": 4 * HEAD,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    made = getattr(transformers, f"{family}Config")(**(config | changes))
    return getattr(transformers, f"{family}ForCausalLM")(made)


def rope(kind: str, **changes: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 1e4, **changes}}


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("Llama", {}),
        ("Llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
        ("Llama", {"rope_parameters": YARN}),
        ("Mistral", {"sliding_window": None}),
        ("Mistral", {"sliding_window": MAX_TOKENS}),
        ("Qwen2", {}),
        ("Qwen2", {"sliding_window": 8, "use_sliding_window": False}),
        ("Qwen2", {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 2}),
        ("Qwen3", {"head_dim": HEAD}),
    ],
)
def test_known(family: str, changes: dict[str, Any]) -> None:
    known = model(family, **changes)
    assert why_unknown(known, max_tokens=MAX_TOKENS) is None
    assert why_apart(decoder_of(known), known) is None


@pytest.mark.parametrize(
    ("family", "changes", "reason"),
    [
        ("Gemma2", {"head_dim": HEAD}, "architecture, gemma2"),
        ("Phi3", {}, "architecture, phi3"),
        ("Granite", {"embedding_multiplier": 12.0}, "architecture, granite"),
        ("Qwen2Moe", {}, "architecture, qwen2_moe"),
        ("Llama", rope("dynamic", factor=2.0), "type dynamic"),
        (
            "Llama",
            rope(
                "longrope",
                short_factor=[1.0] * 4,
                long_factor=[2.0] * 4,
                original_max_position_embeddings=64,
                factor=2.0,
            ),
            "type longrope",
        ),
        ("Mistral", {"sliding_window": MAX_TOKENS - 1}, f"window of {MAX_TOKENS - 1} tokens"),
        ("Qwen2", {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1}, "window of 8"),
        ("Llama", {"hidden_act": "gelu"}, "activation is gelu"),
        ("Llama", {"attention_dropout": 0.1}, "attention_dropout = 0.1"),
        ("Llama", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping = 50.0"),
        ("Llama", {"final_logit_softcapping": 30.0}, "final_logit_softcapping = 30.0"),
        ("Llama", {"embedding_multiplier": 12.0}, "embedding_multiplier = 12.0"),
        ("Llama", {"logits_scaling": 8.0}, "logits_scaling = 8.0"),
    ],
)
def test_unknown_by_its_config(family: str, changes: dict[str, Any], reason: str) -> None:
    assert reason in str(why_unknown(model(family, **changes), max_tokens=MAX_TOKENS))


def partial_rotation(causal_lm: Any) -> None:
    causal_lm.config.rope_parameters["partial_rotary_factor"] = 0.5


def ropes_by_layer(causal_lm: Any) -> None:
    causal_lm.config.rope_parameters = {"full_attention": {"rope_type": "default"}}


def rope_of_one_kind_of_layer(causal_lm: Any) -> None:
    causal_lm.config.rope_parameters = {
        "sliding_attention": {"rope_type": "default"},
        "full_attention": {"rope_type": "dynamic"},
    }


def other_layers(causal_lm: Any) -> None:
    causal_lm.config.layer_types = ["full_attention", "chunked_attention"]


def both_ways(causal_lm: Any) -> None:
    causal_lm.config.is_causal = False


def head_with_bias(causal_lm: Any) -> None:
    causal_lm.lm_head = nn.Linear(4 * HEAD, 64)


def not_gated(causal_lm: Any) -> None:
    del causal_lm.model.layers[1].mlp.gate_proj


class FakeLinear4bit(nn.Linear):
    """Stands for a quantised layer, which needs a GPU: its weight is not what it multiplies by."""


def quantised(causal_lm: Any) -> None:
    causal_lm.model.layers[0].mlp.down_proj = FakeLinear4bit(64, 4 * HEAD, bias=False)


class FakeWrapper(nn.Module):
    """Stands for a model around a decoder, whose config passes the decoder's type on."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (partial_rotation, "only 0.5 of each head"),
        (ropes_by_layer, "rotary embeddings of their own"),
        (rope_of_one_kind_of_layer, "type dynamic"),
        (other_layers, "type chunked_attention"),
        (both_ways, "not causal"),
        (head_with_bias, "head has a bias"),
        (not_gated, "mlp.gate_proj is missing"),
        (quantised, f"mlp.down_proj is a {__name__}.FakeLinear4bit"),
    ],
)
def test_unknown_by_its_parts(change: Callable[[Any], None], reason: str) -> None:
    causal_lm = model()
    change(causal_lm)
    assert reason in str(why_unknown(causal_lm, max_tokens=MAX_TOKENS))


def test_a_wrapper_is_not_the_decoder_whose_type_it_names() -> None:
    found = why_unknown(FakeWrapper(model().config), max_tokens=MAX_TOKENS)
    assert "llama as FakeWrapper" in str(found)


def test_an_adapter_left_on_the_base_is_seen() -> None:
    causal_lm = model()
    with torch.random.fork_rng():
        get_peft_model(causal_lm, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    assert "q_proj is a peft." in str(why_unknown(causal_lm, max_tokens=MAX_TOKENS))


@pytest.mark.parametrize(("dtype", "factor"), [(torch.float32, 1.05), (torch.bfloat16, 30.0)])
@pytest.mark.parametrize("block", ["mlp", "self_attn.o_proj", "input_layernorm"])
def test_a_model_that_computes_something_else_is_not_trusted_to_our_passes(
    block: str, dtype: torch.dtype, factor: float, tiny_model: Path
) -> None:
    """Its config names nothing that we do not know, and every module is of the kind that we expect."""
    base = load(tiny_model, name="tiny")
    base.causal_lm.to(dtype)
    assert isinstance(model_of(base, max_tokens=MAX_TOKENS, most_runs=2), FusedModel)
    module = base.causal_lm.model.layers[1].get_submodule(block)
    plain = module.forward
    module.forward = lambda x: factor * plain(x)
    assert why_unknown(base.causal_lm, max_tokens=MAX_TOKENS) is None
    chosen = model_of(base, max_tokens=MAX_TOKENS, most_runs=2)
    assert isinstance(chosen, PlainModel) and chosen.most_runs == 1
    assert "because the logits of 24 tokens differ by " in str(chosen.notice)


def test_logits_that_are_no_numbers_are_not_ours(tiny_model: Path) -> None:
    base: ResidentModel = load(tiny_model, name="tiny")
    base.causal_lm.lm_head.weight.data[0, 0] = torch.nan
    assert "differ by nan" in str(why_apart(decoder_of(base.causal_lm), base.causal_lm))
