"""The fused pass against transformers + peft: losses, log-probabilities and every gradient, to rounding."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from torch import nn

from engine.contract.spec import ALL_LINEAR, LoraOptions
from engine.core.modules import GROUPS
from engine.core.packing import Tokens, pack
from engine.lora.adapter import Adapter
from engine.lora.linear import Place, Segment, keep_mask
from engine.models.decoder import Decoder, decoder_of, why_unknown
from engine.passes.fused import run_pass
from engine.passes.model import Lesson
from tests.support.lessons import adapter_for, causal_lm, gradients, random_group, weighted

CLOSE = 1e-5
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"family": "llama"},
    "llama, biases": {"family": "llama", "attention_bias": True, "mlp_bias": True},
    "llama, tied": {"family": "llama", "tie_word_embeddings": True},
    "llama 3": {"family": "llama", "rope_parameters": LLAMA3},
    "llama, wide heads": {"family": "llama", "head_dim": 32, "num_key_value_heads": 4},
    "mistral": {"family": "mistral", "sliding_window": None},
    "qwen2": {"family": "qwen2"},
    "qwen3": {"family": "qwen3", "head_dim": 16},
}
SHAPES = (
    LoraOptions(rank=8, alpha=16.0, target_modules=("q_proj", "v_proj", "down_proj")),
    LoraOptions(rank=3, alpha=16.0, target_modules=ALL_LINEAR),
    LoraOptions(rank=16, alpha=8.0, target_modules=("up_proj",)),
    LoraOptions(rank=1, alpha=1.0, target_modules=("k_proj", "o_proj", "gate_proj")),
)


def groups_of(number: int) -> list[list[Tokens]]:
    """Of each kind one: single sequences, a pair, eight answers to one prompt, answers of one token."""
    rng = random.Random(number)
    kinds = (
        [(1, 5, 30), (1, 1, 9), (1, 30, 20)],
        [(2, 25, 12), (2, 4, 7)],
        [(8, 20, 9)],
        [(4, 30, 1), (1, 3, 1)],
    )
    return [random_group(rng, count=count, prompt=prompt, most=most) for count, prompt, most in kinds[number]]


@pytest.mark.parametrize("tile", [None, 32])
@pytest.mark.parametrize("name", MODELS)
def test_a_mixed_pass_is_each_runs_own_in_peft(name: str, tile: int | None) -> None:
    model = causal_lm(**MODELS[name])
    assert why_unknown(model, max_tokens=512) is None
    decoder = decoder_of(model)
    groups = [groups_of(number) for number in range(len(SHAPES))]
    packs = [pack(some, bound=False) for some in groups]
    adapters = [adapter_for(decoder, options, seed=n) for n, options in enumerate(SHAPES)]
    lessons = [
        Lesson(packed=packed, adapter=adapter, loss=weighted(packed), dropout_seed=1)
        for packed, adapter in zip(packs, adapters, strict=True)
    ]
    outcomes = run_pass(decoder, lessons, tile=tile)
    for adapter, some, outcome in zip(adapters, groups, outcomes, strict=True):
        assert outcome.rows is not None and outcome.error is None
        sequences = [sequence for group in some for sequence in group]
        logprobs, loss, grads = in_peft(model, adapter, sequences)
        near(outcome.rows.logprobs, logprobs)
        assert outcome.loss == pytest.approx(loss, rel=CLOSE)
        found = gradients(adapter)
        assert found.keys() == grads.keys()
        for key in found:
            near(found[key], grads[key], key)


def near(found: torch.Tensor, expected: torch.Tensor, name: str = "") -> None:
    assert ((found - expected).norm() / expected.norm()).item() < CLOSE, name


def in_peft(
    model: Any, adapter: Adapter, sequences: Sequence[Tokens], *, dropout_seed: int | None = None
) -> tuple[torch.Tensor, float, dict[str, torch.Tensor]]:
    """Log-probabilities of the rows, the loss and the gradients by peft's names; one sequence at a time."""
    options = adapter.options
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        target_modules=list(options.target_modules),
        task_type="CAUSAL_LM",
    )
    wrapped = get_peft_model(model, config)
    try:
        set_peft_model_state_dict(wrapped, {name: value.clone() for name, value in adapter.state().items()})
        if dropout_seed is not None:
            drop_alike(wrapped, adapter, sequences, dropout_seed)
        total = sum(sum(sequence.weights) for sequence in sequences)
        parts, loss = [], torch.zeros(())
        for sequence in sequences:
            ids, weights = torch.tensor(sequence.token_ids), torch.tensor(sequence.weights)
            logits = wrapped(input_ids=ids[None]).logits[0, :-1]
            logprobs = logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0]
            loss = loss - (logprobs * weights[1:]).sum() / total
            parts.append(logprobs.detach()[weights[1:] != 0])
        loss.backward()  # type: ignore[no-untyped-call]
        grads = {
            name.replace(".default", ""): parameter.grad
            for name, parameter in wrapped.named_parameters()
            if parameter.grad is not None
        }
        return torch.cat(parts), float(loss.detach()), grads
    finally:
        wrapped.unload()


