"""Evals through the SDK: the real base model is asked, and judges."""

import json
import time

import openai
import pytest
from conftest import BASE

ENDED = ("completed", "failed", "canceled")
SCHEMA = {
    "type": "object",
    "properties": {"question": {"type": "string"}, "answer": {"type": "string"}},
    "required": ["question", "answer"],
}
CUSTOM = {"type": "custom", "item_schema": SCHEMA, "include_sample_schema": True}
RIGHT = {
    "type": "string_check",
    "name": "Right answer",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
    "operation": "ilike",
}
CLOSE = {
    "type": "text_similarity",
    "name": "close",
    "input": "{{ sample.output_text }}",
    "reference": "{{ item.answer }}",
    "evaluation_metric": "rouge_l",
    "pass_threshold": 0.0,
}
SHORT = {
    "type": "python",
    "name": "short",
    "source": "def grade(sample, item):\n    return 1.0 if len(sample['output_text']) < 2000 else 0.0",
    "pass_threshold": 1.0,
}
JUDGE = {
    "type": "score_model",
    "name": "judge",
    "model": BASE,
    "input": [{"role": "user", "content": "Give '{{ sample.output_text }}' a number."}],
    "sampling_params": {"max_completions_tokens": 40, "seed": 1},  # whether or not its JSON ends by then
    "pass_threshold": 0.0,
}
ITEMS = [
    {"question": f"Say the word {word}.", "answer": word} for word in ("hello", "blue", "three", "xyzzy")
]
TEMPLATE = {
    "type": "template",
    "template": [
        {"role": "system", "content": "Answer in one sentence."},
        {"role": "user", "content": {"type": "input_text", "text": "{{ item.question }}"}},
    ],
}
SAMPLING = {"max_completion_tokens": 12, "temperature": 0.0, "seed": 3}


def inline(items, **more):
    return {"type": "file_content", "content": [{"item": item, **more} for item in items]}


def asking(source, *, kind="completions", **more):
    asked = {"type": kind, "source": source, "model": BASE, "input_messages": TEMPLATE}
    return {**asked, "sampling_params": SAMPLING, **more}


def made(client, *criteria, config=CUSTOM, **more):
    return client.evals.create(data_source_config=config, testing_criteria=list(criteria), **more)


def ended(client, run, *, seconds=240):
    deadline = time.monotonic() + seconds
    while run.status not in ENDED:
        assert time.monotonic() < deadline, run
        time.sleep(0.2)
        run = client.evals.runs.retrieve(run.id, eval_id=run.eval_id)
    return run


