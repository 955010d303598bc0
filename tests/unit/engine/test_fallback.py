"""Bases our own passes do not know: the same numbers through transformers and peft, and the base as it was after."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import PeftModel

from engine.contract.spec import LoraOptions
from engine.core.packing import Tokens, pack
from engine.core.unpacking import units
from engine.lora.adapter import Adapter, export
from engine.models.decoder import decoder_of
from engine.models.resident import ResidentModel, load
from engine.passes.fused import run_pass
from engine.passes.model import Lesson, Model, Question
from engine.passes.peft import PlainModel
from engine.passes.work import Sampling, finished
from tests.support.lessons import (
    OPTIONS,
    PACKS,
    close,
    free,
    gradients,
    lesson,
    loss_of,
    only,
    prompt,
    shared,
    stir,
)


@pytest.fixture
def base(tiny_model: Path) -> ResidentModel:
    return load(tiny_model, name="tiny")


def plain(base: ResidentModel, *, token_budget: int = 120) -> PlainModel:
    return PlainModel(base, token_budget=token_budget)


def fused_adapter(base: ResidentModel, options: LoraOptions) -> tuple[Any, Adapter]:
    decoder = decoder_of(base.causal_lm)
    return decoder, Adapter(options, shapes=decoder.shapes, device=decoder.device)


@pytest.mark.parametrize("budget", [1, 70, 10_000])
@pytest.mark.parametrize("kind", PACKS)
@pytest.mark.parametrize("rslora", [False, True])
def test_the_same_numbers_as_the_fused_passes(tiny_model: Path, kind: str, budget: int, rslora: bool) -> None:
    options = replace(OPTIONS, rslora=rslora)
    packed = PACKS[kind]()
    decoder, expected_adapter = fused_adapter(load(tiny_model, name="tiny"), options)
    model = plain(load(tiny_model, name="tiny"), token_budget=budget)
    adapter = model.new_adapter(options)
    stir(adapter)
    expected_adapter.load_state(adapter.state())
    expected = only(run_pass(decoder, [lesson(packed, expected_adapter)], tile=None))
    got = only(model.run_pass([lesson(packed, adapter)]))
    assert got.rows is not None and expected.rows is not None
    assert got.loss == pytest.approx(expected.loss, rel=1e-5)
    close(got.rows.logprobs, expected.rows.logprobs)
    assert torch.equal(got.rows.hits, expected.rows.hits)
    wanted = gradients(expected_adapter)
    found = gradients(adapter)
    assert found.keys() == wanted.keys()
    for name, gradient in found.items():
        close(gradient, wanted[name])
        assert gradient.abs().max() > 0, name


def test_an_adapter_begins_alike_in_both_engines_and_leaves_the_global_generator(base: ResidentModel) -> None:
    before = torch.random.get_rng_state()
    adapter = plain(base).new_adapter(OPTIONS)
    adapter.initialise(5)
    assert torch.equal(torch.random.get_rng_state(), before)
    _, expected = fused_adapter(load(Path(base.causal_lm.name_or_path), name="tiny"), OPTIONS)
    expected.initialise(5)
    for name, tensor in expected.state().items():
        assert torch.equal(tensor, adapter.state()[name])


def test_what_is_measured_is_what_is_learned_from_and_adds_no_gradient(base: ResidentModel) -> None:
    model = plain(base)
    adapter = model.new_adapter(OPTIONS)
    stir(adapter)
    learned = only(model.run_pass([lesson(shared(), adapter)]))
    gradient = adapter.gradient.clone()
    measured = only(model.run_pass([Lesson(packed=shared(), adapter=adapter)]))
    assert learned.rows is not None and measured.rows is not None
    assert torch.equal(learned.rows.logprobs, measured.rows.logprobs)
    assert torch.equal(adapter.gradient, gradient)
    model.run_pass([lesson(shared(), adapter)])
    close(adapter.gradient, 2 * gradient)


def test_a_loss_that_raises_adds_no_gradient_and_the_others_learn(base: ResidentModel) -> None:
    model = plain(base, token_budget=1)
    adapter = model.new_adapter(OPTIONS)
    stir(adapter)
    packed, seen = free(), list[slice]()

    def broken(logprobs: torch.Tensor, rows: slice) -> torch.Tensor:
        seen.append(rows)
        if len(seen) == 3:
            raise ZeroDivisionError("no such loss")
        return logprobs.sum()

    model.run_pass([lesson(packed, adapter)])
    alone = adapter.gradient.clone()
    adapter.gradient.zero_()
    first, second = model.run_pass([lesson(packed, adapter, loss=broken), lesson(packed, adapter)])
    assert isinstance(first.error, ZeroDivisionError) and first.rows is None
    assert second.error is None
    assert torch.equal(adapter.gradient, alone)


def test_dropout_is_a_function_of_its_seed_alone(base: ResidentModel) -> None:
    model = plain(base)
    adapter = model.new_adapter(replace(OPTIONS, dropout=0.3))
    stir(adapter)
    before = torch.random.get_rng_state()

    def logprobs(seed: int | None) -> torch.Tensor:
        rows = only(model.run_pass([lesson(free(), adapter, dropout_seed=seed)])).rows
        assert rows is not None
        return rows.logprobs

    none, first, other, again = (logprobs(seed) for seed in (None, 1, 2, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other) and not torch.equal(first, none)
    assert torch.equal(none, logprobs(None))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not base.causal_lm.training


def test_a_bfloat16_base_teaches_a_float32_adapter(base: ResidentModel) -> None:
    base.causal_lm.to(torch.bfloat16)
    model = plain(base)
    adapter = model.new_adapter(OPTIONS)
    stir(adapter)
    outcome = only(model.run_pass([lesson(shared(), adapter, dropout_seed=1)]))
    assert outcome.rows is not None and outcome.rows.logprobs.dtype == torch.float32
    assert adapter.weights.dtype == adapter.gradient.dtype == torch.float32
    assert all(gradient.abs().max() > 0 for gradient in gradients(adapter).values())
    sampling = Sampling(max_tokens=3, seed=1)
    question = Question(prompts=[[5, 6]], count=1, sampling=sampling, adapter=adapter)
    finished(model.sample(question, end_of_turn=base.end_of_turn))
    model.release(adapter)
    assert {parameter.dtype for parameter in base.causal_lm.parameters()} == {torch.bfloat16}


def test_none_is_the_base_and_a_frozen_copy_is_the_past(base: ResidentModel) -> None:
    model = plain(base)

    def logprobs(adapter: Any, **changes: Any) -> torch.Tensor:
        rows = only(model.run_pass([Lesson(packed=shared(), adapter=adapter, **changes)])).rows
        assert rows is not None
        return rows.logprobs

    bare = logprobs(None)
    adapter = model.new_adapter(OPTIONS)
    stir(adapter)
    old = model.frozen_copy(adapter)
    then = logprobs(adapter)
    adapter.weights.mul_(1.5)
    now, weights = logprobs(adapter), adapter.weights.clone()
    assert torch.equal(logprobs(old), then) and not torch.equal(now, then)
    assert torch.equal(logprobs(None), bare) and not torch.equal(bare, then)
    assert torch.equal(logprobs(adapter), now) and torch.equal(adapter.weights, weights)
    for frozen in (old, None):
        logprobs(frozen, loss=loss_of(shared()))
    assert not adapter.gradient.any()
    model.release(old)
    assert torch.equal(logprobs(adapter), now)
    model.run_pass([lesson(shared(), adapter)])  # the base alone was measured in between: it still learns
    assert adapter.gradient.any()


def test_one_run_at_a_time_and_the_base_is_as_it_was(base: ResidentModel) -> None:
    model: Model = plain(base)
    before = {name: tensor.clone() for name, tensor in base.causal_lm.state_dict().items()}
    kinds = [(name, type(module), module.training) for name, module in base.causal_lm.named_modules()]
    words = set(vars(base.causal_lm))
    adapter = model.new_adapter(OPTIONS)
    with pytest.raises(RuntimeError, match="one run at a time"):
        model.new_adapter(OPTIONS)
    stir(adapter)
    model.run_pass([lesson(free(), adapter, dropout_seed=1)])
    model.release(adapter)
    model.release(adapter)
    after = base.causal_lm.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in after)
    assert kinds == [(name, type(m), m.training) for name, m in base.causal_lm.named_modules()]
    assert words == set(vars(base.causal_lm))
    assert not any(parameter.requires_grad for parameter in base.causal_lm.parameters())
    for use in (
        lambda: model.run_pass([lesson(free(), adapter)]),
        lambda: model.frozen_copy(adapter),
    ):
        with pytest.raises(RuntimeError, match="no adapter"):
            use()
    model.release(model.new_adapter(OPTIONS))


def test_a_module_that_is_not_there_leaves_the_base_alone(base: ResidentModel) -> None:
    model = plain(base)
    words = set(vars(base.causal_lm))
    with pytest.raises(ValueError, match="qkv_proj"):
        model.new_adapter(replace(OPTIONS, target_modules=("qkv_proj",)))
    assert words == set(vars(base.causal_lm))
    model.release(model.new_adapter(OPTIONS))


def test_a_pack_without_rows_is_measured_as_nothing(base: ResidentModel) -> None:
    packed = pack([[Tokens(token_ids=[1, 2, 3], weights=[0, 0, 0])]], bound=False)
    rows = only(plain(base).run_pass([Lesson(packed=packed, adapter=None)])).rows
    assert rows is not None and len(rows.logprobs) == 0


def test_an_export_loads_in_peft(base: ResidentModel, tiny_model: Path, tmp_path: Path) -> None:
    model = plain(base)
    adapter = model.new_adapter(replace(OPTIONS, rslora=True))
    stir(adapter)
    export(cast(Adapter, adapter), base_model="tiny", folder=tmp_path / "adapter")
    rows = only(model.run_pass([Lesson(packed=free(), adapter=adapter)])).rows
    fresh = load(tiny_model, name="tiny").causal_lm
    loaded = PeftModel.from_pretrained(fresh, str(tmp_path / "adapter"))
    ids = torch.tensor([units(free())[2].sequences[0].token_ids])
    one = units(free())[2].sequences[0]
    with torch.no_grad():
        logprobs = loaded(input_ids=ids).logits[0].log_softmax(-1)
    expected = torch.stack([logprobs[at, t] for at, t in zip(one.at, one.targets, strict=True)])
    assert rows is not None
    torch.testing.assert_close(rows.logprobs[one.rows.start : one.rows.stop], expected)


def test_weights_of_another_adapter_are_refused(base: ResidentModel) -> None:
    adapter = plain(base).new_adapter(OPTIONS)
    stir(adapter)
    kept = {name: tensor.clone() for name, tensor in adapter.state().items()}
    with pytest.raises(ValueError, match="do not fit"):
        adapter.load_state({name: tensor[:1] for name, tensor in kept.items()})
    adapter.weights.zero_()
    adapter.load_state(kept)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in adapter.state().items())


def test_answers_are_repeatable_and_those_of_the_adapter(base: ResidentModel) -> None:
    model = plain(base)
    prompts = [prompt(1, 5), prompt(2, 9)]
    before = torch.random.get_rng_state()

    def answers(adapter: Any, seed: int = 3, **changes: Any) -> Any:
        sampling = Sampling(max_tokens=12, seed=seed, **changes)
        question = Question(prompts=prompts, count=3, sampling=sampling, adapter=adapter)
        return finished(model.sample(question, end_of_turn=base.end_of_turn))

    bare = answers(None)
    assert [len(group) for group in bare] == [3, 3]
    assert bare == answers(None) and bare != answers(None, seed=4)
    assert len({one.token_ids for one in bare[0]}) > 1
    adapter = model.new_adapter(OPTIONS)
    stir(adapter)
    adapter.weights.mul_(3)
    old, tuned = model.frozen_copy(adapter), answers(adapter)
    adapter.weights.zero_()
    assert tuned != bare and answers(old) == tuned
    assert answers(adapter) == bare and answers(None) == bare
    (first, *rest), _ = answers(None, temperature=0.0)
    assert all(one == first for one in rest)
    assert torch.equal(torch.random.get_rng_state(), before)
    only(model.run_pass([lesson(free(), adapter)]))  # nothing of sampling hinders learning


def test_answers_keep_to_a_schema(base: ResidentModel) -> None:
    sampling = Sampling(max_tokens=12, seed=1, schema='{"type": "boolean"}')
    question = Question(prompts=[prompt(1, 5)], count=4, sampling=sampling, adapter=None)
    (group,) = finished(plain(base).sample(question, end_of_turn=base.end_of_turn))
    assert {one.text for one in group} <= {"true", "false"} and all(one.whole for one in group)
