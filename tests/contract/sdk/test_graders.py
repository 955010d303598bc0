"""Graders through the SDK, with the real base model as the judge."""

import openai
import pytest
from conftest import BASE

CHECK = {
    "type": "string_check",
    "name": "right",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "eq",
}
CLOSE = {
    "type": "text_similarity",
    "name": "close",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "evaluation_metric": "fuzzy_match",
}
SOURCE = {
    "type": "python",
    "name": "length",
    "source": "def grade(sample, item):\n  return len(sample['output_text'])",
}
SCORE = {
    "type": "score_model",
    "name": "judge",
    "model": BASE,
    "range": [0, 3],
    "input": [{"role": "user", "content": "Give the answer '{{sample.output_text}}' a number."}],
    "sampling_params": {"max_completions_tokens": 120, "seed": 1},
}
LABEL = {
    "type": "label_model",
    "name": "kind",
    "model": BASE,
    "labels": ["good", "bad"],
    "passing_labels": ["good", "bad"],
    "input": [{"role": "user", "content": "Is '{{sample.output_text}}' good or bad?"}],
}
MULTI = {
    "type": "multi",
    "name": "all",
    "graders": {"right": CHECK, "close": CLOSE, "length": SOURCE},
    "calculate_output": "0.5 * right + 0.5 * close + min(length, 1)",
}


def run(client, grader, sample="Oslo", **item):
    return client.fine_tuning.alpha.graders.run(
        grader=grader, model_sample=sample, item={"answer": "Oslo", **item}
    )


def test_a_grader_runs_and_says_what_it_did(client) -> None:
    result = run(client, CHECK)
    assert result.reward == 1.0
    assert (result.metadata.name, result.metadata.type) == ("right", "string_check")
    assert result.metadata.execution_time >= 0
    errors = result.metadata.errors.to_dict()
    assert len(errors) == 14 and not any(errors.values())
    assert run(client, CHECK, "Bergen").reward == 0.0


def test_python_and_text_graders(client) -> None:
    assert run(client, SOURCE).reward == 4.0
    assert 0 < run(client, CLOSE, "Osl").reward < 1


def test_multi_adds_up(client) -> None:
    result = run(client, MULTI)
    assert result.reward == 2.0
    assert result.sub_rewards == {"right": 1.0, "close": 1.0, "length": 4.0}
    assert result.metadata.type == "multi"


@pytest.mark.parametrize("grader", [SCORE, LABEL], ids=["score", "label"])
def test_a_model_judges(client, grader) -> None:
    result = run(client, grader)
    errors = result.metadata.errors
    assert not errors.model_grader_server_error, errors
    used = result.model_grader_token_usage_per_model[BASE]
    assert used["prompt_tokens"] > 0 and used["completion_tokens"] > 0
    assert 0 <= result.reward <= 3
    if not errors.model_grader_parse_error:
        assert grader is SCORE or result.reward == 1.0
    assert result.metadata.sampled_model_name == BASE


def test_what_fails_is_an_error_of_the_grade_not_of_the_call(client) -> None:
    missing = run(client, {**CHECK, "reference": "{{item.nothing}}"})
    assert missing.reward == 0 and missing.metadata.errors.invalid_variable_error
    broken = run(client, {**SOURCE, "source": "def grade(sample, item):\n  return 1 / 0"})
    assert broken.reward == 0 and broken.metadata.errors.python_grader_runtime_error
    assert "ZeroDivisionError" in broken.metadata.errors.python_grader_runtime_error_details
    divided = run(client, {**MULTI, "calculate_output": "right / (close - 1)"})
    assert divided.reward == 0 and divided.metadata.errors.formula_parse_error


@pytest.mark.parametrize("grader", [CHECK, CLOSE, SOURCE, SCORE, LABEL, MULTI], ids=lambda g: g["type"])
def test_a_right_grader_is_echoed(client, grader) -> None:
    echoed = client.fine_tuning.alpha.graders.validate(grader=grader).grader.to_dict()
    assert (echoed["type"], echoed["name"]) == (grader["type"], grader["name"])


@pytest.mark.parametrize(
    ("grader", "param"),
    [
        ({**CHECK, "operation": "neq"}, "grader.operation"),
        ({**CLOSE, "evaluation_metric": "cosine"}, "grader.evaluation_metric"),
        ({**SCORE, "model": "gpt-9"}, "grader.model"),
        ({**SOURCE, "source": "def grade(:"}, "grader.source"),
        ({**SOURCE, "source": "x = 1"}, "grader.source"),
        ({**MULTI, "calculate_output": "right +"}, "grader.calculate_output"),
        ({**MULTI, "calculate_output": "right + wrong"}, "grader.calculate_output"),
        ({**MULTI, "graders": {"m": MULTI}}, "grader.graders.m.type"),
    ],
)
def test_a_wrong_grader_is_named(client, grader, param) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.fine_tuning.alpha.graders.validate(grader=grader)
    assert refused.value.param == param
