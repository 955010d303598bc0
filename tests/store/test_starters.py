"""The embedded Postgres and S3 server: they start, keep what they were given over kill -9, and refuse strangers."""

import io
import os
import time
from pathlib import Path

import psycopg
import pytest
import urllib3
from minio import Minio
from minio.error import S3Error

from deploy.embedded import object_store, postgres


def test_postgres_keeps_a_committed_row_over_kill_9(tmp_path: Path) -> None:
    def start() -> postgres.Postgres:
        return postgres.start(
            tmp_path / "pg", password="secret-word", log=tmp_path / "pg.log", env=os.environ
        )

    server = start()
    with psycopg.connect(server.url) as connection:
        connection.execute("create table kept (n int)")
        connection.execute("insert into kept values (7)")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.url.replace("secret-word", "guess"))
    server.process.kill()
    server.process.wait(timeout=10)
    time.sleep(1)  # its backends notice within a moment that the postmaster is gone
    server = start()
    with psycopg.connect(server.url) as connection:
        assert connection.execute("select n from kept").fetchone() == (7,)
    server.stop()
    assert server.process.returncode is not None


def test_the_object_store_is_never_open(tmp_path: Path) -> None:
    server = object_store.start(
        tmp_path / "s3", access_key="key", secret_key="secret-word", log=tmp_path / "s3.log", env=os.environ
    )
    try:
        ours = Minio(server.endpoint, access_key="key", secret_key="secret-word", secure=False)
        make_bucket(ours)
        ours.put_object("tuningfork", "files/a", io.BytesIO(b"bytes"), 5)
        assert ours.get_object("tuningfork", "files/a").read() == b"bytes"
        plain = urllib3.request(
            "GET", f"http://{server.endpoint}/tuningfork/files/a", timeout=10, retries=False
        )
        assert plain.status == 403
    finally:
        server.stop()


def make_bucket(client: Minio) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            return client.make_bucket("tuningfork")
        except S3Error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
