"""Our side of `bench.engine`: jobs trained by the fused passes, their work in FLOPs, and what this machine can do at best.

Shapes: T tokens of a step, D features.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from bench.engine_data import Row
from engine.contract.spec import LoraOptions
from engine.core.packing import Packed, Tokens, pack
from engine.core.products import multiply
from engine.lora.adapter import Adapter
from engine.models.decoder import Decoder, decoder_of
from engine.passes.fused import BFLOAT16_ROWS, run_pass
from engine.passes.model import Lesson
from engine.passes.work import RowLoss

OPTIONS = LoraOptions(rank=16, alpha=32.0)


@dataclass
class Turn:
    """`tokens`: real ones, counted as the baseline counts them. The first step warms up and is left out."""

    tokens: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    optimizer_s: float = 0.0
    flops: float = 0.0
    done_flops: float = 0.0
    losses: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Job:
    adapter: Adapter
    optimizer: torch.optim.AdamW


def load(folder: Path, *, dtype: torch.dtype = torch.float32) -> Decoder:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).requires_grad_(False)
    return decoder_of(model)


def new_job(decoder: Decoder, *, seed: int) -> Job:
    adapter = Adapter(OPTIONS, shapes=decoder.shapes, device=decoder.device)
    adapter.initialise(seed)
    adapter.weights.grad = adapter.gradient
    optimizer = torch.optim.AdamW([adapter.weights], lr=1e-3, weight_decay=0.0, fused=True)
    return Job(adapter=adapter, optimizer=optimizer)


def step(job: Job) -> None:
    torch.nn.utils.clip_grad_norm_([job.adapter.weights], 1.0)
    job.optimizer.step()
    job.adapter.gradient.zero_()


def train(decoder: Decoder, jobs: Sequence[Sequence[Row]], *, batch: int, tile: int | None) -> Turn:
    """All jobs side by side: a step of each in one pass. Every job has equally many steps."""
    made = [new_job(decoder, seed=number) for number in range(len(jobs))]
    turn = Turn()
    for start in range(0, max(map(len, jobs)), batch):
        rows = [job[start : start + batch] for job in jobs]
        one = timed(lambda rows=rows: one_step(decoder, made, rows, tile=tile), turn)
        if start:
            turn.wall_s += one[0]
            turn.cpu_s += one[1]
            turn.tokens += sum(real_tokens(row) for some in rows for row in some)
            for some in rows:
                formula, done = flops(decoder, some, adapter_weights=made[0].adapter.layout.size)
                turn.flops += formula
                turn.done_flops += done
        else:
            turn.optimizer_s = 0.0
    return turn


def timed(run: Callable[[], tuple[float, float]], turn: Turn) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    loss, optimizer_s = run()
    spent = time.perf_counter() - wall, time.process_time() - cpu
    turn.losses.append(loss)
    turn.optimizer_s += optimizer_s
    return spent


def one_step(
    decoder: Decoder, jobs: Sequence[Job], rows: Sequence[Sequence[Row]], *, tile: int | None
) -> tuple[float, float]:
    """The first job's loss, and the seconds that optimizers took."""
    lessons = lessons_of(decoder, jobs, rows, tile=tile)
    multiple = BFLOAT16_ROWS if decoder.embedding.dtype == torch.bfloat16 else 1  # as the engine does
    outcomes = run_pass(decoder, lessons, tile=tile, multiple=multiple)
    began = time.perf_counter()
    for job in jobs:
        step(job)
    return outcomes[0].loss, time.perf_counter() - began


def lessons_of(
    decoder: Decoder, jobs: Sequence[Job], rows: Sequence[Sequence[Row]], *, tile: int | None
) -> list[Lesson]:
    packs = [packed(some) for some in rows]
    if "token_ids" in rows[0][0]:
        losses = [mean_loss(pack) for pack in packs]
    else:
        bases = run_pass(decoder, [Lesson(packed=pack, adapter=None) for pack in packs], tile=tile)
        losses = [
            dpo_loss(pack, base.rows.logprobs)
            for pack, base in zip(packs, bases, strict=True)
            if base.rows is not None
        ]
    return [
        Lesson(packed=pack, adapter=job.adapter, loss=loss)
        for pack, job, loss in zip(packs, jobs, losses, strict=True)
    ]


