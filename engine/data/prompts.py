"""Reinforcement rows to prompts: what the model is asked, and the row that graders see as `item`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.contract.formats.plain import plain
from engine.data.chat import ChatFormat, check_template, read_rows


@dataclass(frozen=True, kw_only=True)
class Prompt:
    token_ids: tuple[int, ...]
    item: Mapping[str, Any]


def read_prompts(path: Path, *, chat: ChatFormat, param: str, room: int) -> list[Prompt]:
    """`room`: tokens that must be left for an answer. Raises DataError as `read_examples` does."""
    return read_rows(path, encode=lambda row: encode_prompt(row, chat=chat, room=room), param=param)


def encode_prompt(row: Mapping[str, Any], *, chat: ChatFormat, room: int) -> Prompt:
    """Raises ValueError."""
    messages, tools = [plain(message) for message in row["messages"]], row.get("tools") or None
    check_template(messages, tools=tools, chat=chat)
    ids = tuple(chat.render(messages, tools=tools, prompt=True))
    if len(ids) + room > chat.max_tokens:
        raise ValueError(
            f"has a prompt of {len(ids)} tokens; with {room} for the answer that is more than the limit of "
            f"{chat.model}, {chat.max_tokens}: shorten it."
        )
    return Prompt(token_ids=ids, item=row)
