"""Which keys of a row a grader's templates read: a file can be checked for them before anything is trained."""

import re
from collections.abc import Iterator
from typing import Final, assert_never

from engine.contract.graders import (
    Grader,
    LabelModel,
    Multi,
    PythonGrader,
    ScoreModel,
    StringCheck,
    TextSimilarity,
)
from engine.graders.template import STEP, VARIABLE

ITEM: Final = re.compile(r"item\b")


def item_keys(grader: Grader) -> frozenset[str]:
    """`answer` of `{{ item.answer.text }}`. What a python source reads nobody can know before it runs."""
    return frozenset(key for template in templates_of(grader) for key in keys_of(template))


def keys_of(template: str) -> Iterator[str]:
    for variable in VARIABLE.findall(template):
        path = variable.strip()
        start = ITEM.match(path)
        step = STEP.match(path, start.end()) if start else None
        if step is not None and step[2] is None:
            yield step[1] or step[3] or step[4] or ""


def templates_of(grader: Grader) -> Iterator[str]:
    match grader:
        case StringCheck() | TextSimilarity():
            yield from (grader.input, grader.reference)
        case ScoreModel() | LabelModel():
            yield from (message.content for message in grader.input)
        case Multi():
            for inner in grader.graders.values():
                yield from templates_of(inner)
        case PythonGrader():
            return
        case _:
            assert_never(grader)
