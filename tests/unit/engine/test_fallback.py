"""Bases our own passes do not know: the same numbers through transformers and peft, and the base as it was after."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers
from peft import PeftModel
from torch import nn

from engine.contract.spec import LoraOptions
from engine.core.packing import Packed, Tokens, pack
from engine.core.unpacking import padded_batches, units
from engine.lora.adapter import Adapter, export
from engine.lora.layout import GROUPS, ModuleShapes
from engine.models.decoder import decoder_of
from engine.models.resident import ResidentModel, load, logits_of_rows
from engine.passes.fused import run_pass
from engine.passes.model import Lesson, Model, Outcome
from engine.passes.peft import PlainModel, alike
from engine.passes.work import RowLoss, Sampling

OPTIONS = LoraOptions(rank=4, alpha=8)
FAMILIES: dict[str, dict[str, Any]] = {
    "Gemma2": {"head_dim": 8, "sliding_window": 16, "final_logit_softcapping": 3.0},
    "Phi3": {"bos_token_id": None},
    "Granite": {"logits_scaling": 4.0, "embedding_multiplier": 3.0},
    "GPTNeoX": {},
}


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    return load(tiny_model, name="tiny").tokenizer


@pytest.fixture
def base(tiny_model: Path) -> ResidentModel:
    return load(tiny_model, name="tiny")


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


def plain(base: ResidentModel, *, token_budget: int = 120) -> PlainModel:
    return PlainModel(base, token_budget=token_budget)


def sequence(seed: int, *, prompt: Sequence[int], answer: int) -> Tokens:
    drawn = torch.randint(3, 200, (answer,), generator=torch.Generator().manual_seed(seed)).tolist()
    weights = [0.0] * len(prompt) + [1.0 + (i % 3) / 2 for i in range(answer)]
    return Tokens(token_ids=[*prompt, *drawn], weights=weights)


def prompt(seed: int, length: int) -> list[int]:
    return torch.randint(3, 200, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def shared() -> Packed:
    """Groups with a shared prefix, one of whose answers is a single token; and one sequence alone."""
    groups = [
        [sequence(n, prompt=prompt(50, 30), answer=answer) for n, answer in enumerate((9, 1, 17))],
        [sequence(9, prompt=prompt(51, 5), answer=12)],
        [sequence(n, prompt=prompt(52, 20), answer=answer) for n, answer in ((10, 1), (11, 1))],
    ]
    return pack(groups, bound=True)


def free() -> Packed:
    lengths = ((3, 8), (40, 2), (11, 30), (3, 3))
    return pack([[sequence(a, prompt=prompt(p, p), answer=a)] for p, a in lengths], bound=False)


def middle() -> Packed:
    """A loss in the middle and none at the end, as in a conversation."""
    weights = [0.0] * 6 + [1.0] * 4 + [0.0] * 8 + [2.0] * 3 + [0.0] * 5
    return pack([[Tokens(token_ids=prompt(77, 26), weights=weights)]], bound=False)


PACKS = {"shared": shared, "free": free, "middle": middle}


def loss_of(packed: Packed) -> RowLoss:
    """Neither linear nor the same for every row."""
    weights = torch.tensor(packed.weights)

    def loss(logprobs: torch.Tensor, rows: slice) -> torch.Tensor:
        return (weights[rows] * (logprobs.exp() - logprobs)).sum()

    return loss


def lesson(packed: Packed, adapter: Any, **changes: Any) -> Lesson:
    return replace(Lesson(packed=packed, adapter=adapter, loss=loss_of(packed)), **changes)


def only(outcomes: list[Outcome]) -> Outcome:
    (outcome,) = outcomes
    assert outcome.error is None and outcome.rows is not None
    return outcome


def fused_adapter(base: ResidentModel, options: LoraOptions) -> tuple[Any, Adapter]:
    decoder = decoder_of(base.causal_lm)
    first = decoder.layers[0].linear
    shapes = ModuleShapes(
        layers=len(decoder.layers),
        inputs={group: first[group].inputs for group in GROUPS},
        outputs=decoder.outputs,
    )
    return decoder, Adapter(options, shapes=shapes, device=decoder.device)


def stir(adapter: Any) -> None:
    """B is no longer zero."""
    adapter.initialise(1)
    for name, tensor in adapter.state().items():
        generator = torch.Generator().manual_seed(len(name) + tensor.numel())
        tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)


def close(left: torch.Tensor, right: torch.Tensor) -> None:
    assert (left - right).norm() <= 1e-5 * right.norm(), (left, right)


def gradients(adapter: Any) -> dict[str, torch.Tensor]:
    """By peft's names: the gradient seen through the views of the weights."""
    held = adapter.weights.clone()
    adapter.weights.copy_(adapter.gradient)
    found = {name: tensor.clone() for name, tensor in adapter.state().items()}
    adapter.weights.copy_(held)
    return found


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


