"""Settings to vLLM's command line and environment. Starts nothing."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from serving.vllm.settings import ServingSettings

Device = Literal["cpu", "cuda"]
# What an adapter may touch: the engine's ALL_LINEAR; a test holds them together.
ADAPTED: Final = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PLUGIN: Final = "tuningfork_adapters"  # its entry point is in pyproject.toml

CPU_INFO: Final = Path("/proc/cpuinfo")
BFLOAT16_UNITS: Final = frozenset(
    {"amx_bf16", "avx512_bf16"}
)  # the engine asks the same: engine/models/resident.py


def arguments(settings: ServingSettings, *, device: Device) -> list[str]:
    """The key is not among them: any user of the machine can read a command line."""
    return [
        sys.executable,
        *("-m", "vllm.entrypoints.openai.api_server"),
        *("--model", str(settings.model_path), "--served-model-name", settings.base_model),
        *("--host", settings.host, "--port", str(settings.port)),
        *("--max-model-len", str(settings.max_model_len)),
        *("--enable-lora", "--max-loras", str(settings.max_loras)),
        *("--max-cpu-loras", str(settings.max_cpu_loras), "--max-lora-rank", str(settings.max_lora_rank)),
        *("--lora-target-modules", *ADAPTED),  # never the head: see cpu_lora.py
        # Nothing of a request in the log, no page of documentation, no file of this machine in an answer.
        *("--disable-uvicorn-access-log", "--no-enable-log-requests", "--disable-fastapi-docs"),
        *("--max-log-len", "0"),
        *("--scheduling-policy", "priority"),  # batches give way to whoever waits
        *tool_arguments(settings),
        *("--dtype", dtype_of(settings.dtype, device=device)),
        *ARGUMENTS_FOR_DEVICE[device],
    ]


def tool_arguments(settings: ServingSettings) -> tuple[str, ...]:
    if settings.tool_call_parser is None:
        return ()
    return ("--enable-auto-tool-choice", "--tool-call-parser", settings.tool_call_parser)


def dtype_of(asked: str, *, device: Device) -> str:
    """Served as it is trained. A CPU without units for bfloat16 emulates it, many times slower than float32."""
    if asked != "auto":
        return asked
    fast = device == "cuda" or BFLOAT16_UNITS & set(CPU_INFO.read_text().split())
    return "bfloat16" if fast else "float32"


# The process that schedules also computes. vLLM would start a third one, to bind its threads to cores, which we do not ask
# for: one more import of vLLM and torch at each start, one more hop for each token. Named by its path, since "uni" is changed.
IN_ONE_PROCESS: Final = "vllm.v1.executor.uniproc_executor.UniProcExecutor"

ARGUMENTS_FOR_DEVICE: Final[Mapping[Device, tuple[str, ...]]] = {
    "cpu": ("--enforce-eager", "--max-num-seqs", "32", "--distributed-executor-backend", IN_ONE_PROCESS),
    "cuda": (),
}


def environment(settings: ServingSettings, *, device: Device, inherited: Mapping[str, str]) -> dict[str, str]:
    """`PYTHONOPTIMIZE` is dropped: without assertions vLLM trusts its input (CVE-2026-41523)."""
    kept = {name: value for name, value in inherited.items() if name != "PYTHONOPTIMIZE"}
    return {
        **kept,
        "VLLM_API_KEY": settings.api_key.get_secret_value(),
        "VLLM_PLUGINS": PLUGIN,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
        "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
        "VLLM_MAX_N_SEQUENCES": "8",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gib),
        # The trainer shares these cores: the kernel spreads both better than two fixed bindings would.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_LOGGING_LEVEL": "INFO",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        **ENVIRONMENT_FOR_DEVICE[device],
    }


# Compiling pays on a GPU. On a CPU it cost the first request for log-probabilities 19 s, for nothing. And threads that
# wait for each other in a loop stand still where a trainer has the cores: a token took eight times as long.
ENVIRONMENT_FOR_DEVICE: Final[Mapping[Device, Mapping[str, str]]] = {
    "cpu": {"TORCHDYNAMO_DISABLE": "1", "OMP_WAIT_POLICY": "passive"},
    "cuda": {},
}
