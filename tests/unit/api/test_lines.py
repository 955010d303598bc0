"""What the decoders in C accept must be right for the judge in Python too, and its verdict is the one that is given."""

import io
import json
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from api.domain.errors import ServiceError
from api.services.jsonl import CHUNK_BYTES, MAX_LINE_BYTES, LineError, check_jsonl, parse_line
from api.services.rows import MethodName, checker_for
from engine.contract.formats import FormatError, check_dpo, check_reinforcement, check_supervised, fast

NEEDED = frozenset({"answer"})
JUDGES: dict[MethodName, Callable[[object], None]] = {
    "supervised": check_supervised,
    "dpo": check_dpo,
    "reinforcement": partial(check_reinforcement, needed=NEEDED),
}
USER, ANSWER = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}
TYPICAL: dict[MethodName, dict[str, Any]] = {
    "supervised": {"messages": [USER, ANSWER]},
    "dpo": {"input": {"messages": [USER]}, "preferred_output": [ANSWER], "non_preferred_output": [ANSWER]},
    "reinforcement": {"messages": [USER], "answer": "yes", "difficulty": 2},
}


def accepts_of(method: MethodName) -> fast.Accepts:
    if method == "reinforcement":
        quick = fast.Reinforcement(needed=NEEDED)
        quick.learn(["messages", "answer", "difficulty", "tools", "functions", "weight"])
        return quick.accepts
    return {"supervised": fast.supervised, "dpo": fast.dpo}[method]()


ACCEPTS = {method: accepts_of(method) for method in JUDGES}


def verdict(check: Callable[[bytes], object], line: bytes) -> str:
    try:
        check(line)
    except (LineError, FormatError) as error:
        return error.reason
    return ""


def judged(method: MethodName, line: bytes) -> str:
    return verdict(lambda each: JUDGES[method](parse_line(each)), line)


def texts() -> st.SearchStrategy[str]:
    return st.text(max_size=6) | st.sampled_from(["", "чай", "水が", "\x00", '"\\\n', "😀", "{[", "]}"])


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([2**63, -(2**63) - 1, 2**64, 10**40, 0.0, 1.0, -0.0, 1e300])
    | texts(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(texts() | st.sampled_from(["role", "type"]), inner, max_size=3)
    ),
    max_leaves=6,
)
OBJECTS = st.sampled_from(["", " ", "{}", '{"a": [1, null]}', '{"a": NaN}'])
ARGUMENTS = OBJECTS | OBJECTS | OBJECTS | OBJECTS | st.sampled_from(["[]", "{", "[" * 5_000]) | texts()
CALLED = st.fixed_dictionaries({"name": texts(), "arguments": ARGUMENTS})
CALL = st.fixed_dictionaries(
    {"function": CALLED},
    optional={"id": texts(), "type": st.just("function")},
)
CONTENT = texts() | st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": texts()}), min_size=1, max_size=2
)
SPEAKER = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "developer", "user", "function"]), "content": CONTENT},
    optional={"name": texts()},
)
RESULT = st.fixed_dictionaries({"role": st.just("tool"), "content": CONTENT, "tool_call_id": texts()})
SILENT = st.fixed_dictionaries(
    {"role": st.just("assistant")},
    optional={
        "content": st.none(),
        "tool_calls": st.lists(CALL, max_size=2) | st.none(),
        "function_call": CALLED | st.none(),
        "refusal": texts() | st.none(),
    },
)
ANSWERING = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": CONTENT},
    optional={"name": texts(), "tool_calls": st.lists(CALL, max_size=1) | st.none(), "refusal": st.none()},
)
OUTPUT = ANSWERING | ANSWERING | SILENT
WEIGHT = st.fixed_dictionaries({}, optional={"weight": st.sampled_from([0, 1, 1, 1, 1.0, True])})
ASSISTANT = st.builds(lambda message, weight: message | weight, OUTPUT, WEIGHT)
MESSAGES = st.lists(SPEAKER | RESULT | ASSISTANT, min_size=1, max_size=4)
SIGNATURE = st.fixed_dictionaries(
    {"name": texts()},
    optional={
        "description": texts() | st.none(),
        "parameters": st.dictionaries(texts(), JUNK, max_size=2) | st.none(),
        "strict": st.booleans() | st.none(),
    },
)
TOOLS = st.lists(st.fixed_dictionaries({"type": st.just("function"), "function": SIGNATURE}), max_size=2)
ASKED = {"tools": TOOLS, "parallel_tool_calls": st.booleans()}
ROWS: dict[MethodName, st.SearchStrategy[Any]] = {
    "supervised": st.fixed_dictionaries(
        {"messages": MESSAGES}, optional=ASKED | {"functions": st.lists(SIGNATURE, max_size=2)}
    ),
    "dpo": st.fixed_dictionaries(
        {
            "input": st.fixed_dictionaries({"messages": MESSAGES}, optional=ASKED),
            "preferred_output": st.lists(OUTPUT, min_size=1, max_size=2),
            "non_preferred_output": st.lists(OUTPUT, min_size=1, max_size=1),
        }
    ),
    "reinforcement": st.fixed_dictionaries(
        {"messages": MESSAGES, "answer": JUNK}, optional={"tools": TOOLS, "difficulty": JUNK, "weight": JUNK}
    ),
}


