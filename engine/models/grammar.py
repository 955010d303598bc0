"""Answers bound to a JSON schema: xgrammar's compiled grammars, each made once."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import xgrammar

from engine.models.resident import ResidentModel


def grammar(base: ResidentModel, schema: str) -> Any:
    """Raises RuntimeError for a schema that cannot be compiled."""
    return compiled(base.tokenizer, int(base.causal_lm.config.vocab_size), schema)


@lru_cache(maxsize=8)
def compiled(tokenizer: Any, logits: int, schema: str) -> Any:
    """Without free whitespace: a model could fill an answer with it. `logits`: of a row, padding included."""
    return compiler(tokenizer, logits).compile_json_schema(schema, any_whitespace=False)


@lru_cache(maxsize=1)
def compiler(tokenizer: Any, logits: int) -> Any:
    return xgrammar.GrammarCompiler(xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=logits))


def schema_of(response_format: Mapping[str, Any] | None) -> str | None:
    """The JSON schema inside OpenAI's wrapper, as text."""
    if response_format is None:
        return None
    return json.dumps(response_format["json_schema"].get("schema", {}))