def test_an_eval_from_end_to_end(client) -> None:
    found = made(client, RIGHT, CLOSE, SHORT, name="words", metadata={"team": "doors"})
    assert found.id.startswith("eval_") and (found.object, found.name) == ("eval", "words")
    config = found.data_source_config.to_dict()
    assert config["type"] == "custom" and config["schema"]["properties"]["item"] == SCHEMA
    assert "sample" in config["schema"]["properties"] and "item_schema" not in config
    ids = [criterion.to_dict()["id"] for criterion in found.testing_criteria]
    assert ids[0].startswith("Right answer-") and len(ids[0]) == len("Right answer-") + 36

    run = client.evals.runs.create(
        found.id, data_source=asking(inline(ITEMS)), name="first", metadata={"n": "1"}
    )
    assert run.id.startswith("evalrun_") and run.status == "queued" and run.name == "first"
    done = ended(client, run)
    assert (done.status, done.error, done.model, done.metadata) == ("completed", None, BASE, {"n": "1"})
    counts = done.result_counts
    assert (counts.total, counts.errored) == (4, 0) and counts.passed + counts.failed == 4
    assert [each.testing_criteria for each in done.per_testing_criteria_results] == ids
    assert {each.passed + each.failed for each in done.per_testing_criteria_results} == {4}
    assert [each.passed for each in done.per_testing_criteria_results][1:] == [4, 4]
    (usage,) = done.per_model_usage
    assert (usage.run_model_name, usage.invocation_count) == (BASE, 4)
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0
    assert done.report_url.endswith(f"/v1/evals/{found.id}/runs/{run.id}")
    assert done.data_source.to_dict()["sampling_params"] == SAMPLING

    items = list(client.evals.runs.output_items.list(run.id, eval_id=found.id, limit=3))
    assert [item.datasource_item for item in items] == ITEMS
    assert [item.datasource_item_id for item in items] == [0, 1, 2, 3]
    first = items[0]
    assert first.id.startswith("outputitem_") and first.object == "eval.run.output_item"
    assert [message.role for message in first.sample.input] == ["system", "user"]
    assert first.sample.input[1].content == ITEMS[0]["question"]
    assert first.sample.output[0].content and first.sample.model == BASE
    assert first.sample.finish_reason in ("stop", "length")
    assert (first.sample.temperature, first.sample.max_completion_tokens, first.sample.seed) == (0.0, 12, 3)
    assert first.sample.usage.total_tokens > 0 and first.sample.error is None
    assert [result.name for result in first.results] == ids
    assert first.status == ("pass" if all(result.passed for result in first.results) else "fail")
    one = client.evals.runs.output_items.retrieve(first.id, eval_id=found.id, run_id=run.id)
    assert one.to_dict() == first.to_dict()
    passed = client.evals.runs.output_items.list(run.id, eval_id=found.id, status="pass").data
    failed = client.evals.runs.output_items.list(run.id, eval_id=found.id, status="fail", order="desc").data
    assert (len(passed), len(failed)) == (counts.passed, counts.failed)
    assert {item.status for item in passed} <= {"pass"} and {item.status for item in failed} <= {"fail"}

    deleted = client.evals.runs.delete(run.id, eval_id=found.id)
    assert (deleted.object, deleted.deleted, deleted.run_id) == ("eval.run.deleted", True, run.id)
    gone = client.evals.delete(found.id)
    assert (gone.object, gone.deleted, gone.eval_id) == ("eval.deleted", True, found.id)
    with pytest.raises(openai.NotFoundError, match=found.id):
        client.evals.retrieve(found.id)


def test_a_file_of_items_with_answers_and_a_judge(client) -> None:
    lines = [
        json.dumps({"item": item, "sample": {"output_text": item["answer"] if n else "no"}})
        for n, item in enumerate(ITEMS[:2])
    ]
    file = client.files.create(file=("items.jsonl", "\n".join(lines).encode()), purpose="evals")
    found = made(client, RIGHT, JUDGE)
    source = {"type": "jsonl", "source": {"type": "file_id", "id": file.id}}
    done = ended(client, client.evals.runs.create(found.id, data_source=source))
    assert done.status == "completed" and done.model is None
    right = done.per_testing_criteria_results[0]
    assert (right.passed, right.failed) == (1, 1)
    assert (done.per_model_usage[0].run_model_name, done.per_model_usage[0].invocation_count) == (BASE, 2)
    first, second = client.evals.runs.output_items.list(done.id, eval_id=found.id).data
    assert first.sample.output[0].content == "no" and first.results[0].passed is False
    assert second.results[0].passed is True and second.results[0].score == 1.0


def test_responses_are_evaluated_too(client) -> None:
    found = made(client, CLOSE)
    done = ended(
        client,
        client.evals.runs.create(found.id, data_source=asking(inline(ITEMS[:2]), kind="responses")),
    )
    assert (done.status, done.result_counts.passed) == ("completed", 2)
    (item, _) = client.evals.runs.output_items.list(done.id, eval_id=found.id).data
    assert item.sample.output[0].content and item.sample.usage.completion_tokens <= 12
    answer = client.responses.create(
        model=BASE, input="Say blue.", max_output_tokens=16, metadata={"logs": found.id}
    )
    source = {"type": "responses", "source": {"type": "responses", "metadata": {"logs": found.id}}}
    logs = made(client, {**RIGHT, "reference": answer.output_text}, config={"type": "logs"})
    done = ended(client, client.evals.runs.create(logs.id, data_source=source))
    assert (done.status, done.result_counts.total, done.result_counts.passed) == ("completed", 1, 1)