def places(value: Any) -> list[tuple[Any, Any]]:
    """Each (container, key) of a JSON value."""
    if not isinstance(value, dict | list):
        return []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


def spoiled(draw: st.DrawFn, row: Any) -> Any:
    """The row with one thing in it replaced, removed, added or moved to the end."""
    found = places(row)
    container, key = found[draw(st.integers(0, len(found) - 1))]
    match draw(st.sampled_from(["replace", "remove", "add", "last"])):
        case "replace":
            container[key] = draw(JUNK)
        case "remove":
            del container[key]
        case "last" if isinstance(container, dict):
            container[key] = container.pop(key)
        case _ if isinstance(container, dict):
            name = draw(st.sampled_from(["weight", "role", "type", "functions", "x", "tools"]))
            container[name] = draw(JUNK)
        case _:
            container.append(draw(JUNK))
    return row


PIECES = st.sampled_from([
    b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\\ud800", b"\\u0000", b"\x0b", b"\r", b"\n", b" ",
    b"1e999", b"9" * 400, b"9" * 5000, b"NaN", b"-0", b"01", b"1.", b",", b"}", b"{", b'"', b"[" * 70,
    b'"role":"user",', b'"role":"assistant",', b'"weight":0,', b'"tools":[],', b'"x":1,',
    b'"answer":' + b"[" * 66 + b"]" * 66 + b",",
])  # fmt: skip


