"""What of a row a replica is asked to count: the conversation that the engine trains on."""

from typing import Any

from api.domain.estimates import conversations
from api.domain.jobs import ReinforcementMethod, SupervisedMethod
from engine.contract.graders import StringCheck

USER = {"role": "user", "content": "hi"}
FUNCTION = {"name": "f"}
CALLED = {"name": "f", "arguments": "{}"}
GRADER = StringCheck(name="e", input="a", reference="a", operation="eq")


def test_functions_are_counted_as_tools() -> None:
    row: dict[str, Any] = {
        "messages": [USER, {"role": "assistant", "function_call": CALLED}],
        "functions": [FUNCTION],
    }
    (asked,) = conversations(SupervisedMethod(), row)
    assert asked["tools"] == [{"type": "function", "function": FUNCTION}]
    assert [call["function"] for call in asked["messages"][1]["tool_calls"]] == [CALLED], (
        "a string, as vLLM takes it"
    )


def test_functions_of_a_prompt_are_the_graders() -> None:
    (asked,) = conversations(ReinforcementMethod(grader=GRADER), {"messages": [USER], "functions": 3})
    assert asked == {"messages": [USER], "add_generation_prompt": True}
