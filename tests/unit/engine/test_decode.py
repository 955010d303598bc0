"""Answers of our own decoder: transformers' with the same weights where that is defined, and what a seed promises."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from engine.contract.spec import LoraOptions
from engine.core.drawing import drawn
from engine.lora.adapter import Adapter
from engine.lora.linear import Segment
from engine.models.decoder import Decoder, decoder_of
from engine.models.grammar import grammar, schema_of
from engine.models.resident import load
from engine.passes import cache, decode
from engine.passes.forward import batch_of, hidden_rows
from engine.passes.work import Answer, Sampling, finished

VOCABULARY = 300
FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": None}),
}
PROMPTS = [list(range(3, 40)), [7], list(range(50, 61)), list(range(90, 110))]
GREEDY = Sampling(max_tokens=16, seed=1, temperature=0)
WARM = Sampling(max_tokens=12, seed=1)
NOBODY: frozenset[int] = frozenset({VOCABULARY + 1})  # a token that is never sampled


@dataclass(frozen=True, kw_only=True)
class Twin:
    """One adapter on one base: ours, and peft's."""

    decoder: Decoder
    adapter: Adapter
    plain: Any


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def twin(request: pytest.FixtureRequest) -> Twin:
    return twin_of(request.param)


@pytest.fixture(scope="module")
def llama() -> Twin:
    return twin_of("llama")


def twin_of(family: str) -> Twin:
    config_of, model_of, extra = FAMILIES[family]
    config = config_of(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,  # tokens must depend on what was said: a smaller one repeats itself
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **extra,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_of(config).eval().requires_grad_(False)
        for parameter in model.parameters():  # norms and biases too, so that one that is left out is found
            parameter.add_(torch.randn(parameter.shape) * 0.05)
    decoder = decoder_of(model)
    adapter = adapter_of(decoder)
    options = adapter.options
    shape = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        target_modules=list(options.target_modules),
        task_type="CAUSAL_LM",
    )
    plain = get_peft_model(model, shape)
    set_peft_model_state_dict(plain, adapter.state())
    return Twin(decoder=decoder, adapter=adapter, plain=plain.eval())


def adapter_of(decoder: Decoder) -> Adapter:
    options = LoraOptions(rank=4, alpha=8)
    adapter = Adapter(options, shapes=decoder.shapes, device=decoder.device)
    drawn = torch.randn(adapter.weights.shape, generator=torch.Generator().manual_seed(3))
    adapter.weights.copy_(drawn * 0.1)
    return adapter


def sample(*args: Any, **kwargs: Any) -> Sequence[Sequence[Answer]]:
    return finished(decode.sample(*args, **kwargs))


class FakeTokenizer:
    """Its answers are numbers: these models have no words."""

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        return " ".join(map(str, ids))


def answers(
    twin: Twin,
    prompts: Sequence[Sequence[int]] = PROMPTS,
    *,
    count: int = 1,
    sampling: Sampling = GREEDY,
    end_of_turn: frozenset[int] = NOBODY,
    adapted: bool = True,
) -> Sequence[Sequence[Answer]]:
    return sample(
        twin.decoder,
        FakeTokenizer(),
        prompts,
        count=count,
        sampling=sampling,
        adapter=twin.adapter if adapted else None,
        end_of_turn=end_of_turn,
    )


def plain_answer(plain: Any, prompt: Sequence[int]) -> tuple[int, ...]:
    ids = torch.tensor([list(prompt)])
    with torch.inference_mode():
        out = plain.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=GREEDY.max_tokens,
            pad_token_id=0,
        )
    return tuple(out[0, len(prompt) :].tolist())


def test_greedy_answers_are_those_of_transformers_and_peft(
    twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "GROWTH", 7)  # the caches grow within an answer
    ours = [[answer.token_ids for answer in of_prompt] for of_prompt in answers(twin, count=2)]
    assert ours == [[plain_answer(twin.plain, prompt)] * 2 for prompt in PROMPTS]
    assert all(len(set(first)) > 4 for first, _ in ours), "an answer that repeats itself shows little"


def test_without_an_adapter_the_base_answers(llama: Twin) -> None:
    with llama.plain.disable_adapter():
        expected = [plain_answer(llama.plain, prompt) for prompt in PROMPTS]
    assert [answer.token_ids for (answer,) in answers(llama, adapted=False)] == expected
    assert [answer.token_ids for (answer,) in answers(llama)] != expected


