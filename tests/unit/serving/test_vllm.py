"""vLLM's command line, and the cache that fetches and checks adapters."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from deploy.embedded.ports import free_port
from engine.contract.spec import ALL_LINEAR
from engine.models import resident
from serving.vllm import adapters, command, cpu_lora
from serving.vllm.command import ADAPTED, arguments, environment
from serving.vllm.settings import ServingSettings
from tests.support.fake_replica import fake_replica

SETTINGS = ServingSettings(
    base_model="tiny-base",
    model_path=Path("models/tiny"),
    port=1,
    api_key="vllm-secret-for-tests",
    control_plane_url="http://127.0.0.1:2",
    serving_token="serving-secret-for-tests",
    adapter_dir=Path("adapters"),
)
ID = "mv-0123456789"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_no_secret_is_on_the_command_line(device: str) -> None:
    line = " ".join(arguments(SETTINGS, device=device))  # type: ignore[arg-type]
    assert "secret" not in line
    assert "--host 127.0.0.1" in line and "--served-model-name tiny-base" in line


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [("fpu avx2 fma", "float32"), ("avx512f avx512_bf16", "bfloat16"), ("amx_tile amx_bf16", "bfloat16")],
)
def test_a_cpu_serves_and_trains_in_bfloat16_where_it_has_units_for_it(
    flags: str, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(command, "CPU_INFO", info)
    monkeypatch.setattr(resident, "CPU_INFO", info)
    line = arguments(SETTINGS, device="cpu")
    assert line[line.index("--dtype") :][:2] == ["--dtype", chosen]
    assert resident.dtype_of("auto") == getattr(torch, chosen)
    named = SETTINGS.model_copy(update={"dtype": "float32"})
    assert "float32" in arguments(named, device="cpu") and resident.dtype_of("float32") == torch.float32
    assert "bfloat16" in arguments(SETTINGS, device="cuda")


def test_on_a_cpu_nobody_waits_in_a_loop_and_no_third_process_starts() -> None:
    settings = {"settings": SETTINGS, "inherited": {}}
    assert environment(device="cpu", **settings)["OMP_WAIT_POLICY"] == "passive"
    assert "OMP_WAIT_POLICY" not in environment(device="cuda", **settings)
    assert command.IN_ONE_PROCESS in arguments(SETTINGS, device="cpu")
    assert command.IN_ONE_PROCESS not in arguments(SETTINGS, device="cuda")


def test_the_environment_is_closed() -> None:
    env = environment(SETTINGS, device="cpu", inherited={"PYTHONOPTIMIZE": "1", "PATH": "/bin"})
    assert "PYTHONOPTIMIZE" not in env and env["PATH"] == "/bin"
    assert env["VLLM_API_KEY"] == "vllm-secret-for-tests"
    assert env["VLLM_PLUGINS"] == "tuningfork_adapters"
    assert env["HF_HUB_OFFLINE"] == "1" and env["VLLM_NO_USAGE_STATS"] == "1"


class FakeControlPlane:
    """Manifests and files, as a test spoils them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        save_file({"a": torch.ones(2, 2)}, folder / adapters.WEIGHTS)
        (folder / adapters.CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 2}))
        self.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.digests = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}
        self.asked, self.statuses = 0, dict[str, int]()

    async def answer(self, request: Request) -> Response:
        name = request.path_params["path"].rsplit("/", 1)[-1]
        if name in self.files:
            assert "authorization" not in request.headers, "the token is for the control plane alone"
            return Response(self.files[name], status_code=self.statuses.get(name, 200))
        self.asked += 1
        assert request.headers["authorization"] == "Bearer serving-secret-for-tests"
        if name != ID:
            return JSONResponse({}, status_code=404)
        entries = [
            {"name": n, "url": f"{request.base_url}{n}", "size_bytes": len(d), "sha256": self.digests[n]}
            for n, d in self.files.items()
        ]
        return JSONResponse({"id": ID, "base_model": "b", "rank": 2, "files": entries})

    def spoil(self, name: str, data: bytes) -> None:
        """Other bytes, honestly described: what a stolen bucket key could put there."""
        self.files[name] = data
        self.digests[name] = hashlib.sha256(data).hexdigest()


@pytest.fixture
def control(tmp_path: Path) -> FakeControlPlane:
    return FakeControlPlane(tmp_path / "made")


@pytest.fixture
async def source(control: FakeControlPlane) -> AsyncIterator[adapters.Source]:
    async with fake_replica(control.answer) as client:
        yield adapters.Source(url=client.url, token="serving-secret-for-tests")