@st.composite
def lines(draw: st.DrawFn, method: MethodName) -> bytes:
    row = draw(ROWS[method])
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        if places(row):
            row = spoiled(draw, row)
    line = json.dumps(row, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    if draw(st.integers(0, 2)) == 0:
        at = draw(st.integers(0, len(line)))
        line = line[:at] + draw(PIECES) + line[at + draw(st.integers(0, 2)) :]
    return line


THOROUGH = settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("method", list(JUDGES))
def test_what_the_decoder_accepts_is_right(method: MethodName) -> None:
    accepted, refused = 0, 0

    @THOROUGH
    @given(line=lines(method))
    def holds(line: bytes) -> None:
        nonlocal accepted, refused
        reason = judged(method, line)
        if ACCEPTS[method](line):
            accepted += 1
            assert reason == ""
        refused += reason != ""
        assert verdict(checker_for(method, needed=NEEDED), line) == reason

    holds()
    assert accepted > 30 and refused > 30  # else the lines above try nothing; about 150 and 1,830 of 2,000


@THOROUGH
@given(line=lines("reinforcement") | st.binary(max_size=40))
@example(line=b'{"a":1}')
def test_what_an_upload_accepts_is_a_json_object(line: bytes) -> None:
    if fast.json_object()(line):
        assert isinstance(parse_line(line), dict)


@pytest.mark.parametrize("method", list(JUDGES))
@pytest.mark.parametrize("text", ["hi", "чай", "水が沸く", 'a\n"b"\t', "\x00", "😀"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_typical_lines_never_reach_the_judge(method: MethodName, text: str, ascii_only: bool) -> None:
    line = json.dumps(TYPICAL[method], ensure_ascii=False).replace("hi", json.dumps(text)[1:-1])
    if not ascii_only:
        line = json.dumps(json.loads(line), ensure_ascii=False)
    assert ACCEPTS[method](line.encode() + b"\r") and fast.json_object()(line.encode())
    assert judged(method, line.encode()) == ""


def deep(levels: int) -> str:
    """A value of so many levels."""
    return "[" * levels + "]" * levels


def with_text(method: MethodName, text: str) -> bytes:
    return json.dumps(TYPICAL[method]).replace('"hi"', text).encode()


@pytest.mark.parametrize("method", list(JUDGES))
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('"\x01"', "is not valid JSON"),
        ('"\\ud800"', "is not valid JSON"),
        ("1e999", "is not valid JSON"),
        ("9" * 400, "is not valid JSON"),
        ("NaN", "is not valid JSON"),
        ('"x" "y"', "is not valid JSON"),
        (deep(70), "is nested deeper than 64 levels."),
        (deep(2000), "is nested deeper than 64 levels."),
        ('"' + "x" * MAX_LINE_BYTES + '"', "is longer than 1 MiB"),
        ('"x", "role": "robot"', "robot"),
    ],
)
def test_bounds_of_a_line(method: MethodName, text: str, reason: str) -> None:
    line = with_text(method, text)
    assert reason in verdict(checker_for(method), line)
    assert verdict(checker_for(method), line) == judged_for_any(method, line)


def judged_for_any(method: MethodName, line: bytes) -> str:
    judge = check_reinforcement if method == "reinforcement" else JUDGES[method]
    return verdict(lambda each: judge(parse_line(each)), line)


@pytest.mark.parametrize("method", list(JUDGES))
@pytest.mark.parametrize("bad", [b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\x80"])
def test_bytes_that_are_not_utf8(method: MethodName, bad: bytes) -> None:
    line = with_text(method, '"@"').replace(b"@", bad)
    assert verdict(checker_for(method), line) == "is not UTF-8. Save the file as UTF-8."
    source = io.BytesIO(with_text(method, '"x"') + b"\n" + line)
    with pytest.raises(ServiceError, match="Line 2 is not UTF-8"):
        check_jsonl(source)


@pytest.mark.parametrize(("levels", "fits"), [(5, True), (62, True), (63, False)])
def test_depth_of_tools_and_of_free_keys(levels: int, fits: bool) -> None:
    """Either is two levels down: the row's own, and that of the key or of the schema's place."""
    row = TYPICAL["reinforcement"] | {"answer": {"of": "@"}}
    line = json.dumps(row).replace('"@"', deep(levels)).encode()
    assert verdict(checker_for("reinforcement"), line) == ("" if fits else "is nested deeper than 64 levels.")
    source = io.BytesIO(line)
    if fits:
        check_jsonl(source)
    else:
        with pytest.raises(ServiceError, match="nested deeper than 64"):
            check_jsonl(source)


def test_the_last_of_two_equal_keys_counts() -> None:
    check = checker_for("supervised")
    check(b'{"messages":[{"role":"user","content":"a","content":"b"},{"role":"assistant","content":"c"}]}')
    twice = b'{"messages":[{"role":"assistant","content":"c","weight":1,"weight":0}]}'
    assert "no assistant message" in verdict(check, twice)
    other = b'{"messages":[{"role":"assistant","content":"c","role":"user"}]}'
    assert "no assistant message" in verdict(check, other)


def test_free_keys_are_learned_and_bounded() -> None:
    quick = fast.Reinforcement(needed=frozenset({"answer"}))
    line = json.dumps(TYPICAL["reinforcement"]).encode()
    assert not quick.accepts(line)
    quick.learn(TYPICAL["reinforcement"])
    assert quick.accepts(line)
    assert not quick.accepts(line.replace(b"answer", b"question"))
    assert not quick.accepts(line.replace(b'"difficulty": 2', b'"another": 2'))
    for number in range(100):
        quick.learn([f"key{number}"])
    assert quick.accepts(line.replace(b"difficulty", b"key0"))
    assert not quick.accepts(line.replace(b"difficulty", b"key99"))
    assert quick.accepts(line)


@pytest.mark.parametrize("key", ['a"b', "a\\b", "", "ключ", "a\nb", "x" * 100, "__init__", "class", "name"])
def test_any_name_of_a_free_key(key: str) -> None:
    check = checker_for("reinforcement", needed=frozenset({key}))
    row = {"messages": [USER], key: 1}
    for _ in range(3):
        check(json.dumps(row).encode())
        check(json.dumps(row, ensure_ascii=False).encode())
    lacking = verdict(check, json.dumps({"messages": [USER]}).encode())
    assert lacking == f"is missing key '{key}', which the grader reads as item.{key}."


def test_uploads_name_the_line() -> None:
    good = json.dumps(TYPICAL["supervised"]).encode()
    source = io.BytesIO(good + b"\r\n\n \t\n" + good)
    check_jsonl(source)
    assert source.tell() == 0
    for bad, words in [
        (b"[]", "Line 3 is not a dictionary"),
        (b"{", "Line 3 is not valid JSON"),
        (b"{}" + b"x" * MAX_LINE_BYTES, "Line 3 is longer than 1 MiB"),
        (b"\xef\xbb\xbf{}", "Line 3 is not valid JSON"),
        (good + good, "Line 3 is not valid JSON"),
    ]:
        with pytest.raises(ServiceError, match=words):
            check_jsonl(io.BytesIO(good + b"\n\n" + bad + b"\n" + good))
    with pytest.raises(ServiceError, match="The file is empty"):
        check_jsonl(io.BytesIO(b"\n \n"))


class Endless(io.RawIOBase):
    """A file of so many equal lines, made as it is read."""

    def __init__(self, line: bytes, *, size: int) -> None:
        self._line, self._left = line, size // len(line) * len(line)
        self._block = line * (2 * CHUNK_BYTES // len(line) + 2)

    def read(self, size: int = -1) -> bytes:
        start = -self._left % len(self._line)
        taken = min(size, self._left)
        self._left -= taken
        return self._block[start : start + taken]

    def seek(self, offset: int, whence: int = 0) -> int:
        return offset


@pytest.mark.parametrize("words", [1, 2000, 100_000])
def test_memory_does_not_grow_with_the_file(words: int) -> None:
    line = json.dumps({"messages": [USER, ANSWER | {"content": "kettle " * words}]}).encode() + b"\n"
    check_jsonl(Endless(line, size=2**20))
    tracemalloc.start()
    check_jsonl(Endless(line, size=32 * 2**20))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 2**20
