"""FakeReplica that counts tokens as vLLM's /tokenize does, by a real tokenizer and its template; and the engine's own
count of the same file."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from transformers import PreTrainedTokenizerBase

from engine.data.chat import ChatFormat, read_examples
from engine.data.pairs import read_pairs
from engine.data.prompts import read_prompts
from serving.gateway.replicas import Replicas
from tests.support.fake_replica import fake_replica
from tests.support.stores import BASE

Json = dict[str, Any]


@asynccontextmanager
async def counting(tokenizer: PreTrainedTokenizerBase) -> AsyncIterator[Replicas]:
    async def answer(request: Request) -> Response:
        asked = await request.json()
        ids = tokenizer.apply_chat_template(
            asked["messages"],
            tools=asked.get("tools"),
            add_generation_prompt=asked["add_generation_prompt"],
            return_dict=False,
        )
        told = {"count": len(ids), "max_model_len": 2048, "tokens": ids}
        return JSONResponse({**told, "token_strs": tokenizer.convert_ids_to_tokens(ids)})

    async with fake_replica(answer, base_model=BASE) as replica:
        yield Replicas([replica])


def engine_count(rows: Sequence[Json], kind: str, *, tokenizer: PreTrainedTokenizerBase, folder: Path) -> int:
    """Tokens of an epoch, as the engine's objectives add them up; of prompts one sample's."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ends = frozenset({tokenizer.convert_tokens_to_ids("<|im_end|>")})
    chat = ChatFormat(tokenizer=tokenizer, end_of_turn=ends, max_tokens=100_000, model="tiny")
    if kind == "supervised":
        return sum(len(one.token_ids) for one in read_examples(path, chat=chat, param="training_file"))
    if kind == "dpo":
        return sum(pair.tokens for pair in read_pairs(path, chat=chat, param="training_file"))
    return sum(len(p.token_ids) for p in read_prompts(path, chat=chat, param="training_file", room=1))