def test_the_bases_own_dropout_works_while_learning_alone(tokenizer: Any) -> None:
    base = family("Llama", tokenizer, attention_dropout=0.5)
    model = plain(base)
    adapter = model.new_adapter(OPTIONS)
    adapter.initialise(1)
    losses = [
        only(model.run_pass([lesson(free(), adapter, dropout_seed=seed)])).loss for seed in (1, 1, 2, None)
    ]
    assert losses[0] == losses[1] and len(set(losses)) == 3


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
    model.sample([[5, 6]], count=1, sampling=sampling, adapter=adapter, end_of_turn=base.end_of_turn)
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


@pytest.mark.parametrize("name", FAMILIES)
def test_another_family_learns(name: str, tokenizer: Any) -> None:
    base = family(name, tokenizer)
    model = plain(base)
    adapter = model.new_adapter(replace(OPTIONS, target_modules=tuple(base.linear_modules)))
    stir(adapter)
    packed = free()

    def loss() -> float:
        value = only(model.run_pass([lesson(packed, adapter)])).loss
        assert all(gradient.abs().max() > 0 for gradient in gradients(adapter).values())
        return value

    first, gradient, start = loss(), adapter.gradient.clone(), adapter.weights.clone()
    step = 0.01 / gradient.norm()
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
    model = plain(base, token_budget=10_000)
    groups = [[sequence(a, prompt=prompt(p, p), answer=a)] for p, a in ((3, 8), (40, 2), (3, 8), (11, 30))]
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


def test_unpacking_gives_back_what_was_packed() -> None:
    found = [one for unit in units(shared()) for one in unit.sequences]
    answers = [
        (50, 30, 0, 9),
        (50, 30, 1, 1),
        (50, 30, 2, 17),
        (51, 5, 9, 12),
        (52, 20, 10, 1),
        (52, 20, 11, 1),
    ]
    for one, (seed, length, own, answer) in zip(found, answers, strict=True):
        whole = sequence(own, prompt=prompt(seed, length), answer=answer)
        assert list(one.token_ids) == whole.token_ids[:-1]
        assert one.at == tuple(range(length - 1, length + answer - 1))
        assert list(one.targets) == whole.token_ids[length:]
    assert [len(unit.sequences) for unit in units(shared())] == [3, 1, 2]
    assert units(pack([[Tokens(token_ids=[1, 2, 3], weights=[0, 0, 0])]], bound=True)) == []


def test_batches_stay_within_the_budget_and_keep_every_unit() -> None:
    work = units(shared()) + units(free())
    batches = padded_batches(work, token_budget=100)
    assert sorted(map(id, work)) == sorted(id(unit) for batch in batches for unit in batch)
    for batch in batches:
        padded = sum(len(unit.sequences) for unit in batch) * max(unit.longest for unit in batch)
        assert len(batch) == 1 or padded <= 100


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
        return model.sample(
            prompts, count=3, sampling=sampling, adapter=adapter, end_of_turn=base.end_of_turn
        )

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
    (group,) = plain(base).sample(
        [prompt(1, 5)], count=4, sampling=sampling, adapter=None, end_of_turn=base.end_of_turn
    )
    assert {one.text for one in group} <= {"true", "false"} and all(one.whole for one in group)
