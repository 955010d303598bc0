"""What is being served right now, for log lines: a request's id, or the job or batch that a loop works on."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="-")


@contextmanager
def serving(id: str) -> Iterator[None]:
    token = request_id.set(id)
    try:
        yield
    finally:
        request_id.reset(token)
