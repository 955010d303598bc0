"""schemathesis over the OpenAPI document: no 500, no undocumented answer, and answers in their documented forms.

By default it takes about a minute. For tens of thousands of cases:

    SCHEMATHESIS_EXAMPLES=200 SCHEMATHESIS_SECONDS=300 make schemathesis
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.calls import fresh, note
from tests.support.live import Live

EXAMPLES = os.environ.get("SCHEMATHESIS_EXAMPLES", "3")
SECONDS = os.environ.get("SCHEMATHESIS_SECONDS", "15")
# Not allow_header_conformance: `/v1/responses/compact` is also a `/v1/responses/{id}`, and Allow names the methods of both.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
    "use_after_free",
)
RUN_SECONDS = 3000
HOOKS = "tests.support.schemathesis_hooks"


@pytest.mark.timeout(RUN_SECONDS)
def test_made_up_requests(live: Live, tmp_path: Path) -> None:
    """Edges of every field and random values, good and bad: several thousand even by default."""
    cases = ran(live, tmp_path, "--phases", "coverage,fuzzing", "--max-examples", EXAMPLES)
    assert cases > 3000


@pytest.mark.timeout(RUN_SECONDS)
def test_walks_along_the_links(live: Live, tmp_path: Path) -> None:
    """What one answer made is asked for, changed and deleted by the next request."""
    cases = ran(live, tmp_path, "--phases", "stateful", "--mode", "positive", "--max-time", SECONDS)
    assert cases > 100


def ran(live: Live, folder: Path, *options: str) -> int:
    """How many cases were tried, all of which passed. What was asked is noted for docs/compatibility.md."""
    report = folder / "report.json"
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "--no-color",
        "run",
        f"{live.url}/openapi.json",
        *options,
    ]
    command += ["--header", f"Authorization: Bearer {live.api_key}", "--checks", ",".join(CHECKS)]
    command += ["--continue-on-failure", "--suppress-health-check", "all", "--generation-database", "none"]
    command += ["--output-truncate", "false", "--warnings", "off", "--report-json-path", str(report)]
    told = {"OWN": live.own, "KEPT": live.kept, "THERE": live.there}
    own = {f"TUNINGFORK_{name}": json.dumps(value) for name, value in told.items()}
    result = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | own | {"SCHEMATHESIS_HOOKS": HOOKS},
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    remember(live, json.loads(report.read_text()))
    assert result.returncode == 0, result.stdout[-12_000:] + result.stderr[-2000:]
    still = httpx.get(f"{live.url}/v1/models", headers={"Authorization": f"Bearer {live.api_key}"})
    assert still.status_code == 200, "its key was taken away: what came after was not tested"
    cases = int(json.loads(report.read_text())["test_cases"]["generated"])
    print(f"{cases} cases without a fault")
    return cases


def remember(live: Live, report: dict[str, Any]) -> None:
    """One note per operation. A walk does not come everywhere: it adds to what was tried before it."""
    if report["phases"]["stateful"]["status"] != "skip":
        return
    assert report["operations"]["tested"] == report["operations"]["total"]
    failed = json.dumps(report["failures"])
    fresh("schemathesis")
    for path, methods in httpx.get(f"{live.url}/openapi.json").json()["paths"].items():
        for method in methods:
            label = f"{method.upper()} {path}"
            calls = [[method.upper(), path, None]]
            note("schemathesis", test=label, passed=f'"{label}"' not in failed, calls=calls)
