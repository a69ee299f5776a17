"""`python -m drift_pipeline_tests.parts [install] NAME ...`: 0 ok, 1 one cannot be had, 2 usage."""

import signal
import sys
from contextlib import ExitStack, suppress

from drift_pipeline_tests.parts.cache import PINS, MissingError, module_of


def main(arguments: list[str]) -> int:
    install, names = arguments[:1] == ["install"], arguments[arguments[:1] == ["install"] :]
    if not names or (unknown := [name for name in names if name not in PINS]):
        print(f"usage: python -m drift_pipeline_tests.parts [install] NAME ...; there are: {', '.join(PINS)}")
        print(f"there is no {', '.join(unknown)}" if names else "no name was given")
        return 2
    try:
        with suppress(KeyboardInterrupt):
            return _install(names) if install else _run(names)
        return 0
    except MissingError as error:
        print(error, file=sys.stderr)
        return 1


def _install(names: list[str]) -> int:
    for name in names:
        print(f"{name}: {module_of(name).install()}", flush=True)
    return 0


def _run(names: list[str]) -> int:
    with ExitStack() as stack:
        for name in names:
            module = module_of(name)
            if not hasattr(module, "running"):
                raise MissingError(f"{name} is no server: it is only installed")
            part = stack.enter_context(module.running())
            print(f"export {module.VARIABLE}='{part.url}'   # log: {part.server.log}", flush=True)
        print("Ctrl-C ends them", flush=True)
        signal.pause()
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