def packed(rows: Sequence[Row]) -> Packed:
    if "token_ids" in rows[0]:
        return pack(
            [[Tokens(token_ids=row["token_ids"], weights=row["loss_mask"])] for row in rows], bound=False
        )
    return pack([[answer(row, "chosen_ids"), answer(row, "rejected_ids")] for row in rows], bound=True)


def answer(row: Row, which: str) -> Tokens:
    weights = [0.0] * len(row["prompt_ids"]) + [1.0] * len(row[which])
    return Tokens(token_ids=row["prompt_ids"] + row[which], weights=weights)


def mean_loss(packed: Packed) -> RowLoss:
    count = len(packed.rows)
    return lambda logprobs, rows: -logprobs.sum() / count


def dpo_loss(packed: Packed, base: torch.Tensor) -> RowLoss:
    owners, pairs = torch.tensor(packed.owners), (max(packed.owners) + 1) / 2

    def loss(logprobs: torch.Tensor, rows: slice) -> torch.Tensor:
        own = owners[rows] - owners[rows.start]
        sums = logprobs.new_zeros(int(own.max()) + 1).index_add(0, own, logprobs - base[rows])
        return -F.logsigmoid(0.1 * (sums[0::2] - sums[1::2])).sum() / pairs

    return loss


def real_tokens(row: Row) -> int:
    if "token_ids" in row:
        return len(row["token_ids"])
    return 2 * len(row["prompt_ids"]) + len(row["chosen_ids"]) + len(row["rejected_ids"])


def flops(decoder: Decoder, rows: Sequence[Row], *, adapter_weights: int) -> tuple[float, float]:
    """Of one supervised step: by the formula of a plain LoRA step, and what our pass really multiplies.

    The formula (4 P + 4 c H + 6 P_l + 14 q L S/2 per token) counts work that our pass leaves out: the last layer's MLP
    of tokens without a loss, the first layer's gradient of its input, each sequence's last token, and what several
    sequences begin with.
    """
    if "token_ids" not in rows[0]:
        return 0.0, 0.0
    sizes = {name: linear.inputs * linear.outputs for name, linear in decoder.layers[0].linear.items()}
    layers, width = len(decoder.layers), decoder.heads * decoder.head_size
    tokens = sum(len(row["token_ids"]) for row in rows)
    counted = sum(sum(row["loss_mask"]) for row in rows)
    attention = sum(14 * width * layers * len(row["token_ids"]) ** 2 / 2 for row in rows)
    head = 4 * counted * decoder.head.numel()
    formula = tokens * (4 * layers * sum(sizes.values()) + 6 * adapter_weights) + head + attention
    inputs = packed(rows).tokens
    after = sum(size for name, size in sizes.items() if name != "qkv")
    base = 4 * (layers - 1) * inputs * sum(sizes.values()) + 4 * inputs * sizes["qkv"] + 4 * counted * after
    done = base - 2 * inputs * sizes["qkv"] + inputs * 6 * adapter_weights + head + attention
    return formula, done


def peak(decoder: Decoder, *, tokens: int = 1024, times: int = 3) -> float:
    """FLOP/s of the model's own products, forward and backward, at this number of threads: the best of `times`."""
    layer, best = decoder.layers[0], 0.0
    matrices = [one.weight for one in layer.linear.values()]  # type: ignore[attr-defined]
    rows = [(randn(tokens, m.shape[1], like=m), randn(tokens, m.shape[0], like=m), m) for m in matrices]
    for _ in range(times):
        began = time.perf_counter()
        for x, grad, matrix in rows:
            multiply(x, matrix.T)
            multiply(grad, matrix)
        seconds = time.perf_counter() - began
        best = max(best, sum(4 * tokens * matrix.numel() for _, _, matrix in rows) / seconds)
    return best


def randn(*shape: int, like: torch.Tensor) -> torch.Tensor:
    return torch.randn(shape, dtype=like.dtype)


def bytes_of_a_run(decoder: Decoder) -> float:
    """Per adapter weight, after a step: weights, gradient and Adam's two moments."""
    job = new_job(decoder, seed=0)
    step(job)
    state: Any = job.optimizer.state[job.adapter.weights]
    held = [job.adapter.weights, job.adapter.gradient, state["exp_avg"], state["exp_avg_sq"]]
    return sum(tensor.numel() * tensor.element_size() for tensor in held) / job.adapter.layout.size
