"""Graders' forms, templates, formulas and texts."""

import time
from typing import Any

import pytest

from engine.contract.grader_forms import GraderFormError, grader_from, grader_to
from engine.contract.graders import ScoreModel
from engine.graders import formula, template, text
from engine.graders.grading import asking
from engine.graders.samples import sample_of
from engine.graders.template import MissingVariableError, render

CHECK = {
    "type": "string_check",
    "name": "c",
    "input": "{{ sample.output_text }}",
    "reference": "yes",
    "operation": "eq",
}
SCORE = {
    "type": "score_model",
    "name": "s",
    "model": "m",
    "input": [{"role": "user", "content": "x"}],
    "range": [0, 5],
}
LABEL = {
    "type": "label_model",
    "name": "l",
    "model": "m",
    "input": [{"role": "user", "content": {"type": "input_text", "text": "x"}}],
    "labels": ["a", "b"],
    "passing_labels": ["a"],
}
PYTHON = {"type": "python", "name": "p", "source": "def grade(sample, item): return 1.0"}
SIMILAR = {
    "type": "text_similarity",
    "name": "t",
    "input": "a",
    "reference": "b",
    "evaluation_metric": "rouge_l",
}
MULTI = {
    "type": "multi",
    "name": "m",
    "graders": {"one": CHECK, "two": SIMILAR},
    "calculate_output": "one + two",
}


def nested(levels: int) -> Any:
    return [nested(levels - 1)] if levels else "x"


@pytest.mark.parametrize("form", [CHECK, SCORE, LABEL, PYTHON, SIMILAR, MULTI])
def test_a_normalised_grader_reads_as_itself(form: dict[str, Any]) -> None:
    grader = grader_from(form)
    assert grader_from(grader_to(grader)) == grader
    assert grader_to(grader)["type"] == form["type"]


def test_a_multi_grader_comes_as_a_map_a_list_or_alone() -> None:
    for graders in ([CHECK, SIMILAR], CHECK):
        grader = grader_from({**MULTI, "graders": graders, "calculate_output": "c"})
        assert grader_to(grader)["graders"] == graders


@pytest.mark.parametrize(
    ("form", "path"),
    [
        ("no", "grader"),
        ({}, "grader.type"),
        ({**CHECK, "type": "magic"}, "grader.type"),
        ({**CHECK, "operation": "neq"}, "grader.operation"),
        ({**CHECK, "input": 1}, "grader.input"),
        ({**CHECK, "colour": "red"}, "grader.colour"),
        ({**SIMILAR, "evaluation_metric": "rouge_9"}, "grader.evaluation_metric"),
        ({**SIMILAR, "pass_threshold": "high"}, "grader.pass_threshold"),
        ({**SCORE, "range": [1, 0]}, "grader.range"),
        ({**SCORE, "input": []}, "grader.input"),
        ({**SCORE, "input": [{"role": "user", "content": nested(500)}]}, "grader.input[0].content"),
        ({**SCORE, "input": [{"role": "user", "content": "\ud800"}]}, "grader.input[0].content"),
        ({**SCORE, "input": [{"role": "user", "content": ["x"] * 65}]}, "grader.input[0].content"),
        ({**CHECK, "reference": "\udfff"}, "grader.reference"),
        ({**CHECK, "\ud800": 1}, "grader.?"),
        ({**LABEL, "labels": ["a", "\ud800"]}, "grader.labels"),
        ({**PYTHON, "image_tag": "\ud800"}, "grader.image_tag"),
        ({**MULTI, "graders": {"\ud800": CHECK}}, "grader.graders"),
        ({**SCORE, "input": [{"role": "robot", "content": "x"}]}, "grader.input[0].role"),
        ({**SCORE, "sampling_params": {"temperature": 3}}, "grader.sampling_params.temperature"),
        ({**LABEL, "passing_labels": ["c"]}, "grader.passing_labels"),
        ({**PYTHON, "source": "x" * 300_000}, "grader.source"),
        ({**MULTI, "graders": {}}, "grader.graders"),
        ({**MULTI, "graders": {"m": MULTI}}, "grader.graders.m.type"),
        ({**MULTI, "graders": [CHECK, CHECK]}, "grader.graders"),
    ],
)
def test_a_wrong_grader_is_named_by_its_field(form: Any, path: str) -> None:
    with pytest.raises(GraderFormError) as refused:
        grader_from(form)
    assert refused.value.path == path


def test_what_a_model_says_can_be_sent_and_written() -> None:
    half = sample_of('{"x": "\\ud800"}')
    assert render("{{ sample.output_json.x }}", item={}, sample=half) == "?"
    assert "output_json" not in sample_of("[" * 400 + "]" * 400)
    assert sample_of("[" * 60 + "]" * 60)["output_json"]


ITEM = {"answer": "Oslo", "tags": ["a", {"b c": 2}], "n": 3}
SAMPLE = {"output_text": "hi", "output_tools": [{"function": {"name": "book"}}]}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{item.answer}}!", "Oslo!"),
        ("{{ sample.output_tools[0].function.name }}", "book"),
        ("{{ item.tags[1]['b c'] }} {{ item.n }}", "2 3"),
        ("{{ item.tags }}", '["a", {"b c": 2}]'),
        ("no { braces }", "no { braces }"),
    ],
)
def test_templates_are_filled(template: str, expected: str) -> None:
    assert render(template, item=ITEM, sample=SAMPLE) == expected


