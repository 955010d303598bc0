"""Loaded by schemathesis itself: names what there is, so that made-up requests get past "no such thing", and keeps it
from taking away the key and the project that it works with.
"""

import json
import os
import re
import zlib
from typing import Any

import schemathesis

OWN: dict[str, str] = json.loads(os.environ["TUNINGFORK_OWN"])  # path parameters that must stay as they are
KEPT: dict[str, str] = json.loads(os.environ["TUNINGFORK_KEPT"])  # path parameters that must stay
THERE: dict[str, list[str]] = json.loads(os.environ["TUNINGFORK_THERE"])  # fields, and what exists of them
OPAQUE = ("item_schema", "item", "sample", "schema")  # names in there are no fields of ours
PREFIX = re.compile("[a-z]+[-_]")


@schemathesis.hook
def before_call(_context: Any, case: Any, _kwargs: dict[str, Any]) -> None:
    case.body = with_real(case.body)
    if case.path_parameters:
        named = {name: there(name, value) for name, value in case.path_parameters.items()}
        untouched = {"GET": {}, "DELETE": OWN | KEPT}.get(case.method, OWN)
        case.path_parameters = {
            name: "another" if value == untouched.get(name) else value for name, value in named.items()
        }


def with_real(body: Any) -> Any:
    if isinstance(body, list):
        return [with_real(each) for each in body]
    if not isinstance(body, dict):
        return body
    return {name: value if name in OPAQUE else there(name, with_real(value)) for name, value in body.items()}


def there(name: str, value: Any) -> Any:
    """Three of four made-up words become a real one: the same ones each time, so that a case can be replayed. What an
    earlier answer made stays."""
    known = THERE.get(name)
    if known is None or not isinstance(value, str) or value in known or made(value, known):
        return value
    lot = zlib.crc32(value.encode(errors="surrogatepass"))
    return value if value and lot % 4 == 0 else known[lot // 4 % len(known)]


def made(value: str, known: list[str]) -> bool:
    """Whether it begins as ids of its kind do."""
    prefixes = {found[0] for each in known if (found := PREFIX.match(each))}
    return value.startswith(tuple(prefixes))
