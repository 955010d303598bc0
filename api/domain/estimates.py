"""How many tokens a job trains on, from a sample of its rows. Pure arithmetic.

A row's tokens are a straight line over its bytes, fitted to the sample by least squares, so that rows of other lengths
than the sample's count by their length. What an epoch trains on is the engine's own count: of a conversation its tokens
up to the last that is learned; of a pair those of both conversations, though what they share is computed once; of a
prompt those of all its samples, with the prompt in each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final, assert_never

from api.domain.cost import Estimate, Source
from api.domain.jobs import DpoMethod, Method, ReinforcementMethod, SupervisedMethod
from engine.contract.formats.plain import answered, offered, plain
from engine.contract.sampling import MAX_ANSWER_TOKENS, group_size
from engine.contract.spec import TrainingOptions

Json = dict[str, Any]
FEWEST: Final = 8  # counted rows of a sample that says anything, unless it is the whole file
LEAST_MARGIN: Final = 0.02  # two tokenizers' ways with the same text
MARGINS: Final[Mapping[Source, float]] = {"sampled": LEAST_MARGIN, "remembered": 0.2, "assumed": 0.5}
WORDS: Final[Mapping[Source, str]] = {
    "sampled": "tokens counted by the base's own tokenizer on a sample of the file",
    "remembered": "no replica of the base counted the file's tokens: those of earlier files of this base and method were taken",
    "assumed": "no replica of the base counted the file's tokens, and none ever has: a usual share per byte was taken",
}


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A file whose every row is right. `size`: bytes of its rows; `sample`: some of them, always the same."""

    file_id: str
    examples: int
    size: int
    sample: Sequence[bytes]


@dataclass(frozen=True, kw_only=True)
class Line:
    """Tokens of a row: per_row + per_byte * its bytes."""

    per_row: float
    per_byte: float

    def of(self, checked: Checked) -> float:
        return self.per_row * checked.examples + self.per_byte * checked.size


# Where nothing is known: English chats under vocabularies of 50,000 to 150,000. A pair's prompt counts twice.
ASSUMED: Final[Mapping[str, Line]] = {
    "supervised": Line(per_row=10.0, per_byte=0.25),
    "dpo": Line(per_row=20.0, per_byte=0.35),
    "reinforcement": Line(per_row=10.0, per_byte=0.2),
}


@dataclass(frozen=True, kw_only=True)
class Fit:
    """`error`: twice the standard error of a row's mean tokens, as a share of it; 0 where every row was counted."""

    line: Line
    error: float


@dataclass(frozen=True, kw_only=True)
class Rate:
    """What earlier jobs of this base and method were like; None where none has told."""

    line: Line | None = None
    tokens_per_second: float | None = None


def name_of(method: Method) -> str:
    match method:
        case SupervisedMethod():
            return "supervised"
        case DpoMethod():
            return "dpo"
        case ReinforcementMethod():
            return "reinforcement"
        case _:
            assert_never(method)


def sequences_per_step(method: Method) -> int:
    """`method` holds no "auto" any more."""
    size = int(method.hyperparameters.batch_size)
    if isinstance(method, ReinforcementMethod):
        return size * group_size(float(method.hyperparameters.compute_multiplier))
    return size


def conversations(method: Method, row: Mapping[str, Any]) -> list[Json]:
    """What of a row is made into tokens."""
    match method:
        case SupervisedMethod():
            return [learned(row)]
        case DpoMethod():
            return [learned(answered(row, key)) for key in ("preferred_output", "non_preferred_output")]
        case ReinforcementMethod():
            return [rendered(row["messages"], tools=row.get("tools"), prompt=True)]
        case _:
            assert_never(method)


def learned(row: Mapping[str, Any]) -> Json:
    """Up to the last message that is learned: what follows it is not trained on."""
    messages = row["messages"]
    last = max(
        index
        for index, message in enumerate(messages)
        if message["role"] == "assistant" and message.get("weight", 1) != 0
    )
    return rendered(messages[: last + 1], tools=offered(row), prompt=False)


