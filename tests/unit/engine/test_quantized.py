"""A base in NF4: the pass against transformers + peft on the dequantised weights and on bitsandbytes' own layers, to the
bit against the float pass over the same values, and alone or among neighbours.
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_blockwise, quantize_4bit
from transformers import AutoModelForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM

from engine.contract.events import RunNotice
from engine.contract.spec import LoraOptions
from engine.core.packing import pack
from engine.models import quantized
from engine.models.decoder import Decoder, decoder_of, why_unknown
from engine.models.quantize import quantize
from engine.models.quantized import NOTICE, PACKED, Nf4Linear, dequantised, floats, load_nf4, scales_of
from engine.models.resident import ResidentModel, load
from engine.passes.choose import model_of
from engine.passes.fused import FusedModel, run_pass
from engine.passes.model import Lesson, Question
from engine.passes.work import Sampling, finished
from tests.support.lessons import adapter_for, causal_lm, gradients, random_lesson, weighted
from tests.support.schedules import all_alone, bits, joining_and_leaving, started
from tests.support.training import story
from tests.unit.engine.test_fused import MODELS, SHAPES, groups_of, in_peft, near
from tests.unit.engine.test_isolation import bits as bits_of_pass
from tests.unit.engine.test_isolation import differing, equal

Read = Callable[..., tuple[Any, Any]]
CLOSE = 1e-5


def read(folder: Path, dtype: torch.dtype) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager"
    ).requires_grad_(False)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """A family's model in NF4, and the float copy that a server would load: new objects each time."""
    folders: dict[str, Path] = {}

    def read_both(name: str, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
        if name not in folders:
            folder = tmp_path_factory.mktemp("held")
            causal_lm(**MODELS[name]).save_pretrained(folder / "model")
            quantize(folder / "model", folder / "copy", max_tokens=512)
            folders[name] = folder / "copy"
        return read(folders[name] / PACKED, dtype), read(folders[name], dtype)

    return read_both


@pytest.fixture(scope="module")
def nf4_folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nf4") / "tiny-nf4"
    quantize(tiny_model, folder, max_tokens=512)
    return folder


@pytest.fixture(scope="module")
def nf4_base(nf4_folder: Path) -> ResidentModel:
    return load_nf4(nf4_folder, name="tiny-nf4")


def mixed_pass(decoder: Decoder, *, tile: int | None) -> list[Lesson]:
    lessons = []
    for number, options in enumerate(SHAPES):
        packed = pack(groups_of(number), bound=False)
        adapter = adapter_for(decoder, options, seed=number)
        lessons.append(Lesson(packed=packed, adapter=adapter, loss=weighted(packed), dropout_seed=1))
    return lessons


@pytest.mark.parametrize("other", ["the dequantised weights", "bitsandbytes' layers"])
@pytest.mark.parametrize("name", MODELS)
def test_a_mixed_pass_is_each_runs_own_in_peft(name: str, other: str, held: Read) -> None:
    model, copy = held(name)
    oracle = copy if other == "the dequantised weights" else held(name)[0].train()
    assert why_unknown(model, max_tokens=512) is None
    decoder = decoder_of(model)
    assert all(isinstance(one, Nf4Linear) for layer in decoder.layers for one in layer.linear.values())
    lessons = mixed_pass(decoder, tile=None)
    outcomes = run_pass(decoder, lessons, tile=None)
    for number, (lesson, outcome) in enumerate(zip(lessons, outcomes, strict=True)):
        assert outcome.rows is not None and outcome.error is None
        sequences = [sequence for group in groups_of(number) for sequence in group]
        logprobs, loss, grads = in_peft(oracle, lesson.adapter, sequences)  # type: ignore[arg-type]
        near(outcome.rows.logprobs, logprobs)
        assert outcome.loss == pytest.approx(loss, rel=CLOSE)
        found = gradients(lesson.adapter)  # type: ignore[arg-type]
        assert found.keys() == grads.keys()
        for key in found:
            near(found[key], grads[key], key)


@pytest.mark.parametrize("tile", [None, 32])
@pytest.mark.parametrize("name", MODELS)
def test_the_pass_is_that_of_the_served_copy_to_the_bit(name: str, tile: int | None, held: Read) -> None:
    decoders = [decoder_of(model) for model in held(name)]
    lessons = [random_lesson(decoders[0], seed) for seed in range(3)]
    ours, served = (bits_of_pass(decoder, lessons, tile=tile) for decoder in decoders)  # type: ignore[arg-type]
    assert all(equal(*pair) for pair in zip(ours, served, strict=True))


def test_the_copy_has_the_values_that_are_computed_with(held: Read) -> None:
    """And they are NF4's: sixteen of them in a block, close to the model's own."""
    model, copy = held("llama")
    original = causal_lm(**MODELS["llama"])
    for name, module in copy.model.named_modules():
        if name.endswith("_proj"):
            values = dequantised(model.model.get_submodule(name))
            assert torch.equal(values, module.weight)
            assert all(len(block.unique()) <= 16 for block in values.view(-1, 64))
            own = original.model.get_submodule(name).weight
            assert 0 < (values - own).norm() / own.norm() < 0.12
    for part in ("embed_tokens.weight", "norm.weight", "layers.1.input_layernorm.weight"):
        assert torch.equal(model.model.get_parameter(part), original.model.get_parameter(part))
    assert torch.equal(model.lm_head.weight, original.lm_head.weight)


@pytest.mark.parametrize("inputs", [32, 48, 64, 96, 100, 576])
def test_each_block_has_its_own_scale_whatever_the_width(inputs: int) -> None:
    """bitsandbytes' kernel alone takes others where the width is 32, 48 or 96."""
    drawn = torch.randn(192, inputs, generator=torch.Generator().manual_seed(1))
    packed, state = quantize_4bit(drawn, blocksize=64, compress_statistics=True, quant_type="nf4")
    numbers = torch.stack([packed.view(-1) >> 4, packed.view(-1) & 15], dim=1).view(-1).int()
    scales = (dequantize_blockwise(state.absmax, state.state2) + state.offset)[:, None]
    found = floats(packed, scales_of(state), inputs=inputs, dtype=torch.float32)
    assert torch.equal(found.view(-1, 64), state.code[numbers].view(-1, 64) * scales)
    assert (found - drawn).norm() / drawn.norm() < 0.1


@pytest.mark.parametrize("values", [64 * 64, 3 * 64 * 64])
def test_large_layers_are_computed_in_pieces(
    values: int, held: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(quantized.PIECE_VALUES, "cpu", values)
    model, copy = held("llama, biases")
    decoder, whole = decoder_of(model), decoder_of(copy)
    assert len(list(decoder.layers[0].linear["gate_up"].pieces(torch.float32))) > 1  # type: ignore[attr-defined]
    lesson = random_lesson(decoder, 3)
    ((logprobs, _, loss, gradient),) = bits_of_pass(decoder, [lesson], tile=None)  # type: ignore[arg-type]
    ((expected, _, expected_loss, expected_gradient),) = bits_of_pass(whole, [lesson], tile=None)  # type: ignore[arg-type]
    near(logprobs, expected)
    near(gradient, expected_gradient)
    assert loss == pytest.approx(expected_loss, rel=CLOSE)
    assert differing(decoder, seed=5, schedules=10, tile=32, most=40) == []


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_neighbours_change_no_bit(family: str, held: Read) -> None:
    decoder = decoder_of(held(family)[0])
    assert differing(decoder, seed=2, schedules=10, tile=32, most=40) == []


def test_neighbours_change_no_bit_of_a_whole_run(nf4_base: ResidentModel, tmp_path: Path) -> None:
    model = FusedModel(nf4_base, most_runs=16)
    alone = all_alone(tmp_path, model=model)
    for seed in range(4):
        found = joining_and_leaving(random.Random(seed), model=model, folder=tmp_path / str(seed))
        assert found.differing(alone) == []


def test_a_run_on_nf4_is_one_on_the_copy_and_says_how_the_base_is_held(
    nf4_base: ResidentModel, nf4_folder: Path, tmp_path: Path
) -> None:
    """Sampling too: number 3 is a reinforcement run."""
    bases = {"nf4": nf4_base, "copy": load(nf4_folder, name="tiny-nf4")}
    for number in (1, 2, 3):
        told = {}
        for name, base in bases.items():
            model = model_of(base, max_tokens=56, most_runs=4)
            run = started(number, folder=tmp_path / f"{name}-{number}", model=model)  # type: ignore[arg-type]
            told[name] = story(run, model=model)
        assert bits(told["nf4"]) == bits(told["copy"])
        notices = {name: [e for e in events if isinstance(e, RunNotice)] for name, events in told.items()}
        assert notices["nf4"][0] == RunNotice(message=NOTICE) and "NF4 (QLoRA)" in NOTICE
        assert not [notice for notice in notices["copy"] if "NF4" in notice.message]


def test_in_bfloat16_too_the_pass_is_that_of_the_served_copy(held: Read) -> None:
    decoders = [decoder_of(model) for model in held("llama", torch.bfloat16)]
    lesson = random_lesson(decoders[0], 4)
    ours, served = (bits_of_pass(decoder, [lesson], tile=None) for decoder in decoders)  # type: ignore[arg-type]
    assert equal(ours[0], served[0])


def test_answers_are_those_of_the_copy(nf4_base: ResidentModel, nf4_folder: Path) -> None:
    answers = []
    for base in (nf4_base, load(nf4_folder, name="tiny-nf4")):
        model = FusedModel(base, most_runs=1)
        sampling = Sampling(temperature=1.0, top_p=0.9, max_tokens=12, seed=4, schema=None)
        question = Question(prompts=[[5, 6, 7], [9, 8]], count=3, sampling=sampling, adapter=None)
        steps = model.sample(question, end_of_turn=base.end_of_turn)
        answers.append(finished(steps))
    assert answers[0] == answers[1]


def test_the_memory_plan_knows_the_piece_that_is_float(nf4_base: ResidentModel, nf4_folder: Path) -> None:
    options = LoraOptions(rank=4)
    floats = FusedModel(load(nf4_folder, name="tiny-nf4"), most_runs=1)
    packed = FusedModel(nf4_base, most_runs=1)
    needs = [model.need(options, copies=0, tokens=64) for model in (floats, packed)]
    largest = 2 * 64 * 32  # gate and up: (64, 32) each, and a scale for 64 of them
    assert needs[1].passing - needs[0].passing == (largest + largest // 64) * 4 * 1.25
    assert needs[0].resident == needs[1].resident


def test_the_base_takes_an_eighth_of_its_projections(nf4_base: ResidentModel) -> None:
    """4 bits a weight, 8 for the scale of 64, and what the scales' own scales take."""
    weights = {name: p.dtype for name, p in nf4_base.causal_lm.named_parameters()}
    assert {dtype for name, dtype in weights.items() if name.endswith("_proj.weight")} == {torch.uint8}
    linears = FusedModel(nf4_base, most_runs=1).decoder.layers[0].linear.values()
    for linear in linears:
        assert isinstance(linear, Nf4Linear)
        count = linear.inputs * linear.outputs
        scales = sum(state.absmax.nbytes for state in linear.states)
        assert linear.packed.nbytes + scales == count // 2 + count // 64


def test_what_cannot_be_held_in_nf4_is_refused_in_words(
    tiny_model: Path, nf4_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="holds no NF4 weights: make such a folder by `tuningfork models"):
        load_nf4(tiny_model, name="tiny")
    with pytest.raises(SystemExit, match="nf4 cannot be held in NF4: it is quantised already"):
        quantize(nf4_folder / PACKED, tmp_path / "again", max_tokens=512)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=300, **sizes)).save_pretrained(tmp_path / "neo")
    with pytest.raises(SystemExit, match="neo cannot be held in NF4: its architecture, gpt_neox as GPTNeoX"):
        quantize(tmp_path / "neo", tmp_path / "out", max_tokens=512)
    causal_lm("llama", hidden_size=36, head_dim=16, intermediate_size=50).save_pretrained(tmp_path / "odd")
    with pytest.raises(SystemExit, match="no whole blocks of 64 weights"):
        quantize(tmp_path / "odd", tmp_path / "out", max_tokens=512)
    assert not (tmp_path / "out").exists()
