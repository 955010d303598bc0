"""Tiny random decoders of each family, and random lessons for them: seeded, so that every failure can be run again."""

import random
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
from engine.core.packing import Packed, Tokens, pack
from engine.lora.adapter import Adapter
from engine.models.decoder import Decoder
from engine.passes.model import Lesson
from engine.passes.work import RowLoss

FAMILIES: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
}
VOCABULARY = 300


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
    """As in the middle of training: B is not 0."""
    adapter = Adapter(options, shapes=decoder.shapes, device=torch.device("cpu"))
    adapter.initialise(seed)
    drawn = torch.randn(adapter.weights.shape, generator=torch.Generator().manual_seed(seed))
    adapter.weights.add_(drawn, alpha=0.05)
    return adapter


def weighted(packed: Packed) -> RowLoss:
    """Cross-entropy, each row by its weight, over the sum of the weights."""
    weights = torch.tensor(packed.weights)
    return lambda logprobs, rows: -(logprobs * weights[rows]).sum() / weights.sum()


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


def gradients(adapter: Adapter) -> dict[str, torch.Tensor]:
    """By peft's names."""
    found = {}
    for group in adapter.layout.groups:
        views = adapter.group(group.layer, group.group)
        assert views is not None
        for layout, part in zip(group.parts, views.parts, strict=True):
            name = group.peft_name(layout.module)
            found[f"{name}.lora_A.weight"] = views.grad_a[part.ranks]
            found[f"{name}.lora_B.weight"] = part.grad_b
    return found
