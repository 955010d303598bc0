"""Files through the SDK."""

import openai
import pytest
from conftest import ROWS, jsonl


def test_a_file_comes_back_as_it_went(client) -> None:
    data = jsonl(ROWS)
    file = client.files.create(file=("rooms é.jsonl", data), purpose="fine-tune")
    assert file.id.startswith("file-")
    assert (file.object, file.bytes, file.filename) == ("file", len(data), "rooms é.jsonl")
    assert (file.purpose, file.status) == ("fine-tune", "processed")
    assert client.files.retrieve(file.id) == file
    assert client.files.content(file.id).read() == data
    deleted = client.files.delete(file.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (file.id, True, "file")
    with pytest.raises(openai.NotFoundError) as gone:
        client.files.retrieve(file.id)
    assert gone.value.body["message"] == f"No such File object: {file.id}"
    assert gone.value.param == "id"


def test_lists_are_paged_newest_first(client) -> None:
    made = [client.files.create(file=(f"{n}.txt", b"x"), purpose="user_data").id for n in range(5)]
    newest_first = [file.id for file in client.files.list(purpose="user_data", limit=2)]
    assert newest_first[:5] == made[::-1]
    oldest_first = [file.id for file in client.files.list(purpose="user_data", limit=2, order="asc")]
    assert oldest_first == newest_first[::-1]
    page = client.files.list(purpose="user_data", limit=2)
    assert page.has_more and len(page.data) == 2
    assert {file.purpose for file in client.files.list(limit=3)} >= {"user_data"}
    for file_id in made:
        client.files.delete(file_id)


def test_wait_for_processing(client, training_file) -> None:
    assert client.files.wait_for_processing(training_file.id).status == "processed"


@pytest.mark.parametrize(
    ("name", "data", "purpose", "param", "words"),
    [
        ("a.jsonl", b'{"a": 1}\n{"b": \n', "fine-tune", "file", ["Line 2", "not valid JSON", '{"b":']),
        ("a.jsonl", b'{"a": 1}\n\n[1, 2]\n', "fine-tune", "file", ["Line 3", "not a dictionary"]),
        ("a.jsonl", b'{"a": 1}\n\xff\xfe\n', "fine-tune", "file", ["Line 2", "UTF-8"]),
        ("a.jsonl", b'{"a": NaN}\n', "fine-tune", "file", ["Line 1", "NaN"]),
        ("a.jsonl", b"[" * 5000, "fine-tune", "file", ["Line 1"]),
        ("a.jsonl", b'{"a": "' + b"x" * 1_100_000 + b'"}', "fine-tune", "file", ["Line 1", "1 MiB"]),
        ("a.jsonl", b"", "fine-tune", "file", ["empty"]),
        ("a.jsonl", b"\n\n", "fine-tune", "file", ["empty"]),
        ("a.csv", b"{}", "fine-tune", "file", [".jsonl"]),
        ("a.jsonl", b"{}", "fine-tuning", "purpose", ["fine-tuning", "'fine-tune'"]),
    ],
)
def test_a_bad_upload_is_named_and_leaves_nothing(client, name, data, purpose, param, words) -> None:
    before = [file.id for file in client.files.list()]
    with pytest.raises(openai.BadRequestError) as refused:
        client.files.create(file=(name, data), purpose=purpose)
    assert (refused.value.type, refused.value.param) == ("invalid_request_error", param)
    for word in words:
        assert word in refused.value.body["message"]
    assert [file.id for file in client.files.list()] == before


def test_a_file_can_expire(client) -> None:
    expires = {"anchor": "created_at", "seconds": 3600}
    file = client.files.create(
        file=("a.txt", b"x"),
        purpose="user_data",
        extra_body={"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"},
    )
    assert file.expires_at == file.created_at + expires["seconds"]
    client.files.delete(file.id)
