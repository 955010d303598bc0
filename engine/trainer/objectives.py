"""From a run's spec to its method over its data: the one place that lists the methods."""

from pathlib import Path
from typing import assert_never

from engine.contract.spec import Dpo, Reinforcement, RunSpec, Supervised
from engine.data.chat import ChatFormat, read_examples
from engine.data.pairs import read_pairs
from engine.data.prompts import read_prompts
from engine.methods.dpo import DpoObjective
from engine.methods.objective import Objective
from engine.methods.reinforcement import MIN_ANSWER_TOKENS, ReinforcementObjective
from engine.methods.sft import SupervisedObjective
from engine.models.resident import ResidentModel

TRAIN, VALID = "training_file", "validation_file"


def chat_of(base: ResidentModel, *, max_tokens: int) -> ChatFormat:
    return ChatFormat(
        tokenizer=base.tokenizer, end_of_turn=base.end_of_turn, max_tokens=max_tokens, model=base.name
    )


def objective_of(spec: RunSpec, *, folder: Path, chat: ChatFormat) -> Objective:
    """Reads the run's files. Raises DataError."""
    train, valid = (
        folder / spec.training_file,
        folder / spec.validation_file if spec.validation_file else None,
    )
    match spec.method:
        case Supervised():
            examples = read_examples(valid, chat=chat, param=VALID) if valid else []
            return SupervisedObjective(read_examples(train, chat=chat, param=TRAIN), examples)
        case Dpo() as dpo:
            pairs = read_pairs(valid, chat=chat, param=VALID) if valid else []
            return DpoObjective(read_pairs(train, chat=chat, param=TRAIN), pairs, method=dpo)
        case Reinforcement() as method:
            room = MIN_ANSWER_TOKENS
            prompts = read_prompts(valid, chat=chat, param=VALID, room=room) if valid else []
            return ReinforcementObjective(
                read_prompts(train, chat=chat, param=TRAIN, room=room),
                prompts,
                method=method,
                chat=chat,
                seed=spec.seed,
            )
        case _:
            assert_never(spec.method)
