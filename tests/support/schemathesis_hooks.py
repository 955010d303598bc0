"""Loaded by schemathesis itself: names what there is, so that made-up requests get past "no such thing", and keeps it
from taking away the key and the project that it works with.
"""

import json
import os
import zlib
from typing import Any

import schemathesis

OWN: dict[str, str] = json.loads(os.environ["TUNINGFORK_OWN"])  # path parameters that must stay
THERE: dict[str, list[str]] = json.loads(
    os.environ["TUNINGFORK_THERE"]
)  # fields of a body or path, and real ids


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    if isinstance(case.body, dict):
        case.body = {name: there(name, value) for name, value in case.body.items()}
    if case.path_parameters:
        named = {name: there(name, value) for name, value in case.path_parameters.items()}
        if case.method != "GET":
            named = {name: "another" if value == OWN.get(name) else value for name, value in named.items()}
        case.path_parameters = named


def there(name: str, value: Any) -> Any:
    """Three of four made-up words become a real one: the same ones each time, so that a case can be replayed."""
    known = THERE.get(name)
    if known is None or not isinstance(value, str) or value in known:
        return value
    lot = zlib.crc32(value.encode(errors="surrogatepass"))
    return value if value and lot % 4 == 0 else known[lot // 4 % len(known)]
