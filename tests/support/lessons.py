"""Tiny random decoders of each family, lessons for them (chosen and random ones), and how gradients are compared: seeded,
so that every failure can be run again."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from engine.contract.spec import ALL_LINEAR, LoraOptions
from engine.core.batches import derived_seed
from engine.core.packing import Packed, Tokens, pack
from engine.lora.adapter import Adapter, Trainable
from engine.models.decoder import Decoder
from engine.passes.model import Lesson, Outcome
from engine.passes.work import RowLoss

FAMILIES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
VOCABULARY = 300
SPOKEN = 200  # ids that the tiny tokenizer knows too
OPTIONS = LoraOptions(rank=4, alpha=8)


def causal_lm(family: str = "llama", **changes: Any) -> Any:
    """Every weight is random, norms and biases too: none of them is without effect."""
    config, model = FAMILIES[family]
    fields = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "attn_implementation": "eager",
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = model(config(**(fields | changes))).float().requires_grad_(False)
        for name, parameter in made.named_parameters():
            if "norm" in name:
                parameter.data = torch.randn_like(parameter) * 0.1 + 1
            elif "bias" in name:
                parameter.data = torch.randn_like(parameter) * 0.02
    return made


def adapter_for(decoder: Decoder, options: LoraOptions, *, seed: int) -> Adapter:
    adapter = Adapter(options, shapes=decoder.shapes, device=torch.device("cpu"))
    stir(adapter, seed=seed)
    return adapter


def stir(adapter: Trainable, *, seed: int = 1) -> None:
    """As in the middle of training: B is not 0. The same numbers in an adapter of either engine."""
    adapter.initialise(seed)
    for name, tensor in adapter.state().items():
        generator = torch.Generator().manual_seed(derived_seed(seed, name))
        tensor.add_(torch.randn(tensor.shape, generator=generator).to(tensor.device), alpha=0.05)


def weighted(packed: Packed) -> RowLoss:
    """Cross-entropy, each row by its weight, over the sum of the weights."""
    weights = torch.tensor(packed.weights)
    return lambda logprobs, rows: -(logprobs * weights[rows].to(logprobs.device)).sum() / weights.sum()


def loss_of(packed: Packed) -> RowLoss:
    """Neither linear nor the same for every row."""
    weights = torch.tensor(packed.weights)

    def loss(logprobs: torch.Tensor, rows: slice) -> torch.Tensor:
        return (weights[rows] * (logprobs.exp() - logprobs)).sum()

    return loss


def random_group(rng: random.Random, *, count: int, prompt: int, most: int) -> list[Tokens]:
    """`count` answers of 1 to `most` tokens to one prompt; weights of 0, 1 and other."""
    before = [rng.randrange(VOCABULARY) for _ in range(prompt)]
    group = []
    for _ in range(count):
        answer = [rng.randrange(VOCABULARY) for _ in range(rng.randint(1, most))]
        weights = [1.0, *(rng.choice((0.0, 1.0, 0.5)) for _ in answer[1:])]
        group.append(Tokens(token_ids=before + answer, weights=[0.0] * prompt + weights))
    return group


def random_lesson(decoder: Decoder, seed: int, *, most: int = 40) -> Lesson:
    """Any rank, alpha, dropout and modules; one to three groups of one, two or eight answers."""
    rng = random.Random(seed)
    options = LoraOptions(
        rank=rng.choice((1, 2, 4, 8, 16)),
        alpha=rng.choice((4.0, 16.0, 32.0)),
        dropout=rng.choice((0.0, 0.0, 0.1)),
        target_modules=tuple(rng.sample(ALL_LINEAR, rng.randint(1, 7))),
    )
    groups = [
        random_group(rng, count=rng.choice((1, 2, 8)), prompt=rng.choice((1, 3, 20, 30)), most=most)
        for _ in range(rng.randint(1, 3))
    ]
    packed = pack(groups, bound=rng.random() < 0.5)
    adapter = adapter_for(decoder, options, seed=seed)
    return Lesson(packed=packed, adapter=adapter, loss=weighted(packed), dropout_seed=seed)


def sequence(seed: int, *, before: Sequence[int], answer: int) -> Tokens:
    """An answer to the prompt, of tokens with different weights."""
    weights = [0.0] * len(before) + [1.0 + (i % 3) / 2 for i in range(answer)]
    return Tokens(token_ids=[*before, *prompt(seed, answer)], weights=weights)


def prompt(seed: int, length: int) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(3, SPOKEN) for _ in range(length)]


def shared() -> Packed:
    """Groups with a shared prefix, one of whose answers is a single token; and one sequence alone."""
    groups = [
        [sequence(n, before=prompt(50, 30), answer=answer) for n, answer in enumerate((9, 1, 17))],
        [sequence(9, before=prompt(51, 5), answer=12)],
        [sequence(n, before=prompt(52, 20), answer=answer) for n, answer in ((10, 1), (11, 1))],
    ]
    return pack(groups, bound=True)


def free() -> Packed:
    lengths = ((3, 8), (40, 2), (11, 30), (3, 3))
    return pack([[sequence(a, before=prompt(p, p), answer=a)] for p, a in lengths], bound=False)


def middle() -> Packed:
    """A loss in the middle and none at the end, as in a conversation."""
    weights = [0.0] * 6 + [1.0] * 4 + [0.0] * 8 + [2.0] * 3 + [0.0] * 5
    return pack([[Tokens(token_ids=prompt(77, 26), weights=weights)]], bound=False)


def tree() -> Packed:
    """All begin with one system message, two of its groups with one question, and each group has a prompt."""
    system, question = prompt(60, 21), prompt(61, 18)
    starts = [
        [*system, *question, *prompt(62, 17)],
        [*system, *question, *prompt(63, 2)],
        [*system, *prompt(64, 6)],
    ]
    groups = [
        [sequence(10 * number + n, before=before, answer=answer) for n, answer in enumerate((4, 1, 11))]
        for number, before in enumerate(starts)
    ]
    return pack(groups, bound=True)


PACKS = {"shared": shared, "free": free, "middle": middle, "tree": tree}


def lesson(packed: Packed, adapter: Any, **changes: Any) -> Lesson:
    return replace(Lesson(packed=packed, adapter=adapter, loss=loss_of(packed)), **changes)


def only(outcomes: list[Outcome]) -> Outcome:
    (outcome,) = outcomes
    assert outcome.error is None and outcome.rows is not None
    return outcome


def gradients(adapter: Any) -> dict[str, torch.Tensor]:
    """By peft's names: the gradient seen through the views of the weights."""
    held = adapter.weights.clone()
    adapter.weights.copy_(adapter.gradient)
    found = {name: tensor.clone() for name, tensor in adapter.state().items()}
    adapter.weights.copy_(held)
    return found


def close(left: torch.Tensor, right: torch.Tensor) -> None:
    assert (left - right).norm() <= 1e-5 * right.norm(), (left, right)
