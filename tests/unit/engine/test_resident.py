"""A base that generation cannot stop is refused when it is loaded."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.models.resident import load


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def with_end(source: Path, folder: Path, *, ids: int | list[int]) -> Path:
    """As bases that are not tuned for chats have it: the template's <|im_end|> is not the end of a text."""
    shutil.copytree(source, folder)
    changed(folder / "tokenizer_config.json", eos_token="<|pad|>")
    changed(folder / "generation_config.json", eos_token_id=ids)
    return folder


def test_a_base_that_would_never_stop_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    end = load(tiny_model, name="tiny").tokenizer.convert_tokens_to_ids("<|im_end|>")
    words = (
        r"the chat template of tiny ends an answer with no token at which generation stops: "
        rf"add <\|im_end\|> to eos_token_id in generation_config.json \(its id is {end}\)"
    )
    with pytest.raises(ValueError, match=words):
        load(with_end(tiny_model, tmp_path / "a", ids=0), name="tiny")
    mended = load(with_end(tiny_model, tmp_path / "b", ids=[0, end]), name="tiny")
    assert mended.end_of_turn == {0, end}


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
            "it needs one that is in eos_token_id",
        ),
        ("{{ raise_exception('no') }}", "refuses a question and its answer: no"),
    ],
)
def test_a_template_without_an_end(template: str, words: str, tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "a")
    (tmp_path / "a/chat_template.jinja").write_text(template)
    with pytest.raises(ValueError, match=words):
        load(tmp_path / "a", name="tiny")
