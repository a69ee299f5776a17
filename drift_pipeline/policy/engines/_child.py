"""The process in which Rego is evaluated: JSON lines in, JSON lines out, nothing else.

Run by path with an empty environment, because regopy may crash and shows its environment to the policy.
It imports nothing of drift_pipeline, and ends when its stdin does.

    {"id": 0, "alarm_seconds": 6, "modules": {"drift.rego": "package drift ...", "data.json": "{}"},
     "rules": ["drift/decision"], "rule": "drift/decision", "input": {...}}
    {"id": 0, "decision": {...}}     null = undefined;   {"id": 0, "error": "..."} = could not be evaluated
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, BinaryIO

Policy = Callable[[str, Any], Any]


def compile_policy(modules: dict[str, str], rules: list[str]) -> Policy:
    from regopy import Interpreter

    rego = Interpreter()
    for name, text in modules.items():
        if name.endswith(".json"):
            rego.add_data_json(text)
        else:
            rego.add_module(name, text)
    compiled = rego.build(None, rules)

    def ask(rule: str, facts: Any) -> Any:
        rego.set_input_term(json.dumps(facts))
        output = rego.query_bundle_entrypoint(compiled, rule)
        if not output.ok():
            raise ValueError(str(output))
        return output.results[0].expressions[0] if output.results and output.results[0].expressions else None

    return ask


def serve(questions: BinaryIO, answers: BinaryIO) -> None:
    policy: Policy | None = None
    for line in questions:
        question = json.loads(line)
        # the kernel's alarm ends this process even inside the evaluator, and with its parent already dead
        signal.alarm(question["alarm_seconds"])
        answer = {"id": question["id"]}
        try:
            if "modules" in question:
                policy = compile_policy(question["modules"], question["rules"])
            answer["decision"] = policy(question["rule"], question["input"]) if policy else None
        except Exception as error:  # a process edge: the parent records it
            answer["error"] = f"{type(error).__name__}: {error}"
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()
        signal.alarm(0)


if __name__ == "__main__":
    os.environ.clear()  # Python itself puts LC_CTYPE there
    sys.path.append(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business; this one ends at EOF
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what regopy prints must not look like an answer
    serve(sys.stdin.buffer, channel)
