"""The control plane's log: every line of it names the request, job or batch that it is about."""

import logging
from typing import Final

from api.domain.request_id import request_id

FORM: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"


class NamedLines(logging.Formatter):
    """Each line of a record, a traceback's too, begins with the id: whoever greps for it finds all of them."""

    def format(self, record: logging.LogRecord) -> str:
        head = f"[{request_id.get()}] "
        return head + super().format(record).replace("\n", f"\n{head}")


def install() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(NamedLines(FORM))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
