"""`{{ item.answer }}` and `{{ sample.output_text }}`: looks paths up, runs nothing."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

VARIABLE: Final = re.compile(r"\{\{([^{}]{1,256})\}\}")
STEP: Final = re.compile(r"\.([A-Za-z_][\w-]*)|\[(\d{1,6})\]|\['([^']*)'\]|\[\"([^\"]*)\"\]")
MAX_RENDERED: Final = 1024 * 1024
MAX_VARIABLES: Final = 1024  # it is rendered where others wait


class MissingVariableError(Exception):
    """The template names what the row and the sample do not have."""


def render(template: str, *, item: Mapping[str, Any], sample: Mapping[str, Any]) -> str:
    """Raises MissingVariableError."""
    spaces = {"item": item, "sample": sample}
    rendered, end, size = [], 0, 0
    for number, found in enumerate(VARIABLE.finditer(template)):
        if number == MAX_VARIABLES:
            raise MissingVariableError(f"the template has more than {MAX_VARIABLES} variables")
        between, value = template[end : found.start()], text_of(look_up(found[1].strip(), spaces))
        rendered += [between, value]
        end, size = found.end(), size + len(between) + len(value)
        if size > MAX_RENDERED:
            raise MissingVariableError("the rendered text is longer than 1 MiB")
    return (
        ("".join(rendered) + template[end:]).encode(errors="replace").decode()
    )  # half a character cannot be sent


def look_up(path: str, spaces: Mapping[str, Any]) -> Any:
    name = re.match(r"\w+", path)
    if name is None or name[0] not in spaces:
        raise MissingVariableError(f"'{path}' starts with neither 'item' nor 'sample'")
    value, at = spaces[name[0]], name.end()
    while at < len(path):
        step = STEP.match(path, at)
        if step is None:
            raise MissingVariableError(f"'{path}' is not a path")
        try:
            value = value[int(step[2])] if step[2] else value[step[1] or step[3] or step[4] or ""]
        except (KeyError, IndexError, TypeError) as error:
            raise MissingVariableError(f"'{path}' is not there") from error
        at = step.end()
    return value


def text_of(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
