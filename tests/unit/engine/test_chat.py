"""Rows under official chat templates, as TRL ships them: what is learned is what serving would ask for and read."""

import json
from pathlib import Path
from typing import Any

import pytest
import trl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from engine.contract.formats import check_supervised
from engine.data.chat import ChatFormat, encode, read_examples
from engine.data.errors import DataError
from engine.data.prompts import encode_prompt

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
SPECIAL = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
WITH_TOOLS = ["qwen2_5", "qwen3", "llama3_1", "llama3_2"]
USER = {"role": "user", "content": "Is it warm?"}
ARGUMENTS = '{"town": "Paris", "days": [1, 2]}'
FUNCTION = {"name": "weather", "description": "d", "parameters": {"type": "object", "properties": {}}}
CALLED = {"name": "weather", "arguments": ARGUMENTS}
CALL = {"id": "c", "type": "function", "function": CALLED}


def chat_of(name: str) -> ChatFormat:
    """Bytes, and two line ends in a row as one token, as most vocabularies have it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *alphabet, "ĊĊ"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("Ċ", "Ċ")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        bos_token="",
        chat_template=(TEMPLATES / f"{name}.jinja").read_text(),
    )
    fast.add_special_tokens({"additional_special_tokens": SPECIAL[3:]})
    ends = frozenset(fast.convert_tokens_to_ids(["<|im_end|>", "<|eot_id|>"]))
    return ChatFormat(tokenizer=fast, end_of_turn=ends, max_tokens=100_000, model="tiny")


def learned(row: dict[str, Any], chat: ChatFormat) -> str:
    check_supervised(row)
    example = encode(row, chat=chat)
    return chat.decoded([t for t, w in zip(example.token_ids, example.weights, strict=True) if w])


def whole(row: dict[str, Any], chat: ChatFormat) -> str:
    return chat.decoded(encode(row, chat=chat).token_ids)


def object_in(text: str) -> Any:
    """The outermost JSON object of a text."""
    return json.loads(text[text.index("{") : text.rindex("}") + 1])


@pytest.mark.parametrize("template", WITH_TOOLS)
def test_arguments_of_a_call_are_learned_as_an_object(template: str) -> None:
    chat = chat_of(template)
    row = {"messages": [USER, {"role": "assistant", "tool_calls": [CALL]}]}
    told = object_in(learned(row, chat))
    assert told["name"] == "weather"
    assert told.get("arguments", told.get("parameters")) == json.loads(ARGUMENTS)
    assert row["messages"][1]["tool_calls"] == [CALL] and CALLED["arguments"] == ARGUMENTS, "it was a copy"


@pytest.mark.parametrize("template", WITH_TOOLS)
@pytest.mark.parametrize("arguments", ["", "{", "[1]", "3", "[" * 100_000])
def test_arguments_that_are_no_object_are_an_empty_one(template: str, arguments: str) -> None:
    """All but none are refused now; a job that an earlier release has checked may wait yet."""
    call = {"function": {"name": "weather", "arguments": arguments}}
    row = {"messages": [USER, {"role": "assistant", "tool_calls": [call]}]}
    told = object_in(whole(row, chat_of(template)))
    assert told.get("arguments", told.get("parameters")) == {}


@pytest.mark.parametrize("template", WITH_TOOLS)
def test_functions_are_the_tools_that_they_mean(template: str) -> None:
    chat = chat_of(template)
    old: dict[str, Any] = {
        "messages": [
            USER,
            {"role": "assistant", "content": None, "function_call": CALLED},
            {"role": "function", "name": "weather", "content": "30"},
            {"role": "assistant", "content": "Yes."},
        ],
        "functions": [FUNCTION],
    }
    new: dict[str, Any] = {
        "messages": [
            USER,
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c", "content": "30"},
            {"role": "assistant", "content": "Yes."},
        ],
        "tools": [{"type": "function", "function": FUNCTION}],
    }
    for row in (old, new):
        assert object_in(learned(row | {"messages": row["messages"][:2]}, chat))["name"] == "weather"
        row["messages"][1]["weight"] = 0  # Qwen 3 rewrites all answers but the last
    assert encode(old, chat=chat) == encode(new, chat=chat)
    assert '"description": "d"' in whole(old, chat)
    prompt = encode_prompt({"messages": old["messages"][:3]}, chat=chat, room=1)
    assert prompt.token_ids == encode_prompt({"messages": new["messages"][:3]}, chat=chat, room=1).token_ids


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, {"role": "assistant", "function_call": CALLED}]},
        {"messages": [USER, {"role": "function", "content": "30"}, {"role": "assistant", "content": "Yes."}]},
        {"messages": [USER, {"role": "assistant", "content": "Yes."}], "functions": [FUNCTION]},
    ],
)
def test_a_template_without_tools_refuses_functions_too(row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="uses tools, but the chat template of tiny has none"):
        learned(row, chat_of("llama3"))


def test_a_refusal_is_learned_where_nothing_else_is_said() -> None:
    chat = chat_of("qwen2_5")
    for content in ("", None):
        row = {"messages": [USER, {"role": "assistant", "content": content, "refusal": "I cannot say."}]}
        assert learned(row, chat) == "I cannot say.<|im_end|>"


@pytest.mark.parametrize("template", [*WITH_TOOLS, "llama3"])
@pytest.mark.parametrize("calls", [None, []])
def test_no_calls_are_no_use_of_tools(template: str, calls: object) -> None:
    """The SDK's model_dump writes null."""
    chat = chat_of(template)
    answer = {"role": "assistant", "content": "Yes."}
    row = {"messages": [USER, answer | {"tool_calls": calls, "function_call": None, "refusal": None}]}
    assert learned(row, chat) == learned({"messages": [USER, answer]}, chat)


