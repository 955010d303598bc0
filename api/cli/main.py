"""The `tuningfork` command: one function per subcommand, each in a module beside this one."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from api.cli import adapters, config, housekeeping, service


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    try:
        status: int = options.run(options)
    except SystemExit as error:
        if isinstance(error.code, str):
            print(f"tuningfork: {error.code}", file=sys.stderr)
            return 1
        raise
    return status


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="tuningfork", description="Self-hosted fine-tuning behind the OpenAI API."
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    up = commands.add_parser("up", help="run the whole service in the foreground")
    up.add_argument("--home", type=Path, help="folder for all state (TUNINGFORK_HOME)")
    up.add_argument("--host", help="where REST and gRPC listen (TUNINGFORK_HOST)")
    up.add_argument("--base-model", help="a name, a folder or a hub id (TUNINGFORK_BASE_MODEL)")
    up.add_argument("--quantization", help="nf4: hold the base in 4 bits a weight (TUNINGFORK_QUANTIZATION)")
    up.set_defaults(run=service.run_up)

    models = commands.add_parser("models", help="base models").add_subparsers(
        required=True, metavar="COMMAND"
    )
    prepare = models.add_parser("prepare", help="make a base model ready without starting anything")
    prepare.add_argument("base_model", nargs="?", help="a name, a folder or a hub id")
    prepare.add_argument("--quantization", help="nf4: also make the copy that is held in 4 bits a weight")
    prepare.add_argument("--home", type=Path)
    prepare.set_defaults(run=service.run_prepare)

    trained = commands.add_parser("adapters", help="trained adapters")
    download = trained.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "download", help="fetch an adapter as a folder that peft loads"
    )
    download.add_argument("model", help="a fine-tuned model's name: ft:…")
    download.add_argument("folder", type=Path, help="made; must not exist")
    download.add_argument("--home", type=Path, help="take address and key from this home's client.env")
    download.set_defaults(run=adapters.run_download)

    back_up = commands.add_parser("backup", help="write everything but the base models into a folder")
    back_up.add_argument("folder", type=Path, help="made, or empty")
    back_up.add_argument("--home", type=Path, help="of the service, which may run (TUNINGFORK_HOME)")
    back_up.set_defaults(run=housekeeping.run_backup)

    restore = commands.add_parser("restore", help="read a backup into an empty home, database and bucket")
    restore.add_argument("folder", type=Path)
    restore.add_argument("--home", type=Path, help="for the service that is to run (TUNINGFORK_HOME)")
    restore.set_defaults(run=housekeeping.run_restore)

    janitor = commands.add_parser("janitor", help="print what would be swept now; nothing is")
    janitor.add_argument("--home", type=Path, help="of the service, which may run (TUNINGFORK_HOME)")
    janitor.set_defaults(run=housekeeping.run_janitor)

    check = commands.add_parser("check-config", help="print every setting, secrets masked")
    check.set_defaults(run=config.run_check)
    return top


if __name__ == "__main__":
    sys.exit(main())