class FakeDropout(nn.Module):
    """The engine's own masks, (1, S, in) of one sequence after the other."""

    def __init__(self, masks: list[torch.Tensor]) -> None:
        super().__init__()
        self.masks = masks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.masks.pop(0)


def drop_alike(wrapped: Any, adapter: Adapter, sequences: Sequence[Tokens], seed: int) -> None:
    layers = wrapped.base_model.model.model.layers
    for number, layer in enumerate(layers):
        for group, modules in GROUPS.items():
            for module in modules:
                block = layer.self_attn if group in ("qkv", "o") else layer.mlp
                rows_alone = number == len(layers) - 1 and group != "qkv"
                linear = getattr(block, module)
                place = Place(layer=number, group=group, tile=None, needs_input_gradient=True)
                masks = masks_of(
                    adapter, sequences, place, seed, inputs=linear.in_features, rows_alone=rows_alone
                )
                linear.lora_dropout["default"] = FakeDropout(masks)


def masks_of(
    adapter: Adapter, sequences: Sequence[Tokens], place: Place, seed: int, *, inputs: int, rows_alone: bool
) -> list[torch.Tensor]:
    """A sequence's last token is no input of a pass, and the end of the last layer runs on the rows alone."""
    counted = [
        [i for i, weight in enumerate(one.weights[1:]) if weight or not rows_alone] for one in sequences
    ]
    total = sum(map(len, counted))
    drawn = keep_mask(
        torch.empty(total, inputs),
        Segment(start=0, end=total, adapter=adapter, dropout_seed=seed),
        place,
    )
    assert drawn is not None
    masks = []
    for sequence, own in zip(sequences, drawn.split([len(some) for some in counted]), strict=True):
        mask = torch.ones(len(sequence.token_ids), inputs)
        mask[counted[len(masks)]] = own
        masks.append(mask)
    return masks


@pytest.mark.parametrize("name", ["llama", "qwen3"])
def test_dropout_is_pefts_with_the_same_mask(name: str) -> None:
    model = causal_lm(**MODELS[name])
    decoder = decoder_of(model)
    options = LoraOptions(rank=4, alpha=16.0, dropout=0.2, target_modules=ALL_LINEAR)
    adapter = adapter_for(decoder, options, seed=3)
    # With a loss at the end, so that nothing is cut off.
    sequences = [replace(one, weights=[*one.weights[:-1], 1.0]) for one, *_ in groups_of(0)]
    packed = pack([[one] for one in sequences], bound=False)
    lesson = Lesson(packed=packed, adapter=adapter, loss=weighted(packed), dropout_seed=11)
    (outcome,) = run_pass(decoder, [lesson], tile=None)
    assert outcome.rows is not None
    logprobs, loss, grads = in_peft(model, adapter, sequences, dropout_seed=11)
    near(outcome.rows.logprobs, logprobs)
    assert outcome.loss == pytest.approx(loss, rel=CLOSE)
    for key, found in gradients(adapter).items():
        near(found, grads[key], key)