def test_what_a_template_refuses_names_the_row_and_the_reason(tmp_path: Path) -> None:
    rows = [{"messages": [USER, {"role": "assistant", "tool_calls": [CALL] * n}]} for n in (1, 2)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError) as found:
        read_examples(tmp_path / "rows.jsonl", chat=chat_of("llama3_2"), param="training_file")
    assert "Example 2 (line 2) is refused by the chat template of tiny: " in str(found.value)
    assert "only supports single tool-calls at once" in str(found.value)


def test_a_template_that_stumbles_over_a_row_says_so() -> None:
    chat = chat_of("qwen2_5")
    chat.tokenizer.chat_template = "{{ messages[0].content + 1 }}"
    with pytest.raises(ValueError, match="is refused by the chat template of tiny: can only concatenate"):
        encode({"messages": [USER, {"role": "assistant", "content": "Yes."}]}, chat=chat)


def test_parts_of_a_text_are_lines_as_in_serving() -> None:
    parts = [{"type": "text", "text": "Yes."}, {"type": "text", "text": "Very."}]
    row = {"messages": [USER, {"role": "assistant", "content": parts}]}
    assert learned(row, chat_of("qwen2_5")) == "Yes.\nVery.<|im_end|>"


def test_an_answer_may_begin_with_blanks() -> None:
    """The prompt's last line end and the answer's first would be one token, which no served prompt ends with."""
    chat = chat_of("qwen2_5")
    messages = [
        USER,
        {"role": "assistant", "content": "\nHello"},
        USER,
        {"role": "assistant", "content": "Yes."},
        USER,
        {"role": "assistant", "content": "\n\nNo."},
    ]
    assert learned({"messages": messages}, chat) == "\nHello<|im_end|>Yes.<|im_end|>\n\nNo.<|im_end|>"
    example = encode({"messages": messages[:2]}, chat=chat)
    prompt = chat.render(messages[:1], tools=None, prompt=True)
    assert list(example.token_ids[: len(prompt)]) == prompt
    assert example.weights == (0.0,) * len(prompt) + (1.0,) * len(chat.tokens("\nHello<|im_end|>"))
    assert chat.decoded(example.token_ids) == chat.text(messages[:2], tools=None, prompt=False).rstrip("\n")


def test_ordinary_rows_are_one_text() -> None:
    chat = chat_of("qwen2_5")
    messages = [USER, {"role": "assistant", "content": "Yes.\n\nVery."}] * 3
    ids = chat.render(messages, tools=None, prompt=False)
    assert list(encode({"messages": messages}, chat=chat).token_ids) == ids[:-1], "all but the line's end"


def test_an_answer_that_is_rewritten_later_is_refused() -> None:
    """Qwen 3 takes the thoughts out of all answers but the last."""
    messages = [USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."}] * 2
    with pytest.raises(ValueError, match="is rewritten by the model's chat template"):
        encode({"messages": messages}, chat=chat_of("qwen3"))
    messages[1] = messages[1] | {"weight": 0}
    assert learned({"messages": messages}, chat_of("qwen3")).endswith("Yes.<|im_end|>")


def test_an_answer_to_nothing_has_to_weigh_nothing() -> None:
    chat = chat_of("qwen2_5")
    messages = [{"role": "assistant", "content": "Hello"}, USER, {"role": "assistant", "content": "Yes."}]
    with pytest.raises(ValueError, match="begins with an assistant message: give it a weight of 0"):
        encode({"messages": messages}, chat=chat)
    messages[0] = messages[0] | {"weight": 0}
    assert learned({"messages": messages}, chat) == "Yes.<|im_end|>"
