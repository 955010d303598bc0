"""Models and inference through the SDK, on base and tuned names."""

import asyncio

import openai
import pytest
from conftest import BASE, wait_for
from openai import AsyncOpenAI, OpenAI

QUESTION = [{"role": "user", "content": "What is the code of room 3?"}]


@pytest.fixture(params=["base", "tuned"])
def model(request: pytest.FixtureRequest, job) -> str:
    return BASE if request.param == "base" else job.fine_tuned_model


def test_models_are_listed_and_retrieved(client, job) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {BASE, job.fine_tuned_model} <= set(listed)
    base, tuned = client.models.retrieve(BASE), client.models.retrieve(job.fine_tuned_model)
    assert (base.object, base.owned_by) == ("model", "system")
    assert (tuned.id, tuned.owned_by) == (job.fine_tuned_model, job.organization_id)
    assert listed[BASE] == base and listed[tuned.id] == tuned


def test_chat(client, model) -> None:
    answer = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=8, temperature=0)
    assert (answer.object, answer.model) == ("chat.completion", model)
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.completion_tokens <= 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_chat_streams_the_same_words(client, model) -> None:
    asked = {"model": model, "messages": QUESTION, "max_tokens": 8, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert {chunk.model for chunk in chunks} == {model}
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_completions(client, model) -> None:
    answer = client.completions.create(model=model, prompt="Room 3 opens", max_tokens=4, temperature=0)
    assert (answer.object, answer.model) == ("text_completion", model)
    chunks = list(
        client.completions.create(
            model=model, prompt="Room 3 opens", max_tokens=4, temperature=0, stream=True
        )
    )
    assert "".join(c.choices[0].text for c in chunks if c.choices) == answer.choices[0].text
    assert {chunk.model for chunk in chunks} == {model}


def test_the_async_client(model) -> None:
    async def ask() -> str:
        async with AsyncOpenAI(max_retries=0) as client:
            stream = await client.chat.completions.create(
                model=model, messages=QUESTION, max_completion_tokens=3, stream=True
            )
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])

    assert asyncio.run(ask())


def test_log_probabilities_and_choices(client, model) -> None:
    answer = client.chat.completions.create(
        model=model, messages=QUESTION, max_tokens=2, n=2, logprobs=True, top_logprobs=2, seed=1
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    token = answer.choices[0].logprobs.content[0]
    assert token.logprob <= 0 and len(token.top_logprobs) == 2


def test_fields_that_change_nothing_are_taken(client) -> None:
    client.chat.completions.create(
        model=BASE, messages=QUESTION, max_tokens=1, user="u", metadata={"a": "b"}, store=False
    )


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"chat_template": "{{ 1 }}"}, "chat_template", "unknown_parameter"),
        ({"chat_template_kwargs": {}}, "chat_template_kwargs", "unknown_parameter"),
        ({"priority": 1}, "priority", "unknown_parameter"),
        ({"prompt_logprobs": 1}, "prompt_logprobs", "unknown_parameter"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"n": 9}, "n", "invalid_value"),
        ({"max_tokens": "ten"}, "max_tokens", "invalid_type"),
        ({"messages": []}, "messages", None),
        ({"messages": [{"content": "no role"}]}, "messages[0]", "invalid_type"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}}],
                    }
                ]
            },
            "messages[0].content",
            "invalid_value",
        ),
        ({"messages": [{"role": "user", "content": "word " * 5000}]}, None, "context_length_exceeded"),
    ],
)
def test_a_bad_question_is_named(client, change, param, code) -> None:
    body = {"model": BASE, "messages": QUESTION, "max_tokens": 1} | change
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/chat/completions", body=body, cast_to=object)
    assert refused.value.type == "invalid_request_error"
    assert param is None or refused.value.param == param
    assert code is None or refused.value.code == code


def test_an_unknown_model_is_not_found(client) -> None:
    for name in ("gpt-9", "ft:smollm2-135m-instruct:other:name:12345678", "mv-0123456789"):
        with pytest.raises(openai.NotFoundError) as missing:
            client.chat.completions.create(model=name, messages=QUESTION)
        assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve(name)


def test_a_wrong_key_is_refused_and_not_repeated_whole(client) -> None:
    stranger = OpenAI(api_key="sk-tf-this-is-nobodys-key-at-all", max_retries=0)
    for call in (stranger.models.list, stranger.files.list, stranger.fine_tuning.jobs.list):
        with pytest.raises(openai.AuthenticationError) as refused:
            call()
        assert refused.value.code == "invalid_api_key"
        assert "nobodys" not in refused.value.body["message"]


def test_a_deleted_model_is_gone(client, training_file) -> None:
    job = client.fine_tuning.jobs.create(
        model=BASE, training_file=training_file.id, hyperparameters={"n_epochs": 1, "batch_size": 6}
    )
    name = wait_for(client, job.id).fine_tuned_model
    assert name.startswith(f"ft:{BASE}:personal::")
    client.chat.completions.create(model=name, messages=QUESTION, max_tokens=1)
    deleted = client.models.delete(name)
    assert (deleted.id, deleted.deleted, deleted.object) == (name, True, "model")
    assert name not in [model.id for model in client.models.list()]
    for call in (client.models.retrieve, client.models.delete):
        with pytest.raises(openai.NotFoundError):
            call(name)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=name, messages=QUESTION, max_tokens=1)


def test_a_base_model_cannot_be_deleted(client) -> None:
    with pytest.raises(openai.BadRequestError, match="base model"):
        client.models.delete(BASE)
