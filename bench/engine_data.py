"""Models and data of `bench.engine`: random Llamas of two sizes, the bundled model, and seeded examples as token ids."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

# About 230 tokens, as services give their models.
SYSTEM: Final = """You are the support assistant of Nimbus, an electric kettle. Answer in plain English, in at most three \
sentences, and never invent a price, a limit or a date. If you are asked about anything that is not the kettle, say that \
you can only help with the Nimbus, and offer to connect the user to a person.

Rules:
- Quote volumes in liters and times in seconds, and say whether they are for a full pot.
- When a step has to be done at the kettle, name the button.
- When a user reports a leak or a smell, first tell them to unplug the kettle, and then ask for its serial number.
- Do not ask for card numbers or addresses, and tell the user to remove them when they are sent.
- Use the same language as the user. Be friendly, be brief, and do not apologise more than once.
- If the answer depends on the year the kettle was made and the user has not named one, answer for the newest.
- End every answer with the words that our customers know us by."""
EXAMPLES = Path(__file__).parents[1] / "examples/nimbus_train.jsonl"
VOCABULARY: Final = 32000
SIZES: Final = {
    "34M": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 6, "num_attention_heads": 8},
    "100M": {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
}
Row = dict[str, Any]


def random_llama(size: str, *, folder: Path) -> Path:
    """With a tokenizer of numbers: only its padding token is ever used."""
    config = LlamaConfig(
        **SIZES[size],
        num_key_value_heads=4,
        vocab_size=VOCABULARY,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    words = models.WordLevel({str(number): number for number in range(VOCABULARY)}, unk_token="2")
    tokenizer = Tokenizer(words)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="0", eos_token="1").save_pretrained(folder)
    return folder


def random_rows(count: int, *, seed: int) -> list[Row]:
    """Lognormal lengths, about half of the tokens with a loss, as in instruction data."""
    rng = random.Random(seed)
    return [random_row(rng, min(512, max(8, int(rng.lognormvariate(4.4, 0.7))))) for _ in range(count)]


def random_row(rng: random.Random, length: int) -> Row:
    prompt = int(length * rng.uniform(0.3, 0.7))
    ids = [rng.randrange(3, VOCABULARY) for _ in range(length)]
    return {"token_ids": ids, "loss_mask": [0] * prompt + [1] * (length - prompt)}


def rows_of_tokens(tokens: int, *, seed: int) -> list[Row]:
    """A short job: rows of 60 to 130 tokens, `tokens` in all."""
    rng, rows = random.Random(seed), []
    while tokens > 0:
        length = min(tokens, rng.randint(60, 130))
        length = tokens if tokens - length < 16 else length
        rows.append(random_row(rng, length))
        tokens -= length
    return rows


def random_pairs(count: int, *, prompt: int, seed: int) -> list[Row]:
    rng = random.Random(seed)

    def ids(length: int) -> list[int]:
        return [rng.randrange(3, VOCABULARY) for _ in range(length)]

    return [
        {
            "prompt_ids": ids(prompt + rng.randint(0, prompt // 2)),
            "chosen_ids": ids(rng.randint(20, 60)),
            "rejected_ids": ids(rng.randint(20, 60)),
        }
        for _ in range(count)
    ]


def chat_rows(model: Path, count: int, *, seed: int, system: str = "") -> list[Row]:
    """Conversations of one to six turns of the examples, in the model's own template; every answer has a loss.

    `system`: the message that all begin with; empty: the template's own.
    """
    tokenizer = AutoTokenizer.from_pretrained(model)
    turns = [json.loads(line)["messages"][-2:] for line in EXAMPLES.read_text().splitlines()]
    rng = random.Random(seed)
    first = [{"role": "system", "content": system}] if system else []
    return [chat_row(tokenizer, first, rng.sample(turns, rng.randint(1, 6))) for _ in range(count)]


def chat_row(tokenizer: Any, first: Sequence[Row], turns: Sequence[Sequence[Row]]) -> Row:
    ids: list[int] = []
    mask: list[int] = []
    messages: list[Row] = [*first]
    for question, answer in turns:
        for message, ask, kept in ((question, True, 0), (answer, False, 1)):
            messages.append(message)
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=ask)
            whole = tokenizer(text, add_special_tokens=False)["input_ids"]
            mask += [kept] * (len(whole) - len(ids))
            ids = whole
    return {"token_ids": ids, "loss_mask": mask}


def by_length(rows: Sequence[Row], *, batch: int, seed: int) -> list[Row]:
    """Batches of like lengths in random order: what Hugging Face's group_by_length does, the same for both sides."""
    ordered = sorted(rows, key=length_of)
    batches = [ordered[start : start + batch] for start in range(0, len(ordered), batch)]
    full = [some for some in batches if len(some) == batch]
    random.Random(seed).shuffle(full)
    return [row for some in full for row in some]


def length_of(row: Row) -> int:
    if "token_ids" in row:
        return len(row["token_ids"])
    return len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))


def write(rows: Sequence[Row], path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