@pytest.mark.parametrize(
    "path",
    ["item.nope", "other.answer", "item.tags[9]", "item.answer.x", "item.__class__", "item.answer()", ""],
)
def test_a_missing_variable_is_an_error(path: str) -> None:
    with pytest.raises(MissingVariableError):
        render("{{ " + path + " }}", item=ITEM, sample=SAMPLE)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("a + b * 2", 2.0),
        ("(a + b) / 2", 0.75),
        ("a ^ 2 - -b", 1.5),
        ("min(a, b, 0.1) + max(a, b)", 1.1),
        ("sqrt(4) + abs(-1) + floor(1.9) + ceil(0.1) + exp(0) + log(1)", 6.0),
    ],
)
def test_formulas(expression: str, value: float) -> None:
    assert formula.evaluate(expression, {"a": 1.0, "b": 0.5}) == pytest.approx(value)
    assert formula.names("min(a, b) + a") == {"a", "b"}


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "a +",
        "c",
        "a / 0",
        "9^9^9",
        "__import__('os')",
        "a.real",
        "a if b else a",
        "lambda: 1",
        "a ** 2",
        "log(0)",
        "exp(1000)",
        "(" * 500 + "a" + ")" * 500,
        "-" * 1500 + "a",
        "'a' * 99",
        "min()",
        "log(1, 2, 3)",
        "(-1) ^ 0.5",
    ],
)
def test_what_is_no_arithmetic_or_has_no_value_is_an_error(expression: str) -> None:
    with pytest.raises(formula.FormulaError):
        formula.evaluate(expression, {"a": 1.0, "b": 0.5})


@pytest.mark.parametrize(
    ("operation", "value", "reference", "right"),
    [
        ("eq", "a", "a", 1),
        ("eq", "a", "A", 0),
        ("ne", "a", "A", 1),
        ("like", "the Cat", "Cat", 1),
        ("like", "the Cat", "cat", 0),
        ("ilike", "the Cat", "cAT", 1),
        ("ilike", "the", "the cat", 0),
    ],
)
def test_string_checks(operation: str, value: str, reference: str, right: int) -> None:
    assert text.string_check(value, reference, operation=operation) == right


@pytest.mark.parametrize("metric", text.SIMILARITY)
def test_every_metric_ranks_the_same_text_above_a_near_one_above_another(metric: str) -> None:
    score = text.SIMILARITY[metric]
    wanted = "the quick brown fox jumps over the lazy dog"
    same, near, far = (
        score(given, wanted)
        for given in (wanted, "a quick brown fox jumps over the lazy dog", "nothing of it 12345")
    )
    assert 1.0 >= same > near > far >= 0.0
    assert same == pytest.approx(1.0, abs=0.01)
    assert 0 <= score("", "") <= 1


LONG = {
    "letters": "".join(chr(97 + n * n % 26) for n in range(300_000)),
    "words in one": "a.b.c." * 50_000,
    "words": "cat dog fox " * 25_000,
}


@pytest.mark.parametrize(
    ("metric", "long"),
    [("fuzzy_match", "letters"), ("rouge_1", "words in one"), ("rouge_3", "words in one"), ("bleu", "words")],
)
def test_a_long_text_is_compared_in_its_first_part(metric: str, long: str) -> None:
    score, given, started = text.SIMILARITY[metric], LONG[long], time.process_time()
    assert score(given + " more", given) == score(given, given + " less") == score(given, given)
    assert time.process_time() - started < 10


def test_no_metric_compares_all_the_words_that_rouge_finds_in_one() -> None:
    assert len(text.RougeWords().tokenize(LONG["words in one"])) == text.MAX_WORDS


def test_a_template_of_many_variables_is_filled_in_time() -> None:
    many = "{{item.e}}-" * template.MAX_VARIABLES
    assert render(many, item={"e": ""}, sample={}) == "-" * template.MAX_VARIABLES
    with pytest.raises(MissingVariableError, match="more than 1024 variables"):
        render(many + "{{item.e}}", item={"e": ""}, sample={})
    with pytest.raises(MissingVariableError, match="1 MiB"):
        render("{{item.e}}" * 17, item={"e": "x" * 65536}, sample={})


@pytest.mark.parametrize(("most", "letters"), [(None, 149), (70, 2), (3000, 978), (8000, None)])
def test_a_judges_texts_leave_room_for_its_result(most: int | None, letters: int | None) -> None:
    """Six of them at two letters to a token; who has many tokens is not bounded."""
    limits = {} if most is None else {"sampling_params": {"max_completions_tokens": most}}
    judge = grader_from({**SCORE, **limits})
    assert isinstance(judge, ScoreModel)
    request = asking(judge, str, {"result": {"type": "number"}})
    assert request["max_completion_tokens"] == (most or 512)
    steps = request["response_format"]["json_schema"]["schema"]["properties"]["steps"]
    for text_of in steps["items"]["properties"].values():
        assert text_of.get("maxLength") == letters
