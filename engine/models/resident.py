"""The resident base model: loaded once from a local folder, frozen, on the device this machine has."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from jinja2 import TemplateError
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from engine.core.memory import ModelShape

ANSWER: Final = "An answer."
CPU_INFO: Final = Path("/proc/cpuinfo")
BFLOAT16_UNITS: Final = frozenset(
    {"amx_bf16", "avx512_bf16"}
)  # serving/vllm/command.py asks the same of this machine


@dataclass(frozen=True, kw_only=True)
class ResidentModel:
    name: str
    causal_lm: Any  # a transformers ...ForCausalLM
    tokenizer: PreTrainedTokenizerBase
    device: torch.device
    notice: str | None = None  # how its weights are held, for owners of runs, where that is worth a word

    @property
    def hidden_size(self) -> int:
        return int(self.causal_lm.config.get_text_config().hidden_size)

    @property
    def model_type(self) -> str:
        return str(self.causal_lm.config.model_type)

    @property
    def end_of_turn(self) -> frozenset[int]:
        """The tokens at which generation stops: the template's end of turn is one of them (`stopping`)."""
        ids = self.causal_lm.generation_config.eos_token_id
        ids = ids if isinstance(ids, list) else [ids]
        return frozenset(int(i) for i in [*ids, self.tokenizer.eos_token_id] if i is not None)

    @property
    def linear_modules(self) -> frozenset[str]:
        """Names that an adapter may target: of every linear layer but the head."""
        return frozenset(
            name.rsplit(".", 1)[-1]
            for name, module in self.causal_lm.get_decoder().named_modules()
            if isinstance(module, nn.Linear)
        )


def dtype_of(asked: str) -> torch.dtype:
    """`float32`, `bfloat16`, or `auto`: bfloat16 where this machine has units for it. A CPU that has none emulates it,
    many times slower than float32."""
    if asked != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[asked]
    fast = torch.cuda.is_available() or BFLOAT16_UNITS & set(CPU_INFO.read_text().split())
    return torch.bfloat16 if fast else torch.float32


def load(
    folder: Path, *, name: str, dtype: torch.dtype = torch.float32, sharded: bool = False
) -> ResidentModel:
    """`sharded`: it stays in the CPU's memory, for `sharded_decoder`.

    Raises OSError or ValueError when the folder holds no usable model.
    """
    device = this_device()
    tokenizer = tokenizer_of(folder, name=name)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True
    )
    model.requires_grad_(False)
    model = model if sharded else model.to(device)
    return stopping(ResidentModel(name=name, causal_lm=model, tokenizer=tokenizer, device=device))


def stopping(base: ResidentModel) -> ResidentModel:
    """Raises ValueError for a base whose template ends an answer with no token at which generation stops, as a base that
    was never tuned for chats often has it: it would be tuned into a model that never stops.
    """
    asked = [{"role": "user", "content": "A question."}, {"role": "assistant", "content": ANSWER}]
    try:
        text = str(base.tokenizer.apply_chat_template(asked, tokenize=False))
    except (TemplateError, TypeError) as error:
        raise ValueError(
            f"the chat template of {base.name} refuses a question and its answer: {error}"
        ) from error
    ids = base.tokenizer(text.rpartition(ANSWER)[2], add_special_tokens=False)["input_ids"]
    if base.end_of_turn.intersection(ids):
        return base
    end = next((i for i in ids if i in base.tokenizer.added_tokens_decoder), None)
    told = f"the chat template of {base.name} ends an answer with no token at which generation stops"
    if end is None:
        raise ValueError(f"{told}: it needs one that is in eos_token_id of generation_config.json")
    raise ValueError(
        f"{told}: add {base.tokenizer.convert_ids_to_tokens(end)} to eos_token_id in generation_config.json (its id is {end})"
    )


def size_of(folder: Path) -> int:
    """Bytes of the folder's weights, about what a device needs to hold them all."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def this_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def tokenizer_of(folder: Path, *, name: str) -> PreTrainedTokenizerBase:
    """Raises OSError or ValueError."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not tokenizer.chat_template:
        raise ValueError(f"{name} has no chat template, so chat data cannot be trained on")
    return tokenizer


def shape_of(base: ResidentModel) -> ModelShape:
    """What a pass over this model keeps in memory, by its config. Families that name no inner size have four times the
    model's."""
    config = base.causal_lm.config.get_text_config()
    head = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    return ModelShape(
        layers=int(config.num_hidden_layers),
        features=int(config.hidden_size),
        queries=head * int(config.num_attention_heads),
        keys=head * int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads),
        inner=int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size),
        vocabulary=int(config.vocab_size),
        value_bytes=base.causal_lm.dtype.itemsize,
        attention_bytes=4 if base.device.type == "cpu" else base.causal_lm.dtype.itemsize,
    )


def logits_of_rows(causal_lm: Any, *, token_ids_BT: torch.Tensor, rows_R: torch.Tensor) -> torch.Tensor:
    """Logits (R, V) at the flat positions `rows_R` of a right-padded batch (B, T).

    No attention mask: under causal attention nothing before the padding ever sees it. The head runs on the wanted
    rows alone, which for short answers is most of its cost saved. What the model does to its logits afterwards (scales
    them, caps them) is done.
    """

    def wanted(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor]:
        return (inputs[0].flatten(0, 1)[rows_R][None],)

    handle = causal_lm.get_output_embeddings().register_forward_pre_hook(wanted)
    try:
        logits: torch.Tensor = causal_lm(input_ids=token_ids_BT, use_cache=False).logits
    finally:
        handle.remove()
    return logits[0]
