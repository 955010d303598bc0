"""What an answer cost, from whatever form it has. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

CHARACTERS_PER_TOKEN = 4
# How frames of a stream begin that bring no token: its end, its breaking off, and what Responses says before the first.
NO_TOKEN: Final = (
    b"data: [DONE]",
    b'data: {"error":',
    b"event: error\n",
    b"event: response.created\n",
    b"event: response.in_progress\n",
)


@dataclass(frozen=True, kw_only=True)
class Tokens:
    input: int = 0
    output: int = 0


def tokens_of(reply: Mapping[str, Any]) -> Tokens:
    """Of an answer or of one streamed event: chat, completions, responses or messages. Zero where it says nothing."""
    found = Tokens()
    for holder in (reply, reply.get("response"), reply.get("message")):
        usage = holder.get("usage") if isinstance(holder, Mapping) else None
        if isinstance(usage, Mapping):
            found = larger(
                found,
                Tokens(input=count(usage, "input", "prompt"), output=count(usage, "output", "completion")),
            )
    return found


def cached_tokens(reply: Mapping[str, Any]) -> int:
    usage = reply.get("usage") or {}
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    return details.get("cached_tokens") or 0


def larger(one: Tokens, other: Tokens) -> Tokens:
    """Streamed counts grow: the last is the largest."""
    return Tokens(input=max(one.input, other.input), output=max(one.output, other.output))


class Count:
    """Tokens of a streamed answer. Its own count comes last; one that ends before it, because the client hung up or the
    replica went away, costs the prompt, as guessed, and one token for each event that brought any."""

    def __init__(self, prompt: int) -> None:
        self._prompt, self._events, self._told, self._counted = prompt, 0, Tokens(), False

    def add(self, event: Mapping[str, Any]) -> None:
        self._events += 1
        self._told = larger(self._told, tokens_of(event))
        self._counted = self._counted or counts_answer(event)

    @property
    def tokens(self) -> Tokens:
        if self._counted or not self._events:
            return self._told
        return larger(self._told, Tokens(input=self._prompt, output=self._events))


def counts_answer(event: Mapping[str, Any]) -> bool:
    """An answer may have no tokens, so that none are counted says nothing. What `message` holds is counted before it."""
    holders = (event, event.get("response"))
    return any(isinstance(holder, Mapping) and isinstance(holder.get("usage"), Mapping) for holder in holders)


def count(usage: Mapping[str, Any], *names: str) -> int:
    values = (usage.get(f"{name}_tokens") for name in names)
    return next((value for value in values if isinstance(value, int)), 0)


def guess(request: Mapping[str, Any]) -> int:
    """Tokens of a prompt before anybody has counted them: a quarter of its characters."""
    shown = [request.get(name) for name in ("messages", "prompt", "input", "system", "instructions")]
    return sum(len(str(part)) for part in shown if part) // CHARACTERS_PER_TOKEN
