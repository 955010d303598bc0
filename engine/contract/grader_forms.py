"""Graders from and to their JSON, field by field, with the path of whatever is wrong."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, assert_never

from engine.contract.graders import (
    Grader,
    GraderMessage,
    LabelModel,
    Multi,
    PythonGrader,
    ScoreModel,
    Single,
    StringCheck,
    TextSimilarity,
)

KINDS: Final[Mapping[type[Grader], str]] = {
    StringCheck: "string_check",
    TextSimilarity: "text_similarity",
    ScoreModel: "score_model",
    LabelModel: "label_model",
    PythonGrader: "python",
    Multi: "multi",
}
OPERATIONS: Final = ("eq", "ne", "like", "ilike")
METRICS: Final = (
    "cosine",
    "fuzzy_match",
    "bleu",
    "gleu",
    "meteor",
    *(f"rouge_{n}" for n in range(1, 6)),
    "rouge_l",
)
ROLES: Final = ("user", "assistant", "system", "developer")
NO_TEXT: Final = re.compile("[\x00\ud800-\udfff]")  # neither stored nor sent
MAX_SOURCE_BYTES: Final = 256 * 1024
MAX_TEXT: Final = 256 * 1024
MAX_GRADERS: Final = 32
MAX_MESSAGES: Final = 64


class GraderFormError(Exception):
    """`path` names the field (`grader.input`); `message` says what is wrong and what is wanted."""

    def __init__(self, path: str, message: str) -> None:
        path = path.encode(errors="replace").decode()  # it may hold a key as it came
        super().__init__(f"{path}: {message}")
        self.path, self.message = path, message


class Form:
    """One JSON object, read field by field. Whatever was not read is refused by `done`.

    `stored`: it was taken once, perhaps by a release with wider limits, so that its texts are not measured again.
    """

    def __init__(self, value: object, path: str, *, stored: bool = False) -> None:
        if not isinstance(value, dict):
            raise GraderFormError(path, "give an object with a 'type'.")
        self.value, self.path, self.seen, self.stored = value, path, {"type"}, stored

    def inner(self, value: object, path: str) -> "Form":
        """An object inside this one."""
        return Form(value, path, stored=self.stored)

    def at(self, name: str) -> str:
        return f"{self.path}.{name}"

    def get(self, name: str) -> Any:
        self.seen.add(name)
        return self.value.get(name)

    def text(self, name: str, *, default: str | None = None, most: int = MAX_TEXT) -> str:
        value = self.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise GraderFormError(self.at(name), f"give a string (given: {shown(value)}).")
        return self.checked(value, self.at(name), most=most)

    def choice(self, name: str, options: tuple[str, ...]) -> str:
        value = self.get(name)
        if not isinstance(value, str) or value not in options:
            raise GraderFormError(self.at(name), f"give one of {', '.join(options)} (given: {shown(value)}).")
        return value

    def number(self, name: str) -> float | None:
        value = self.get(name)
        return None if value is None else finite(value, self.at(name))

    def texts(self, name: str) -> tuple[str, ...]:
        value = self.get(name)
        if (
            not isinstance(value, list)
            or not value
            or len(value) > 256
            or not all(isinstance(text, str) and text for text in value)
        ):
            raise GraderFormError(self.at(name), "give a list of 1 to 256 strings.")
        return tuple(self.checked(text, self.at(name)) for text in value)

    def checked(self, text: str, path: str, *, most: int = MAX_TEXT) -> str:
        if not self.stored and (len(text) > most or NO_TEXT.search(text)):
            raise GraderFormError(path, f"give at most {most} characters, no NUL and no half character.")
        return text

    def done(self) -> None:
        extra = sorted(set(self.value) - self.seen)
        if extra:
            raise GraderFormError(self.at(extra[0]), "this grader has no such field; remove it.")


def shown(value: object) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 40 else text[:40] + "…"


def finite(value: object, path: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e15:
        raise GraderFormError(path, f"give a number (given: {shown(value)}).")
    return float(value)


def grader_from(value: object, *, path: str = "grader", stored: bool = False) -> Grader:
    """`stored` as in `Form`. Raises GraderFormError."""
    form = Form(value, path, stored=stored)
    if form.value.get("type") == "multi":
        return multi_from(form)
    return single_from(form)


def single_from(form: Form) -> Single:
    kind = form.value.get("type")
    read = READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        nested = " A multi grader cannot hold another." if kind == "multi" else ""
        raise GraderFormError(
            form.at("type"), f"give one of {', '.join(READERS)} or multi (given: {shown(kind)}).{nested}"
        )
    grader = read(form)
    form.done()
    return grader


def name_of(form: Form, default: str) -> str:
    name = form.text("name", default=default, most=256)
    if not name:
        raise GraderFormError(form.at("name"), "give at least one character.")
    return name


def string_check_from(form: Form) -> StringCheck:
    return StringCheck(
        name=name_of(form, "string_check"),
        input=form.text("input"),
        reference=form.text("reference"),
        operation=form.choice("operation", OPERATIONS),
    )


def text_similarity_from(form: Form) -> TextSimilarity:
    return TextSimilarity(
        name=name_of(form, "text_similarity"),
        input=form.text("input"),
        reference=form.text("reference"),
        evaluation_metric=form.choice("evaluation_metric", METRICS),
        pass_threshold=form.number("pass_threshold"),
    )


def score_model_from(form: Form) -> ScoreModel:
    return ScoreModel(
        name=name_of(form, "score_model"),
        model=form.text("model", most=512),
        input=messages_from(form),
        range=range_from(form),
        sampling_params=sampling_from(form),
        pass_threshold=form.number("pass_threshold"),
    )


def label_model_from(form: Form) -> LabelModel:
    labels, passing = form.texts("labels"), form.texts("passing_labels")
    if unknown := sorted(set(passing) - set(labels)):
        raise GraderFormError(form.at("passing_labels"), f"{shown(unknown[0])} is not one of the labels.")
    return LabelModel(
        name=name_of(form, "label_model"),
        model=form.text("model", most=512),
        input=messages_from(form),
        labels=labels,
        passing_labels=passing,
    )


def python_from(form: Form) -> PythonGrader:
    source = form.text("source")
    if not form.stored and len(source.encode(errors="replace")) > MAX_SOURCE_BYTES:
        raise GraderFormError(form.at("source"), f"give at most {MAX_SOURCE_BYTES} bytes.")
    tag = form.get("image_tag")
    if tag is not None:
        tag = form.text("image_tag", most=512)
    return PythonGrader(
        name=name_of(form, "python"),
        source=source,
        image_tag=tag,
        pass_threshold=form.number("pass_threshold"),
    )


READERS: Final[Mapping[str, Callable[[Form], Single]]] = {
    "string_check": string_check_from,
    "text_similarity": text_similarity_from,
    "score_model": score_model_from,
    "label_model": label_model_from,
    "python": python_from,
}


def messages_from(form: Form) -> tuple[GraderMessage, ...]:
    value = form.get("input")
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_MESSAGES:
        raise GraderFormError(form.at("input"), f"give a list of 1 to {MAX_MESSAGES} messages.")
    return tuple(message_from(form.inner(each, f"{form.at('input')}[{n}]")) for n, each in enumerate(value))


def message_from(form: Form) -> GraderMessage:
    if form.value.get("type", "message") != "message":
        raise GraderFormError(form.at("type"), "leave it out or give 'message'.")
    role = form.choice("role", ROLES)
    content = content_from(form)
    form.done()
    return GraderMessage(role=role, content=content)


def content_from(form: Form) -> str:
    """Text, one text part or a list of them. Images and sound need a grader model that this service has not."""
    value, path = form.get("content"), form.at("content")
    parts = value if isinstance(value, list) and value else [value]
    if not form.stored and len(parts) > MAX_MESSAGES:
        raise GraderFormError(path, f"give at most {MAX_MESSAGES} text parts.")
    return form.checked("".join(part_from(part, path, nested=form.stored) for part in parts), path)


def part_from(value: object, path: str, *, nested: bool) -> str:
    """`nested`: or lists of parts, which an earlier release took."""
    if isinstance(value, str):
        return value
    if nested and isinstance(value, list) and value:
        return "".join(part_from(part, path, nested=True) for part in value)
    if (
        isinstance(value, dict)
        and value.get("type") in ("input_text", "output_text")
        and isinstance(value.get("text"), str)
    ):
        return str(value["text"])
    raise GraderFormError(path, "give a string or text parts ('input_text', 'output_text').")


def range_from(form: Form) -> tuple[float, float]:
    value = form.get("range")
    if value is None:
        return (0.0, 1.0)
    if not isinstance(value, list) or len(value) != 2:
        raise GraderFormError(form.at("range"), "give [least, most].")
    least, most = (finite(each, form.at("range")) for each in value)
    if not least < most:
        raise GraderFormError(form.at("range"), "the first number must be below the second.")
    return (least, most)


def sampling_from(form: Form) -> dict[str, float | int | str]:
    value = form.get("sampling_params")
    if value is None:
        return {}
    inner = form.inner(value, form.at("sampling_params"))
    found: dict[str, float | int | str] = {}
    for name, most in (("temperature", 2.0), ("top_p", 1.0)):
        number = inner.number(name)
        if number is not None:
            if not 0 <= number <= most:
                raise GraderFormError(inner.at(name), f"give a number from 0 to {most:g}.")
            found[name] = number
    for name in ("seed", "max_completions_tokens"):
        whole = inner.get(name)
        if whole is not None:
            if (
                isinstance(whole, bool)
                or not isinstance(whole, int)
                or not 0 < whole + (name == "seed") < 2**31
            ):
                raise GraderFormError(
                    inner.at(name), "give an integer of at least 1 (a seed: of at least 0)."
                )
            found[name] = whole
    effort = inner.get("reasoning_effort")
    if effort is not None:
        found["reasoning_effort"] = inner.text("reasoning_effort", most=16)
    inner.done()
    return found


def multi_from(form: Form) -> Multi:
    raw = form.get("graders")
    path = form.at("graders")
    if isinstance(raw, list):
        shape, named = "list", [(str(n), each) for n, each in enumerate(raw)]
    elif isinstance(raw, dict) and not isinstance(raw.get("type"), str):
        shape, named = "map", list(raw.items())
    else:
        shape, named = "one", [("0", raw)]
    if not 1 <= len(named) <= MAX_GRADERS:
        raise GraderFormError(path, f"give 1 to {MAX_GRADERS} graders, best as a map from name to grader.")
    for key, _ in named:
        form.checked(key, path, most=256)
    inner = {
        key: single_from(form.inner(each, f"{path}.{key}" if shape == "map" else path)) for key, each in named
    }
    if shape != "map":  # the formula can only know them by their own names
        inner = {grader.name: grader for grader in inner.values()}
        if len(inner) != len(named):
            raise GraderFormError(
                path, "two graders have the same name: the formula could not tell them apart."
            )
    grader = Multi(
        name=name_of(form, "multi"),
        graders=inner,
        calculate_output=form.text("calculate_output", most=2000),
        shape=shape,
    )
    form.done()
    return grader


def grader_to(grader: Grader) -> dict[str, Any]:
    """The normalised JSON: defaults filled in, unset fields left out."""
    match grader:
        case Multi():
            inner = {key: grader_to(each) for key, each in grader.graders.items()}
            listed: Any = inner
            if grader.shape != "map":
                listed = list(inner.values()) if grader.shape == "list" else next(iter(inner.values()))
            return {
                "type": "multi",
                "name": grader.name,
                "graders": listed,
                "calculate_output": grader.calculate_output,
            }
        case StringCheck():
            return {"type": "string_check", **vars(grader)}
        case TextSimilarity():
            return {"type": "text_similarity", **present(vars(grader))}
        case PythonGrader():
            return {"type": "python", **present(vars(grader))}
        case ScoreModel():
            fields = {**vars(grader), "range": list(grader.range), "input": messages_to(grader.input)}
            return {"type": "score_model", **present(fields)}
        case LabelModel():
            return {
                "type": "label_model",
                "name": grader.name,
                "model": grader.model,
                "input": messages_to(grader.input),
                "labels": list(grader.labels),
                "passing_labels": list(grader.passing_labels),
            }
        case _:
            assert_never(grader)


def messages_to(messages: tuple[GraderMessage, ...]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content, "type": "message"} for message in messages]


def present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None and value != {}}