def rendered(messages: Sequence[Json], *, tools: Sequence[Json] | None, prompt: bool) -> Json:
    """`tools`: of a reinforcement row those under that key alone, as its other keys are the grader's."""
    offer = {"tools": tools} if tools else {}
    return {"messages": [plain(message) for message in messages], "add_generation_prompt": prompt, **offer}


def trained_length(tokens: Sequence[str]) -> int:
    """Of a conversation that ends with what is learned: templates may put a line's end behind the end of a turn, which
    is not trained on."""
    length = len(tokens)
    while length and is_blank(tokens[length - 1]):
        length -= 1
    return length


def is_blank(token: str) -> bool:
    """As byte-level vocabularies write blanks, as sentencepiece does, or as they are."""
    return token == "<0x0A>" or not token.strip("ĊĠ▁ \n\r\t")


def fitted(pairs: Sequence[tuple[int, int]], *, checked: Checked) -> Fit | None:
    """`pairs`: bytes and tokens of rows that were counted. None where they are too few."""
    count = len(pairs)
    if not count or count < min(FEWEST, checked.examples):
        return None
    mean_bytes = sum(size for size, _ in pairs) / count
    mean_tokens = sum(tokens for _, tokens in pairs) / count
    spread = sum((size - mean_bytes) ** 2 for size, _ in pairs)
    slope = (
        sum((size - mean_bytes) * (tokens - mean_tokens) for size, tokens in pairs) / spread
        if spread
        else 0.0
    )
    if slope <= 0:
        slope = mean_tokens / mean_bytes
    line = Line(per_row=mean_tokens - slope * mean_bytes, per_byte=slope)
    off = sum((tokens - line.per_row - slope * size) ** 2 for size, tokens in pairs)
    if count >= checked.examples:
        return Fit(line=line, error=0.0)
    return Fit(line=line, error=2 * sqrt(off / max(1, count - 2)) / sqrt(count) / max(1.0, mean_tokens))


def estimated(
    method: Method, training: TrainingOptions, *, checked: Checked, fit: Fit | None, rate: Rate
) -> Estimate:
    """`method` holds no "auto" any more."""
    source: Source = "sampled" if fit else "remembered" if rate.line else "assumed"
    line = fit.line if fit else rate.line or ASSUMED[name_of(method)]
    margin = MARGINS[source] + (fit.error if fit else 0.0)
    tokens, answers, copies = max(checked.examples, round(line.of(checked))), 0, 1
    if isinstance(method, ReinforcementMethod):
        copies = group_size(float(method.hyperparameters.compute_multiplier))
        answers = checked.examples * MAX_ANSWER_TOKENS
    epochs = int(method.hyperparameters.n_epochs)
    trained = copies * (tokens + answers) * epochs
    least = 0 if training.early_stopping else int(copies * tokens * (1 - margin)) * epochs
    speed = rate.tokens_per_second
    return Estimate(
        trained_tokens=trained,
        tokens_per_epoch=trained // epochs,
        n_epochs=epochs,
        device_seconds=round(trained / speed, 3) if speed else None,
        method=source,
        margin=round(min(1.0, margin), 3),
        note=note_of(method, training, source=source, margin=margin, speed=speed),
        least_tokens=least,
    )


def note_of(
    method: Method, training: TrainingOptions, *, source: Source, margin: float, speed: float | None
) -> str:
    parts = [f"Within about {100 * min(1.0, margin):.0f} %: {WORDS[source]}."]
    if isinstance(method, ReinforcementMethod):
        parts[0] = (
            f"At most: every sampled answer is counted with {MAX_ANSWER_TOKENS} tokens. {WORDS[source].capitalize()}."
        )
    if training.early_stopping:
        parts.append("The job may stop early.")
    if speed is None:
        parts.append("Device seconds are not known before a first job of this base and method has succeeded.")
    else:
        parts.append("Device seconds are those of earlier jobs of this base and method.")
    return " ".join(parts)
