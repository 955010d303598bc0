"""`tuningfork adapters download`: a fine-tuned model's weights, in peft's layout."""

import argparse
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx

from api.cli.settings import ClientSettings

DOWNLOAD_SECONDS = 600


@dataclass(frozen=True, kw_only=True)
class Service:
    base_url: str
    api_key: str


def run_download(options: argparse.Namespace) -> int:
    folder: Path = options.folder
    if folder.exists():
        raise SystemExit(f"{folder} exists already.")
    archive = fetch(service_of(options.home), options.model)
    folder.mkdir(parents=True)
    with zipfile.ZipFile(io.BytesIO(archive)) as entries:
        for name in entries.namelist():
            (folder / Path(name).name).write_bytes(entries.read(name))
    print(f"{options.model} is in {folder}: PeftModel.from_pretrained(base, {str(folder)!r}) loads it.")
    return 0


def fetch(service: Service, model: str) -> bytes:
    url = f"{service.base_url}/models/{quote(model, safe=':')}/adapter"
    headers = {"Authorization": f"Bearer {service.api_key}"}
    try:
        reply = httpx.get(url, headers=headers, timeout=httpx.Timeout(DOWNLOAD_SECONDS, connect=5))
    except httpx.HTTPError as error:
        raise SystemExit(f"No answer from {service.base_url}: {type(error).__name__}.") from error
    if not reply.is_success:
        raise SystemExit(str(reply.json()["error"]["message"]))
    return reply.content


def service_of(home: Path | None) -> Service:
    """`--home`, or the variables that every OpenAI client reads, or the default home."""
    settings = ClientSettings()
    if home is None and settings.openai_base_url and settings.openai_api_key:
        return Service(
            base_url=settings.openai_base_url.rstrip("/"),
            api_key=settings.openai_api_key.get_secret_value(),
        )
    env_file = (home or settings.tuningfork_home) / "client.env"
    if not env_file.is_file():
        raise SystemExit(
            f"{env_file} is not there: start the service, or set OPENAI_BASE_URL and OPENAI_API_KEY."
        )
    values = dict(line.split("=", 1) for line in env_file.read_text().splitlines())
    return Service(base_url=values["OPENAI_BASE_URL"], api_key=values["OPENAI_API_KEY"])