def test_dropout_keeps_its_share_by_the_seed_alone() -> None:
    decoder = decoder_of(causal_lm())
    adapter = adapter_for(decoder, LoraOptions(dropout=0.25), seed=0)
    place = Place(layer=1, group="down", tile=None, needs_input_gradient=True)
    x = torch.ones(400, 128)

    def mask(seed: int, start: int = 0) -> torch.Tensor:
        segment = Segment(start=start, end=start + 400, adapter=adapter, dropout_seed=seed)
        kept = keep_mask(x, segment, place)
        assert kept is not None
        return kept

    assert torch.equal(mask(1), mask(1, start=77)) and not torch.equal(mask(1), mask(2))
    assert mask(1).count_nonzero().item() / x.numel() == pytest.approx(0.75, abs=0.01)
    assert mask(1).mean().item() == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("tile", [None, 32])
def test_measuring_is_learning_without_the_gradient(tile: int | None) -> None:
    """And without dropout; the base is the adapter switched off."""
    model = causal_lm()
    decoder = decoder_of(model)
    adapter = adapter_for(decoder, SHAPES[1], seed=1)
    packed = pack(groups_of(2), bound=True)
    own, base = run_pass(
        decoder, [Lesson(packed=packed, adapter=adapter), Lesson(packed=packed, adapter=None)], tile=tile
    )
    (learned,) = run_pass(decoder, [Lesson(packed=packed, adapter=adapter, loss=weighted(packed))], tile=tile)
    assert own.rows is not None and base.rows is not None and learned.rows is not None
    near(own.rows.logprobs, learned.rows.logprobs)
    assert torch.equal(own.rows.hits, learned.rows.hits)
    sequences = [sequence for group in groups_of(2) for sequence in group]
    rows = plain_rows(model, sequences)
    near(base.rows.logprobs, rows)


def plain_rows(model: Any, sequences: Sequence[Tokens]) -> torch.Tensor:
    parts = []
    with torch.no_grad():
        for sequence in sequences:
            ids, weights = torch.tensor(sequence.token_ids), torch.tensor(sequence.weights)
            logprobs = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
            parts.append(logprobs.gather(1, ids[1:, None])[:, 0][weights[1:] != 0])
    return torch.cat(parts)


def test_gradients_add_up_over_passes() -> None:
    decoder = decoder_of(causal_lm())
    adapter = adapter_for(decoder, SHAPES[1], seed=1)
    packed = pack(groups_of(0), bound=False)
    lesson = Lesson(packed=packed, adapter=adapter, loss=weighted(packed))
    run_pass(decoder, [lesson], tile=None)
    once = adapter.gradient.clone()
    run_pass(decoder, [lesson], tile=None)
    near(adapter.gradient, 2 * once)


def test_a_loss_sees_whole_groups() -> None:
    """DPO's form: of a pair the two sums, whichever chunk the pair falls into."""
    decoder: Decoder = decoder_of(causal_lm())
    adapter = adapter_for(decoder, SHAPES[1], seed=1)
    rng = random.Random(5)
    packed = pack([random_group(rng, count=2, prompt=20, most=70) for _ in range(12)], bound=True)
    owners, seen = torch.tensor(packed.owners), []

    def loss(logprobs: torch.Tensor, rows: slice) -> torch.Tensor:
        own = owners[rows] - owners[rows.start]
        sums = logprobs.new_zeros(int(own.max()) + 1).index_add(0, own, logprobs)
        seen.append((rows.start, rows.stop))
        return -nn.functional.logsigmoid(0.1 * (sums[0::2] - sums[1::2])).sum()

    (outcome,) = run_pass(decoder, [Lesson(packed=packed, adapter=adapter, loss=loss)], tile=None)
    assert outcome.error is None and len(seen) > 1
    assert {edge for pair in seen for edge in pair} <= set(packed.bounds)
    assert [end for _, end in seen[:-1]] == [start for start, _ in seen[1:]]


def test_unknown_models_are_named() -> None:
    windowed = causal_lm("mistral", sliding_window=64)
    assert "window of 64" in str(why_unknown(windowed, max_tokens=512))
    assert why_unknown(windowed, max_tokens=64) is None
    dynamic = causal_lm("llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
    assert "dynamic" in str(why_unknown(dynamic, max_tokens=512))
    assert "gelu" in str(why_unknown(causal_lm("llama", hidden_act="gelu"), max_tokens=512))