@pytest.mark.parametrize("kind", ["logs", "stored_completions"])
def test_stored_completions_are_evaluated(client, kind) -> None:
    team = f"evals-{kind}-{time.time_ns()}"
    question = [{"role": "user", "content": "Say hi."}]
    said = [
        client.chat.completions.create(
            model=BASE, messages=question, max_tokens=4, store=True, metadata={"team": team, "n": str(n)}
        )
        for n in range(2)
    ]
    found = made(client, RIGHT, config={"type": kind, "metadata": {"team": team}})
    assert found.data_source_config.to_dict()["schema"]["required"] == ["item", "sample"]
    source = {"type": "completions", "source": {"type": "stored_completions", "model": BASE}}
    done = ended(client, client.evals.runs.create(found.id, data_source=source))
    assert done.status == "completed" and done.result_counts.errored == 2, "these items have no 'answer'"
    items = client.evals.runs.output_items.list(done.id, eval_id=found.id).data
    assert [item.datasource_item["id"] for item in items] == [each.id for each in said]
    assert items[0].sample.output[0].content == said[0].choices[0].message.content
    again = {**source, "model": BASE, "sampling_params": {"max_completion_tokens": 4}}
    again["source"] = {**source["source"], "metadata": {"n": "1"}}
    done = ended(client, client.evals.runs.create(found.id, data_source=again))
    assert (done.status, done.result_counts.total) == ("completed", 1)
    assert done.per_model_usage[0].invocation_count == 1
    for each in said:
        client.chat.completions.delete(each.id)


@pytest.mark.parametrize("path", ["/evals/{}/runs/{}/cancel", "/evals/{}/runs/{}", None])
def test_a_run_is_canceled_in_the_middle(client, path) -> None:
    found = made(client, CLOSE)
    source = asking(inline(ITEMS * 60), sampling_params={"max_completion_tokens": 60})
    run = client.evals.runs.create(found.id, data_source=source)
    deadline = time.monotonic() + 60
    while not client.evals.runs.output_items.list(run.id, eval_id=found.id, limit=1).data:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    if path is None:
        assert client.evals.runs.cancel(run.id, eval_id=found.id).status == "canceled"
    else:
        reply = client.post(path.format(found.id, run.id), cast_to=object)
        assert reply["status"] == "canceled"
    done = client.evals.runs.retrieve(run.id, eval_id=found.id)
    counts = done.result_counts
    assert done.status == "canceled" and counts.total == 240 and 0 < counts.passed < 240
    assert done.per_testing_criteria_results[0].passed == counts.passed
    kept = list(client.evals.runs.output_items.list(run.id, eval_id=found.id, limit=100))
    assert len(kept) == counts.passed + counts.failed + counts.errored
    assert client.evals.runs.cancel(run.id, eval_id=found.id).status == "canceled"
    listed = client.evals.runs.list(found.id, status="canceled")
    assert [each.id for each in listed.data] == [run.id]
    assert client.evals.runs.list(found.id, status="completed").data == []


def test_evals_are_listed_and_changed(client) -> None:
    evals = [made(client, RIGHT, name=f"list {n}") for n in range(3)]
    ids = [each.id for each in evals]
    newest = client.evals.list(limit=3, order="desc")
    assert [each.id for each in newest.data] == ids[::-1]
    after = client.evals.list(after=ids[0], limit=1)
    assert [each.id for each in after.data] == [ids[1]]
    changed = client.evals.update(ids[0], name="new", metadata={"a": "b"})
    assert (changed.id, changed.name, changed.metadata) == (ids[0], "new", {"a": "b"})
    assert client.evals.list(order="desc", order_by="updated_at", limit=1).data[0].id == ids[0]
    renamed = client.evals.update(ids[0], name="newer")
    assert (renamed.name, renamed.metadata) == ("newer", {"a": "b"})
    assert client.evals.retrieve(ids[0]).to_dict() == renamed.to_dict()
    for each in ids:
        client.evals.delete(each)