def test_each_steps_logits_are_those_of_a_packed_pass(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(
        decode, "drawn", lambda logits, *a, **k: seen.append(logits.clone()) or drawn(logits, *a, **k)
    )
    given = answers(twin, count=1, sampling=replace(WARM, max_tokens=4))
    wholes = [[*prompt, *answer.token_ids] for prompt, (answer,) in zip(PROMPTS, given, strict=True)]
    packed = decode.packed_prompts(wholes)
    batch = batch_of(
        [(packed, Segment(start=0, end=0, adapter=twin.adapter))], device=twin.decoder.device, tile=None
    )
    everywhere = replace(batch, rows=torch.arange(packed.tokens), row_segments=batch.segments)
    with torch.no_grad():
        hidden = hidden_rows(twin.decoder, everywhere)
    logits = hidden @ twin.decoder.head.T
    for number, (span, prompt) in enumerate(zip(packed.spans, PROMPTS, strict=True)):
        own = logits[span.start + len(prompt) - 1 :][:4]
        torch.testing.assert_close(torch.stack([step[number] for step in seen]), own, rtol=1e-4, atol=1e-4)


def test_what_is_drawn_follows_the_probabilities() -> None:
    """Chi-square of 20,000 draws over 8 tokens: 24.3 is passed by one right sampler in a thousand."""
    logits = torch.tensor([0.0, 1.0, -1.0, 0.5, -torch.inf, 2.0, 0.1, -2.0])
    for temperature in (1.0, 0.5, 2.0):
        uniform = torch.rand(20_000, generator=torch.Generator().manual_seed(5))
        tokens = drawn(logits.repeat(20_000, 1), uniform, temperature=temperature, top_p=1.0)
        expected = torch.softmax(logits / temperature, -1) * 20_000
        found = torch.bincount(tokens, minlength=8).float()
        likely = expected > 0
        assert not found[~likely].any()
        assert ((found - expected)[likely] ** 2 / expected[likely]).sum() < 24.3


def test_top_p_keeps_the_fewest_tokens_that_have_this_share() -> None:
    probabilities = torch.tensor([0.1, 0.4, 0.2, 0.3])
    uniform = torch.linspace(0, 1 - 2**-24, 1000)
    kept = {0.0: {1}, 0.39: {1}, 0.6: {1, 3}, 0.85: {1, 2, 3}, 1.0: {0, 1, 2, 3}}
    for top_p, tokens in kept.items():
        logits = probabilities.log().repeat(1000, 1)
        assert set(drawn(logits, uniform, temperature=1.0, top_p=top_p).tolist()) == tokens


@pytest.mark.parametrize("temperature", [0, 1e-30, 1.0])
def test_the_impossible_is_never_drawn(temperature: float) -> None:
    logits = torch.tensor([[-torch.inf, 3.0, -torch.inf]] * 3)
    uniform = torch.tensor([0.0, 0.5, 1 - 2**-24])
    assert drawn(logits, uniform, temperature=temperature, top_p=1.0).tolist() == [1, 1, 1]


def test_first_tokens_are_spread_as_the_model_says(llama: Twin) -> None:
    """Over the 3 likeliest tokens, within 4 standard deviations of 600 answers."""
    with torch.inference_mode():
        expected = llama.plain(input_ids=torch.tensor([PROMPTS[2]])).logits[0, -1].softmax(-1)
    (given,) = answers(llama, PROMPTS[2:3], count=600, sampling=replace(WARM, max_tokens=1))
    counts = Counter(answer.token_ids[0] for answer in given)
    for share, token in zip(*(t.tolist() for t in expected.topk(3)), strict=True):
        assert abs(counts[token] - 600 * share) < 4 * (600 * share * (1 - share)) ** 0.5


def test_a_tiny_top_p_is_greedy(llama: Twin) -> None:
    assert answers(llama, sampling=replace(GREEDY, temperature=1.0, top_p=1e-6)) == answers(llama)


def test_a_seed_decides_and_nothing_else(llama: Twin) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = answers(llama, count=3, sampling=WARM)
    assert torch.equal(state, torch.get_rng_state()), "the global generator is untouched"
    torch.manual_seed(2)
    assert answers(llama, count=3, sampling=WARM) == first
    assert answers(llama, count=3, sampling=replace(WARM, seed=2)) != first
    flat = [answer.token_ids for of_prompt in first for answer in of_prompt]
    assert len(set(flat)) == len(flat), "every answer is drawn for itself"
    twice = answers(llama, [PROMPTS[0], PROMPTS[0]], sampling=WARM)
    assert twice[0] != twice[1], "equal prompts too"


def test_an_answer_ends_at_the_end_of_its_turn(llama: Twin) -> None:
    """Answers end one after another, so that places and prompts move in the caches while others go on."""
    free = answers(llama, count=5, sampling=WARM)
    ends = frozenset(range(0, VOCABULARY, 12))
    ended = answers(llama, count=5, sampling=WARM, end_of_turn=ends)
    for open_end, given in zip(chain(*free), chain(*ended), strict=True):
        cut = next((at + 1 for at, token in enumerate(open_end.token_ids) if token in ends), None)
        assert given.token_ids == open_end.token_ids[:cut]
        assert given.whole is (cut is not None)
        assert given.text == " ".join(map(str, given.token_ids[:-1] if cut else given.token_ids))
    lengths = {len(answer.token_ids) for of_prompt in ended for answer in of_prompt}
    assert len(lengths) > 5 and {answer.whole for group in ended for answer in group} == {True, False}


def test_a_prompt_whose_answers_have_ended_leaves_the_others_alone(llama: Twin) -> None:
    free = [answer.token_ids for (answer,) in answers(llama, sampling=WARM)]
    ends = frozenset({free[0][1], free[2][4]})
    cuts = [next((at + 1 for at, token in enumerate(ids) if token in ends), None) for ids in free]
    assert cuts[0] == 2 and cuts[2] == 5 and {cuts[1], cuts[3]} == {None}
    ended = [answer.token_ids for (answer,) in answers(llama, sampling=WARM, end_of_turn=ends)]
    assert ended == [ids[:cut] for ids, cut in zip(free, cuts, strict=True)]


def test_answers_keep_their_order_in_whatever_portions(llama: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = answers(llama, count=5, sampling=WARM)
    assert [len(of_prompt) for of_prompt in whole] == [5] * len(PROMPTS)
    for rows, tokens in ((4, 10_000), (64, 40)):
        monkeypatch.setattr(decode, "MAX_ROWS", rows)
        monkeypatch.setattr(decode, "MAX_PROMPT_TOKENS", tokens)
        portions = [[(p.number, len(p.samples)) for p in chunk] for chunk in decode.chunks(PROMPTS, count=5)]
        assert len(portions) > 1 and all(sum(n for _, n in chunk) <= rows for chunk in portions)
        assert answers(llama, count=5, sampling=WARM) == whole


def test_no_prompts_no_answers(llama: Twin) -> None:
    assert answers(llama, []) == []


@pytest.fixture(scope="module")
def spoken(tiny_model: Path) -> Iterator[tuple[Decoder, Any]]:
    base = load(tiny_model, name="tiny")
    yield decoder_of(base.causal_lm), base


def test_a_schema_binds_every_whole_answer(spoken: tuple[Decoder, Any]) -> None:
    decoder, base = spoken
    fields = {"properties": {"ok": {"type": "boolean"}, "n": {"enum": [1, 2]}}, "required": ["ok", "n"]}
    sampling = Sampling(max_tokens=40, seed=1, schema=json.dumps({"type": "object", **fields}))
    prompts = [base.tokenizer.encode(text) for text in ("x", "a longer one")]
    given = [
        sample(
            decoder,
            base.tokenizer,
            prompts,
            count=3,
            sampling=sampling,
            adapter=None,
            end_of_turn=base.end_of_turn,
        )
        for _ in range(2)
    ]
    texts = [answer.text for of_prompt in given[0] for answer in of_prompt if answer.whole]
    assert texts and all(
        set(json.loads(text)) >= {"ok", "n"} and json.loads(text)["n"] in (1, 2) for text in texts
    )
    assert all(answer.text.startswith("{") for of_prompt in given[0] for answer in of_prompt)
    assert given[0] == given[1]


def test_a_schema_that_cannot_be_compiled_is_told(spoken: tuple[Decoder, Any]) -> None:
    decoder, base = spoken
    wrapped = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "magic"}}}
    schema = schema_of(wrapped)
    assert schema == '{"type": "magic"}' and schema_of(None) is None
    with pytest.raises(RuntimeError):
        grammar(base, schema)
    with pytest.raises(RuntimeError):
        sample(
            decoder,
            base.tokenizer,
            [[3]],
            count=1,
            sampling=replace(GREEDY, schema=schema),
            adapter=None,
            end_of_turn=base.end_of_turn,
        )


def test_special_tokens_are_no_text(tiny_model: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model, local_files_only=True)
    end = tokenizer.eos_token_id
    ids = [*tokenizer.encode("hi"), tokenizer.convert_tokens_to_ids("<|im_start|>"), end]
    answer = decode.answer_of(ids, tokenizer, end_of_turn=frozenset({end}))
    assert answer == Answer(token_ids=tuple(ids), text="hi", whole=True)
