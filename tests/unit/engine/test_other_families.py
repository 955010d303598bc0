"""Families that only transformers knows: they learn, under their own names, from the logits that they give."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from engine.core.packing import pack
from engine.core.unpacking import units
from engine.models.resident import ResidentModel, load, logits_of_rows, shape_of
from engine.passes.model import Lesson
from engine.passes.peft import PlainModel, alike
from tests.support.lessons import OPTIONS, free, gradients, lesson, only, prompt, sequence, stir

FAMILIES: dict[str, dict[str, Any]] = {
    "Gemma2": {"head_dim": 8, "sliding_window": 16, "final_logit_softcapping": 3.0},
    "Phi3": {"bos_token_id": None},
    "Granite": {"logits_scaling": 4.0, "embedding_multiplier": 3.0},
    "GPTNeoX": {},
}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load(tiny_model, name="tiny").tokenizer


def family(name: str, tokenizer: Any, **changes: Any) -> ResidentModel:
    config = getattr(transformers, f"{name}Config")(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **(FAMILIES.get(name, {}) | changes),
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = getattr(transformers, f"{name}ForCausalLM")(config).eval()
    model.requires_grad_(False)
    return ResidentModel(name=name, causal_lm=model, tokenizer=tokenizer, device=torch.device("cpu"))


@pytest.mark.parametrize("name", ["Falcon", "Bloom", "GPT2", "Gemma3"])
def test_a_family_whose_config_names_its_sizes_otherwise_has_a_shape(name: str) -> None:
    config = getattr(transformers, f"{name}Config")()
    text = config.get_text_config()
    causal_lm: Any = SimpleNamespace(config=config, dtype=torch.float32)  # all that is asked of the model
    base = ResidentModel(name=name, causal_lm=causal_lm, tokenizer=causal_lm, device=torch.device("cpu"))
    shape = shape_of(base)
    assert (shape.layers, shape.features) == (text.num_hidden_layers, text.hidden_size)
    assert shape.inner == (getattr(text, "intermediate_size", None) or 4 * text.hidden_size)


@pytest.mark.parametrize("name", FAMILIES)
def test_another_family_learns(name: str, tokenizer: Any) -> None:
    base = family(name, tokenizer)
    model = PlainModel(base, token_budget=120)
    adapter = model.new_adapter(replace(OPTIONS, target_modules=tuple(base.linear_modules)))
    stir(adapter)
    packed = free()

    def loss() -> float:
        value = only(model.run_pass([lesson(packed, adapter)])).loss
        assert all(gradient.abs().max() > 0 for gradient in gradients(adapter).values())
        return value

    first, gradient, start = loss(), adapter.gradient.clone(), adapter.weights.clone()
    step = 0.001 / gradient.norm()
    sides = []
    for sign in (1, -1):
        adapter.weights.copy_(start + sign * step * gradient)
        sides.append(loss())
    assert sides[0] - sides[1] == pytest.approx(float(2 * step * gradient.norm() ** 2), rel=0.02)
    row = nn.Parameter(adapter.weights)
    row.grad = adapter.gradient
    optimizer = torch.optim.AdamW([row], lr=0.03)
    for _ in range(15):
        adapter.gradient.zero_()
        loss()
        optimizer.step()
    assert loss() < 0.99 * first


def test_modules_of_another_family_have_their_own_names(tokenizer: Any) -> None:
    assert family("Phi3", tokenizer).linear_modules == {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}
    assert family("GPTNeoX", tokenizer).linear_modules >= {"query_key_value", "dense"}
    assert "embed_out" not in family("GPTNeoX", tokenizer).linear_modules


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_have_the_logits_that_the_model_itself_gives(name: str, tokenizer: Any) -> None:
    """A head alone would leave out what the family does to its logits."""
    causal_lm = family(name, tokenizer).causal_lm
    ids = torch.tensor([prompt(1, 12), prompt(2, 12)])
    rows = torch.tensor([3, 11, 12, 20, 20])
    with torch.no_grad():
        expected = causal_lm(input_ids=ids).logits.flatten(0, 1)[rows]
        got = logits_of_rows(causal_lm, token_ids_BT=ids, rows_R=rows)
    torch.testing.assert_close(got, expected)


def test_a_length_dependent_rotary_embedding_sees_each_sequence_by_itself(tokenizer: Any) -> None:
    factors = {"short_factor": [1.0] * 4, "long_factor": [5.0] * 4}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 24, **factors}
    base = family("Phi3", tokenizer, rope_parameters=rope, original_max_position_embeddings=24)
    model = PlainModel(base, token_budget=10_000)
    groups = [[sequence(a, before=prompt(p, p), answer=a)] for p, a in ((3, 8), (40, 2), (3, 8), (11, 30))]
    together = only(model.run_pass([Lesson(packed=pack(groups, bound=False), adapter=None)])).rows
    alone = [
        only(model.run_pass([Lesson(packed=pack([group], bound=False), adapter=None)])).rows
        for group in groups
    ]
    assert together is not None
    torch.testing.assert_close(together.logprobs, torch.cat([rows.logprobs for rows in alone if rows]))
    lengths = [len(one.token_ids) for one in (u.sequences[0] for u in units(pack(groups, bound=False)))]
    blocks = alike([unit.sequences[0] for unit in units(pack(groups, bound=False))])
    assert [len(block) for block in blocks] == [2, 1, 1] and len(set(lengths)) == 3


def test_the_bases_own_dropout_works_while_learning_alone(tokenizer: Any) -> None:
    base = family("Llama", tokenizer, attention_dropout=0.5)
    model = PlainModel(base, token_budget=120)
    adapter = model.new_adapter(OPTIONS)
    adapter.initialise(1)
    losses = [
        only(model.run_pass([lesson(free(), adapter, dropout_seed=seed)])).loss for seed in (1, 1, 2, None)
    ]
    assert losses[0] == losses[1] and len(set(losses)) == 3
