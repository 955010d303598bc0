"""How far an estimate's tokens are from what the engine counts, over files of several kinds.

The rows of each file are drawn from the texts of this repository. The control plane's own sample of 256 rows is drawn,
with several seeds, counted by the base's tokenizer under its template, and compared with the engine's encoding of every
row. What vLLM's /tokenize says of a conversation is what the tokenizer says: the end-to-end suite compares that.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Final

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from api.domain.auto import resolved
from api.domain.estimates import Checked, Rate, conversations, estimated, fitted, trained_length
from api.domain.jobs import DpoMethod, Method, SupervisedMethod
from api.domain.sampling import Reservoir
from api.services.file_checks import SAMPLE
from engine.contract.spec import TrainingOptions
from tests.support.counting import engine_count

ROOT: Final = Path(__file__).parents[1]
SOURCES: Final = ("api/**/*.py", "engine/**/*.py", "tests/**/*.py", "**/*.md")
SENTENCES: Final = (
    "Привет, как дела? ",
    "今天天气很好。",
    "The weather in Oslo is cold and bright today. ",
    "x = [n * n for n in range(9)]\n",
)
Json = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(".tuningfork/models/smollm2-135m-instruct"))
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    if not options.model.is_dir():
        raise SystemExit(f"{options.model} is not there: run `tuningfork models prepare`.")
    tokenizer = AutoTokenizer.from_pretrained(options.model, local_files_only=True)
    for name, method, rows in files(options.rows):
        off, margin = errors(rows, method, tokenizer=tokenizer, seeds=options.seeds)
        worst = max(abs(each) for each in off)
        mean = sum(abs(each) for each in off) / len(off)
        print(f"{name}, {len(rows)} rows: mean {mean:.2%}, worst {worst:.2%} (told: {margin:.1%})")


def files(count: int) -> list[tuple[str, Method, list[Json]]]:
    nimbus = (ROOT / "examples/nimbus_train.jsonl").read_text().splitlines()
    draw = Drawn(Random(1))
    return [
        ("examples/nimbus_train.jsonl", SupervisedMethod(), [json.loads(line) for line in nimbus]),
        ("code and prose of 10 to 3,300 characters", SupervisedMethod(), draw.rows(count, turns=1)),
        ("one to seven turns", SupervisedMethod(), draw.rows(count, turns=7)),
        ("three languages and code, escaped", SupervisedMethod(), draw.languages(count)),
        ("pairs", DpoMethod(), draw.pairs(count)),
    ]


class Drawn:
    """Rows of pieces of this repository's texts."""

    def __init__(self, random: Random) -> None:
        self._random = random
        paths = sorted(
            {path for pattern in SOURCES for path in ROOT.glob(pattern) if ".venv" not in str(path)}
        )
        self._texts = [path.read_text(errors="replace") for path in paths]

    def piece(self, most: int) -> str:
        text = self._random.choice(self._texts)
        start = self._random.randrange(max(1, len(text) - 10))
        end = start + int(most * self._random.random() ** 2) + 5
        return text[start:end].replace("<|", "").strip() or "so"

    def rows(self, count: int, *, turns: int) -> list[Json]:
        asked, said = (800, 2500) if turns == 1 else (300, 300)
        return [
            {
                "messages": [
                    message
                    for _ in range(self._random.randrange(1, turns + 1))
                    for message in (user(self.piece(asked)), assistant(self.piece(said)))
                ]
            }
            for _ in range(count)
        ]

    def languages(self, count: int) -> list[Json]:
        found = []
        for number in range(count):
            text = SENTENCES[number % len(SENTENCES)] * self._random.randrange(1, 25)
            found.append({"messages": [user(text[:200]), assistant(text.strip())]})
        return found

    def pairs(self, count: int) -> list[Json]:
        return [
            {
                "input": {"messages": [user(self.piece(900))]},
                "preferred_output": [assistant("a " + self.piece(600))],
                "non_preferred_output": [assistant("b " + self.piece(600))],
            }
            for _ in range(count)
        ]


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def assistant(text: str) -> Json:
    return {"role": "assistant", "content": text}


def errors(
    rows: Sequence[Json], method: Method, *, tokenizer: PreTrainedTokenizerBase, seeds: int
) -> tuple[list[float], float]:
    """Of each seed the share by which it is off, and the largest that the estimates admit."""
    kind = "dpo" if isinstance(method, DpoMethod) else "supervised"
    with TemporaryDirectory() as folder:
        truth = engine_count(rows, kind, tokenizer=tokenizer, folder=Path(folder))
    lines, found, margin = [json.dumps(row).encode() for row in rows], [], 0.0
    for seed in range(seeds):
        sample = Reservoir(SAMPLE, random=Random(f"file-{seed}"))
        for number, line in enumerate(lines, start=1):
            if number == sample.wants:
                sample.take(line)
        checked = Checked(
            file_id=f"file-{seed}", examples=len(lines), size=sum(map(len, lines)), sample=sample.taken()
        )
        pairs = [(len(line), counted(line, method, tokenizer)) for line in checked.sample]
        estimate = estimated(
            resolved(method, examples=len(lines)),
            TrainingOptions(),
            checked=checked,
            fit=fitted(pairs, checked=checked),
            rate=Rate(),
        )
        found.append(estimate.tokens_per_epoch / truth - 1)
        margin = max(margin, estimate.margin)
    return found, margin


def counted(line: bytes, method: Method, tokenizer: PreTrainedTokenizerBase) -> int:
    total = 0
    for each in conversations(method, json.loads(line)):
        ids = tokenizer.apply_chat_template(each["messages"], add_generation_prompt=False, return_dict=False)
        total += trained_length(tokenizer.convert_ids_to_tokens(ids))
    return total


if __name__ == "__main__":
    main()