async def test_an_adapter_is_fetched_once(
    control: FakeControlPlane, source: adapters.Source, tmp_path: Path
) -> None:
    for _ in range(2):
        folder = await adapters.fetch(ID, source=source, folder=tmp_path / "cache")
    assert folder is not None and control.asked == 1
    assert (folder / adapters.WEIGHTS).read_bytes() == control.files[adapters.WEIGHTS]


@pytest.mark.parametrize("name", ["mv-unknown000", "../../etc", "mv-", "smollm2", "mv-a/../../b000000"])
async def test_what_is_no_adapter_is_none(name: str, source: adapters.Source, tmp_path: Path) -> None:
    assert await adapters.fetch(name, source=source, folder=tmp_path / "cache") is None


HEADER = json.dumps({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}).encode()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        (adapters.WEIGHTS, b"\xff" * 64, "header"),
        (adapters.WEIGHTS, len(HEADER).to_bytes(8, "little") + HEADER + b"\0" * 35, "bad type or place"),
        (adapters.CONFIG, b'{"peft_type": "LORA", "modules_to_save": ["lm_head"]}', "plain LoRA"),
        (adapters.CONFIG, b'{"peft_type": "IA3"}', "plain LoRA"),
    ],
)
async def test_a_spoilt_adapter_never_reaches_vllm(
    name: str, data: bytes, words: str, control: FakeControlPlane, source: adapters.Source, tmp_path: Path
) -> None:
    control.spoil(name, data)
    with pytest.raises(adapters.AdapterError, match=words):
        await adapters.fetch(ID, source=source, folder=tmp_path / "cache")
    assert not (tmp_path / "cache" / ID).exists()


async def test_what_is_away_is_told_from_what_is_gone(
    control: FakeControlPlane, source: adapters.Source, tmp_path: Path
) -> None:
    nobody = adapters.Source(url=f"http://127.0.0.1:{free_port()}", token="serving-secret-for-tests")
    with pytest.raises(adapters.NotNowError, match="did not arrive: ConnectError"):
        await adapters.fetch(ID, source=nobody, folder=tmp_path / "cache")
    for status, final in ((503, False), (500, False), (404, True), (403, True)):
        control.statuses[adapters.WEIGHTS] = status
        with pytest.raises(adapters.AdapterError) as raised:
            await adapters.fetch(ID, source=source, folder=tmp_path / "cache")
        assert isinstance(raised.value, adapters.NotNowError) is not final
    control.statuses.clear()
    assert await adapters.fetch(ID, source=source, folder=tmp_path / "cache") is not None


async def test_other_bytes_than_were_trained_are_refused(
    control: FakeControlPlane, source: adapters.Source, tmp_path: Path
) -> None:
    control.files[adapters.WEIGHTS] = control.files[adapters.WEIGHTS][:-1] + b"\1"
    with pytest.raises(adapters.AdapterError, match="SHA-256"):
        await adapters.fetch(ID, source=source, folder=tmp_path / "cache")
    assert not (tmp_path / "cache" / ID).exists()


def test_tool_calls_are_parsed_where_the_operator_names_a_parser() -> None:
    assert "--enable-auto-tool-choice" not in arguments(SETTINGS, device="cpu")
    named = SETTINGS.model_copy(update={"tool_call_parser": "hermes"})
    line = " ".join(arguments(named, device="cpu"))
    assert "--enable-auto-tool-choice --tool-call-parser hermes" in line


def test_vllm_adapts_what_the_engine_does() -> None:
    assert set(ADAPTED) == set(ALL_LINEAR)


def test_no_adapter_means_none_on_a_cpu_too() -> None:
    from vllm.lora.punica_wrapper import punica_cpu

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 8, generator=generator)
    weights = torch.randn(3, 1, 2, 8, generator=generator)
    runs, lengths = torch.tensor([0, -1, 2]), torch.tensor([1, 2, 1])
    meta = (torch.tensor([0, 1, 3]), lengths, runs, 3, 2, 4)
    shrunk = [torch.zeros(4, 2), torch.zeros(4, 2)]
    cpu_lora.mend()
    punica_cpu.bgmv_shrink(x, weights, shrunk[0], torch.tensor([0, -1, -1, 2]), 1.0)
    punica_cpu.sgmv_shrink(x, weights, shrunk[1], *meta, 1.0)
    for found in shrunk:
        assert torch.equal(found[1:3], torch.zeros(2, 2)), "the last slot is not everybody's"
        torch.testing.assert_close(found[0], weights[0, 0] @ x[0])
        torch.testing.assert_close(found[3], weights[2, 0] @ x[3])
