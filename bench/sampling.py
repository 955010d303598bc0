"""Sampled tokens per second: our decoder next to transformers' `generate` with peft, in one run, on the same prompts.

Both answer prompts of examples/nimbus_train.jsonl with one adapter on the bundled model, at a temperature of 1, as
reinforcement does: several answers to each prompt, all of the same number of tokens. In turns, so that a noisy machine
is noisy for both.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from timeit import timeit
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

from engine.contract.spec import LoraOptions
from engine.lora.adapter import Adapter
from engine.models.decoder import Decoder, decoder_of
from engine.models.resident import load
from engine.passes.decode import sample
from engine.passes.work import Sampling, finished

DATA = Path(__file__).parents[1] / "examples/nimbus_train.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(".tuningfork/models/smollm2-135m-instruct"))
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--count", type=int, default=8, help="answers to each prompt")
    parser.add_argument("--tokens", type=int, default=32, help="of each answer")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    if not options.model.is_dir():
        raise SystemExit(f"{options.model} is not there: run `tuningfork models prepare`.")
    base = load(options.model, name="bench")
    prompts = prompts_of(base.tokenizer, options.prompts)
    decoder = decoder_of(base.causal_lm)
    adapter = adapter_of(decoder)
    plain = plain_of(base.causal_lm, adapter)

    def ours() -> None:
        sampling = Sampling(max_tokens=options.tokens, seed=1)
        nobody = frozenset({-1})
        steps = sample(
            decoder,
            base.tokenizer,
            prompts,
            count=options.count,
            sampling=sampling,
            adapter=adapter,
            end_of_turn=nobody,
        )
        finished(steps)

    def theirs() -> None:
        generate(plain, prompts, count=options.count, tokens=options.tokens)

    tokens = options.prompts * options.count * options.tokens
    rates = [
        (tokens / timeit(ours, number=1), tokens / timeit(theirs, number=1)) for _ in range(options.turns + 1)
    ][1:]
    for turn, (our, their) in enumerate(rates):
        print(f"turn {turn + 1}: ours {our:6.0f} tokens/s   transformers + peft {their:6.0f} tokens/s")
    our, their = (statistics.median(side) for side in zip(*rates, strict=True))
    ratio = statistics.median(our / their for our, their in rates)
    print(
        f"{options.prompts} prompts of {sum(map(len, prompts)) / len(prompts):.0f} tokens, {options.count} answers each:"
        f" medians {our:.0f} and {their:.0f} tokens/s, of the ratios {ratio:.2f} (device {base.device})"
    )


def prompts_of(tokenizer: Any, count: int) -> list[list[int]]:
    rows = [json.loads(line) for line in DATA.read_text().splitlines()[:count]]
    return [
        tokenizer.encode(
            tokenizer.apply_chat_template(row["messages"][:-1], tokenize=False, add_generation_prompt=True),
            add_special_tokens=False,
        )
        for row in rows
    ]


def adapter_of(decoder: Decoder) -> Adapter:
    adapter = Adapter(LoraOptions(), shapes=decoder.shapes, device=decoder.device)
    drawn = torch.randn(adapter.weights.shape, generator=torch.Generator().manual_seed(1))
    adapter.weights.copy_(drawn * 0.01)
    return adapter


def plain_of(causal_lm: Any, adapter: Adapter) -> Any:
    options = adapter.options
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        target_modules=list(options.target_modules),
        task_type="CAUSAL_LM",
    )
    plain = get_peft_model(causal_lm, config)
    set_peft_model_state_dict(plain, adapter.state())
    return plain.eval()


def generate(plain: Any, prompts: Sequence[Sequence[int]], *, count: int, tokens: int) -> None:
    rows = [list(prompt) for prompt in prompts for _ in range(count)]
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=plain.device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=plain.device)
    with torch.inference_mode():
        plain.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
        )


if __name__ == "__main__":
    main()
