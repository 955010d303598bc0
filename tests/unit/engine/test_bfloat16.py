"""The base in bfloat16 with adapters in float32: as near to float32 as transformers and peft come, and repeatable."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.contract.spec import ALL_LINEAR, LoraOptions
from engine.core.packing import Tokens, pack
from engine.models.decoder import decoder_of
from engine.models.resident import dtype_of, load
from engine.passes.fused import FusedModel, run_pass
from engine.passes.model import Lesson, Question
from engine.passes.work import Answers, Sampling, finished
from tests.support.lessons import adapter_for, causal_lm, gradients, random_lesson, weighted
from tests.unit.engine.test_fused import groups_of, in_peft

LORA = LoraOptions(rank=8, alpha=16.0, target_modules=ALL_LINEAR)


def rounded(family: str) -> tuple[Any, Any]:
    """The same weights, all of them numbers of bfloat16, held in bfloat16 and in float32."""
    low = causal_lm(family).to(torch.bfloat16)
    high = causal_lm(family)
    high.load_state_dict({name: value.float() for name, value in low.state_dict().items()})
    return low, high


def apart(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found.float() - exact).norm() / exact.norm())


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_it_rounds_no_more_than_transformers_and_peft_do(family: str) -> None:
    low, high = rounded(family)
    decoder = decoder_of(low)
    groups = [group for number in range(4) for group in groups_of(number)]
    sequences: list[Tokens] = [sequence for group in groups for sequence in group]
    packed = pack(groups, bound=False)
    adapter = adapter_for(decoder, LORA, seed=1)
    (ours,) = run_pass(
        decoder, [Lesson(packed=packed, adapter=adapter, loss=weighted(packed), dropout_seed=1)], tile=None
    )
    exact_logprobs, exact_loss, exact = in_peft(high, adapter, sequences)
    their_logprobs, _, theirs = in_peft(low, adapter, sequences)
    assert ours.rows is not None
    assert ours.loss == pytest.approx(exact_loss, rel=0.01)
    assert apart(ours.rows.logprobs, exact_logprobs) <= 1.5 * apart(their_logprobs, exact_logprobs) < 0.03
    found = gradients(adapter)
    whole = [torch.cat([some[name].flatten().float() for name in sorted(exact)]) for some in (found, exact)]
    their_whole = torch.cat([theirs[name].flatten().float() for name in sorted(exact)])
    assert apart(whole[0], whole[1]) <= 1.5 * apart(their_whole, whole[1]) < 0.1


def test_neighbours_change_no_bit(tiny_model: Path) -> None:
    base = replace(load(tiny_model, name="tiny"), causal_lm=rounded("llama")[0])
    model = FusedModel(base, most_runs=8)
    for seed in range(20):
        lessons = [random_lesson(model.decoder, seed * 10 + number) for number in range(3)]
        found = []
        for beside in (lessons[:1], lessons):
            for lesson in beside:
                assert lesson.adapter is not None
                lesson.adapter.gradient.zero_()
            outcome = model.run_pass(beside)[0]
            assert outcome.rows is not None and lessons[0].adapter is not None
            found.append((outcome.loss, outcome.rows.logprobs, lessons[0].adapter.gradient.clone()))
        (loss, logprobs, gradient), (same_loss, same_logprobs, same_gradient) = found
        assert loss == same_loss and torch.equal(logprobs, same_logprobs)
        assert torch.equal(gradient, same_gradient)


def test_sampling_is_repeatable(tiny_model: Path) -> None:
    model = FusedModel(load(tiny_model, name="tiny", dtype=torch.bfloat16), most_runs=8)
    adapter = adapter_for(model.decoder, LORA, seed=3)

    def sampled(prompts: list[list[int]]) -> Answers:
        sampling = Sampling(max_tokens=12, seed=5)
        question = Question(prompts=prompts, count=3, sampling=sampling, adapter=adapter)
        return finished(model.sample(question, end_of_turn=model.base.end_of_turn))

    assert sampled([[5, 6, 7], [8, 9]]) == sampled([[5, 6, 7], [8, 9]])


def test_what_is_asked_for_is_what_is_held(tiny_model: Path) -> None:
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        assert dtype_of(name) == dtype
        base = load(tiny_model, name="tiny", dtype=dtype)
        assert base.causal_lm.dtype == dtype
