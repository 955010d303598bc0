"""An eval with a run that has ended and one output item, written straight into the store."""

import json

from tests.support.stores import World

SOURCE = {"type": "jsonl", "source": {"type": "file_content", "content": [{"item": {}}]}}
EQUAL = {
    "id": "equal-1234",
    "type": "string_check",
    "name": "equal",
    "input": "{{ sample.output_text }}",
    "reference": "blue",
    "operation": "eq",
}
SAMPLE = {
    "input": [{"role": "user", "content": "canary"}],
    "output": [{"role": "assistant", "content": "blue"}],
    "finish_reason": "stop",
    "model": "tiny-base",
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "cached_tokens": 0},
    "error": None,
    "temperature": 0.5,
    "max_completion_tokens": 8,
    "top_p": None,
    "seed": 1,
}
RESULT = {"name": EQUAL["id"], "type": "string_check", "score": 1.0, "passed": True, "sample": None}


async def evaluated(world: World) -> dict[str, str]:
    """The ids, as paths name them."""
    caller = world.caller
    ids = {"eval_id": "eval_1234", "run_id": "evalrun_1234", "output_item_id": "outputitem_1234"}
    async with world.database.tenant(caller.project_id) as connection:
        await connection.execute(
            b"insert into eval (id, project_id, name, data_source_config, testing_criteria) "
            b"values ('eval_1234', %s, 'canary', '{\"type\": \"logs\"}', %s)",
            (caller.project_id, json.dumps([EQUAL])),
        )
        await connection.execute(
            b"insert into eval_run (id, project_id, eval_id, api_key_id, name, data_source, status, total, passed) "
            b"values ('evalrun_1234', %s, 'eval_1234', %s, 'canary', %s, 'completed', 1, 1)",
            (caller.project_id, caller.key_id, json.dumps(SOURCE)),
        )
        await connection.execute(
            b"insert into eval_item (run_id, project_id, number, id, item, told, results, status, done_at) "
            b"values ('evalrun_1234', %s, 0, 'outputitem_1234', '{}', %s, %s, 'pass', now())",
            (caller.project_id, json.dumps(SAMPLE), json.dumps([RESULT])),
        )
    return ids
