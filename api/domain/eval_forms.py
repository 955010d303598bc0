"""Data source configs and data sources of evals, read field by field, with the path of whatever is wrong."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, cast

from api.domain.evals import MAX_ITEMS, DataConfig, DataSource, Filters
from engine.contract.grader_forms import MAX_MESSAGES, Form, GraderFormError, message_from, shown
from engine.contract.graders import GraderMessage

CHAT_SAMPLING: Final = (
    "temperature",
    "top_p",
    "seed",
    "max_completion_tokens",
    "reasoning_effort",
    "response_format",
    "tools",
)
RESPONSE_SAMPLING: Final = (*(name for name in CHAT_SAMPLING if name != "response_format"), "text")
REFERENCE: Final = re.compile(r"item[.\[].{1,255}", re.DOTALL)
NOT_KEPT: Final = "this service does not keep it with a response, so it cannot select by it; leave it out."


def config_from(value: object, *, path: str = "data_source_config") -> DataConfig:
    """Raises GraderFormError."""
    form = Form(value, path)
    form.choice("type", ("custom", "logs", "stored_completions"))
    if form.value["type"] == "custom":
        schema, sample = form.get("item_schema"), form.get("include_sample_schema")
        if not isinstance(schema, dict):
            raise GraderFormError(form.at("item_schema"), f"give a JSON schema (given: {shown(schema)}).")
        if sample not in (None, True, False):
            raise GraderFormError(form.at("include_sample_schema"), "give true or false.")
        config = DataConfig(type="custom", item_schema=schema, include_sample_schema=bool(sample))
    else:
        config = DataConfig(type=form.value["type"], metadata=metadata_from(form))
    form.done()
    return config


def metadata_from(form: Form) -> dict[str, str] | None:
    value = form.get("metadata")
    if value is None:
        return None
    if not isinstance(value, dict) or len(value) > 16:
        raise GraderFormError(form.at("metadata"), "give a map of at most 16 pairs.")
    for key, text in value.items():
        if not isinstance(text, str) or len(key) > 64 or len(text) > 512 or "\x00" in key + text:
            raise GraderFormError(
                form.at("metadata"), "give texts: keys of at most 64 characters, values of at most 512."
            )
    return value


def data_source_from(value: object, *, path: str = "data_source", stored: bool = False) -> DataSource:
    """`stored` as in `Form`. Raises GraderFormError."""
    form = Form(value, path, stored=stored)
    kind = form.choice("type", ("jsonl", "completions", "responses"))
    wanted: tuple[str, ...] = ("file_content", "file_id")
    if kind != "jsonl":
        wanted += ("stored_completions" if kind == "completions" else "responses",)
    source = form.inner(form.get("source"), form.at("source"))
    origin = source.choice("type", wanted)
    rows = rows_from(source) if origin == "file_content" else None
    file_id = source.text("id", most=256) if origin == "file_id" else None
    filters = filters_from(source) if origin in ("stored_completions", "responses") else None
    source.done()
    asking = asking_from(form, stored=filters is not None) if kind != "jsonl" else {}
    form.done()
    return DataSource(
        type=cast(Literal["jsonl", "completions", "responses"], kind),
        form=form.value,
        rows=rows,
        file_id=file_id,
        filters=filters,
        **asking,
    )


def rows_from(source: Form) -> Sequence[Mapping[str, Any]]:
    rows = source.get("content")
    path = source.at("content")
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_ITEMS:
        raise GraderFormError(path, f"give a list of 1 to {MAX_ITEMS} objects with an 'item' each.")
    for number, row in enumerate(rows):
        if (reason := wrong_row(row)) is not None:
            raise GraderFormError(f"{path}[{number}]", reason)
    return rows


def wrong_row(row: object) -> str | None:
    """What is wrong with one line of a file or one object of a list, if anything."""
    if not isinstance(row, dict) or not isinstance(row.get("item"), dict):
        return "give an object whose 'item' is an object."
    if not isinstance(row.get("sample"), dict | None):
        return "'sample' must be an object."
    return None


def filters_from(source: Form) -> Filters:
    kind = cast(Literal["stored_completions", "responses"], source.value["type"])
    more: dict[str, Any] = {}
    if kind == "stored_completions":
        limit = whole(source, "limit", most=2**31)
        more["limit"] = MAX_ITEMS if limit is None else min(limit, MAX_ITEMS)
    else:
        for name in ("users", "reasoning_effort"):
            if source.get(name):
                raise GraderFormError(source.at(name), NOT_KEPT)
        more = {name: source.number(name) for name in ("temperature", "top_p")}
        more["instructions_search"] = source.text("instructions_search", default="", most=4096) or None
        more["tools"] = source.texts("tools") if source.get("tools") else None
    return Filters(
        kind=kind,
        model=source.text("model", default="", most=512) or None,
        metadata=metadata_from(source) or {},
        created_after=whole(source, "created_after", most=10**12),
        created_before=whole(source, "created_before", most=10**12),
        **more,
    )


def whole(form: Form, name: str, *, most: int) -> int | None:
    value = form.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most):
        raise GraderFormError(form.at(name), f"give a whole number above 0 (given: {shown(value)}).")
    return value


def asking_from(form: Form, *, stored: bool) -> dict[str, Any]:
    """The model to ask and what to ask it. Without one the answers that items bring along are graded."""
    model = form.text("model", default="", most=512) or None
    messages, reference = messages_from(form)
    sampling = sampling_from(form)
    if model is None:
        if messages or reference or sampling:
            raise GraderFormError(form.at("model"), "give the name of the model to ask.")
        return {}
    if not messages and not reference:
        if not stored:
            raise GraderFormError(form.at("input_messages"), "say what to ask the model: a template.")
        reference = "item.input"
    return {"model": model, "messages": messages, "reference": reference, "sampling": sampling}


def messages_from(form: Form) -> tuple[tuple[GraderMessage, ...] | None, str | None]:
    value = form.get("input_messages")
    if value is None:
        return None, None
    inner = form.inner(value, form.at("input_messages"))
    if inner.choice("type", ("template", "item_reference")) == "item_reference":
        reference = inner.text("item_reference", most=260)
        if not REFERENCE.fullmatch(reference):
            raise GraderFormError(inner.at("item_reference"), "give a path such as item.input_trajectory.")
        inner.done()
        return None, reference
    listed = inner.get("template")
    path = inner.at("template")
    if not isinstance(listed, list) or not 1 <= len(listed) <= MAX_MESSAGES:
        raise GraderFormError(path, f"give a list of 1 to {MAX_MESSAGES} messages.")
    inner.done()
    return tuple(
        message_from(form.inner(each, f"{path}[{number}]")) for number, each in enumerate(listed)
    ), None


def sampling_from(form: Form) -> dict[str, Any]:
    """Names alone; the values are checked where requests are."""
    value = form.get("sampling_params")
    if value is None:
        return {}
    inner = form.inner(value, form.at("sampling_params"))
    names = CHAT_SAMPLING if form.value["type"] == "completions" else RESPONSE_SAMPLING
    found = {name: inner.get(name) for name in names}
    if "type" in inner.value:
        raise GraderFormError(inner.at("type"), "there is no such parameter; remove it.")
    inner.done()
    return {name: given for name, given in found.items() if given is not None}
