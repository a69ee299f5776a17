"""`python -m drift_pipeline_tests.parts [install|find] NAME ...`: 0 ok, 1 one cannot be had, 2 usage."""

import signal
import sys
from contextlib import ExitStack, suppress
from typing import Any

from drift_pipeline_tests.parts.cache import PINS, MissingError, module_of

_WORDS = ("install", "find")


def main(arguments: list[str]) -> int:
    word = arguments[0] if arguments[:1] and arguments[0] in _WORDS else ""
    names = arguments[bool(word) :]
    if not names or (unknown := [name for name in names if name not in PINS]):
        print(f"usage: python -m drift_pipeline_tests.parts [install|find] NAME ...; there are: {', '.join(PINS)}")
        print(f"there is no {', '.join(unknown)}" if names else "no name was given")
        return 2
    try:
        with suppress(KeyboardInterrupt):
            return _told(names, word) if word else _run(names)
        return 0
    except MissingError as error:
        print(error, file=sys.stderr)
        return 1


def _told(names: list[str], word: str) -> int:
    for name in names:
        print(f"{name}: {getattr(module_of(name), word)()}", flush=True)
    return 0


def _run(names: list[str]) -> int:
    parts: dict[str, Any] = {}
    with ExitStack() as stack:
        for name in names:
            module = module_of(name)
            if hasattr(module, "running"):
                part = parts[name] = stack.enter_context(module.running())
                told = (
                    f"{part.server.log}, reached by: {part.hint} COMMAND" if hasattr(part, "hint") else part.server.log
                )
                print(f"export {module.VARIABLE}='{part.url}'   # log: {told}", flush=True)
            elif hasattr(module, "start") and "kubernetes" in parts:
                print(f"{name}: log: {module.start(parts['kubernetes']).log}", flush=True)
            elif hasattr(module, "start"):
                raise MissingError(f"{name} runs beside a cluster: name kubernetes before it")
            else:
                raise MissingError(f"{name} is no server: it is only installed")
        print("Ctrl-C ends them", flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
