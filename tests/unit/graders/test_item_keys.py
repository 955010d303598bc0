"""Which keys of a row a grader's templates read."""

from typing import Any

import pytest

from engine.contract.grader_forms import grader_from
from engine.graders.item_keys import item_keys

CHECK: dict[str, Any] = {"type": "string_check", "name": "c", "operation": "eq"}
SCORE: dict[str, Any] = {"type": "score_model", "name": "s", "model": "m"}


@pytest.mark.parametrize(
    ("form", "keys"),
    [
        (CHECK | {"input": "{{ sample.output_text }}", "reference": "{{ item.answer }}"}, {"answer"}),
        (CHECK | {"input": "{{item.a.b[0]}} {{ item['c d'] }}", "reference": '{{ item["e"].f }}'}, {"a", "c d", "e"}),
        (CHECK | {"input": "{{ items.a }} {{ item }} item.b", "reference": "{{ item[0] }}"}, set()),
        (
            {"type": "text_similarity", "input": "{{ item.a }}", "reference": "x", "evaluation_metric": "bleu"},
            {"a"},
        ),
        (SCORE | {"input": [{"role": "user", "content": "{{ item.a }}"}, {"role": "user", "content": "{{item.b}}"}]}, {"a", "b"}),
        ({"type": "python", "source": "def grade(sample, item):\n    return item['a']\n"}, set()),
        (
            {
                "type": "multi",
                "graders": {
                    "one": CHECK | {"input": "{{ item.a }}", "reference": ""},
                    "two": CHECK | {"input": "{{ item.b }}", "reference": ""},
                },
                "calculate_output": "one + two",
            },
            {"a", "b"},
        ),
    ],
)  # fmt: skip
def test_item_keys(form: object, keys: set[str]) -> None:
    assert item_keys(grader_from(form)) == keys