CRITERION = "testing_criteria[0]"
CONFIG = "data_source_config"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"testing_criteria": []}, "testing_criteria"),
        ({"testing_criteria": [{**RIGHT, "operation": "neq"}]}, f"{CRITERION}.operation"),
        ({"testing_criteria": [{**JUDGE, "model": "gpt-9"}]}, f"{CRITERION}.model"),
        ({"testing_criteria": [{**SHORT, "source": "x ="}]}, f"{CRITERION}.source"),
        ({"testing_criteria": [{**CLOSE, "pass_threshold": None}]}, f"{CRITERION}.pass_threshold"),
        ({CONFIG: {"type": "files"}}, f"{CONFIG}.type"),
        ({CONFIG: {"type": "custom"}}, f"{CONFIG}.item_schema"),
        ({CONFIG: {"type": "custom", "item_schema": {"type": "objekt"}}}, f"{CONFIG}.item_schema"),
        ({CONFIG: {"type": "logs", "metadata": {"a": 1}}}, f"{CONFIG}.metadata"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
    ],
)
def test_what_cannot_become_an_eval_is_named(client, change, param) -> None:
    body = {CONFIG: CUSTOM, "testing_criteria": [RIGHT], **change}
    with pytest.raises(openai.BadRequestError) as refused:
        client.evals.create(**body)
    assert refused.value.param == param


SOURCE = "data_source"
WRONG_RUNS = [
    ({"type": "csv"}, "data_source.type"),
    (asking({"type": "file_url"}), "data_source.source.type"),
    (asking(inline(ITEMS), model=None), "data_source.model"),
    (asking(inline(ITEMS), model="gpt-9"), "data_source.model"),
    (asking(inline(ITEMS), input_messages=None), "data_source.input_messages"),
    (asking(inline(ITEMS), sampling_params={"temperature": 3}), "data_source.sampling_params.temperature"),
    (asking(inline(ITEMS), sampling_params={"stop": "x"}), "data_source.sampling_params.stop"),
    (asking(inline([{"question": 1, "answer": "a"}])), "data_source.source.content"),
    ({"type": "jsonl", "source": inline(ITEMS)}, "data_source.source.content"),  # without a sample
    (asking({"type": "responses", "users": ["u"]}, kind="responses"), "data_source.source.users"),
]


@pytest.mark.parametrize(("source", "param"), WRONG_RUNS)
def test_what_cannot_become_a_run_is_named(client, source, param) -> None:
    found = made(client, RIGHT)
    with pytest.raises(openai.BadRequestError) as refused:
        client.evals.runs.create(found.id, data_source=source)
    assert refused.value.param == param
    assert client.evals.runs.list(found.id).data == []


def test_files_and_ids_that_do_not_fit(client, training_file) -> None:
    found = made(client, RIGHT)
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.evals.runs.create(found.id, data_source=asking({"type": "file_id", "id": training_file.id}))
    with pytest.raises(openai.NotFoundError, match="file-nothere"):
        client.evals.runs.create(found.id, data_source=asking({"type": "file_id", "id": "file-nothere"}))
    file = client.files.create(file=("bad.jsonl", b'{"item": {"question": "q"}}\n'), purpose="evals")
    run = client.evals.runs.create(found.id, data_source=asking({"type": "file_id", "id": file.id}))
    failed = ended(client, run)
    assert (failed.status, failed.error.code) == ("failed", "invalid_item")
    assert failed.error.message == "Line 1: item: 'answer' is a required property"
    with pytest.raises(openai.BadRequestError, match="failed"):
        client.evals.runs.cancel(run.id, eval_id=found.id)
    with pytest.raises(openai.NotFoundError, match="evalrun_nothere"):
        client.evals.runs.retrieve("evalrun_nothere", eval_id=found.id)
    with pytest.raises(openai.NotFoundError, match="eval_nothere"):
        client.evals.runs.create("eval_nothere", data_source=asking(inline(ITEMS)))
