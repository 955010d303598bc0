"""Runs inside the sandbox as a script: one job from standard input, one result to a descriptor of its own.

What the graded source prints goes nowhere. A forged result could only spoil its own owner's reward.
"""

import json
import os
import resource
import sys
import traceback


def main() -> None:
    result = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    processes = int(sys.argv.pop())
    resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))  # counted in this namespace alone
    print("the runner has started", file=result, flush=True)
    job = json.load(sys.stdin)
    space: dict[str, object] = {"__name__": "grader"}
    rewards = []
    try:
        exec(compile(job["source"], "grader.py", "exec"), space)
        grade = space.get("grade")
        if not callable(grade):
            raise TypeError("the source defines no function grade(sample, item)")
        for case in job["cases"]:
            rewards.append(number(grade(case["sample"], case["item"])))
    except BaseException:
        json.dump({"error": traceback.format_exc(limit=-4)[-4000:]}, result)
    else:
        json.dump({"rewards": rewards}, result)
    result.flush()
    os._exit(0)


def number(value: object) -> float:
    if isinstance(value, str | bytes):
        raise TypeError(f"grade returned a {type(value).__name__} instead of a number")
    reward = float(value)  # type: ignore[arg-type]
    if reward != reward or abs(reward) == float("inf"):
        raise ValueError(f"grade returned {reward} instead of a finite number")
    return reward


main()
