"""A webhook's receiver: keeps what it was sent, by HTTP, in a thread of its own."""

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Delivered:
    webhook_id: str
    body: Any


class Receiver:
    def __init__(self) -> None:
        deliveries: list[Delivered] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                deliveries.append(
                    Delivered(webhook_id=str(self.headers["webhook-id"]), body=json.loads(body))
                )
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.deliveries = deliveries
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def of(self, job_id: str) -> list[Delivered]:
        return [one for one in self.deliveries if one.body["data"]["id"] == job_id]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
