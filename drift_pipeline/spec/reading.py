"""Reading a spec and its declarations: YAML to ModelSpec, with the file and the line of whatever is wrong."""

import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from drift_pipeline.errors import SpecError
from drift_pipeline.spec.declarations import Declarations
from drift_pipeline.spec.model import ModelSpec
from drift_pipeline.spec.parts import Part

SPEC_FILE, DECLARATIONS = "defs.yaml", "declarations.yaml"
Read = TypeVar("Read", bound=Part)

MOST_BYTES = 128 * 1024  # a thousand columns take 40,000
MOST_NODES = 200_000
DEEPEST = 100
_MOST_TOLD = 20
_OF_VALUES = (
    ValueError,
    OverflowError,
    LookupError,
    TypeError,
    AttributeError,
)  # raised by PyYAML for 2026-02-31, !!int "" and kin


def read_spec(path: Path, overrides: Sequence[str] = ()) -> ModelSpec:
    """Read a model's YAML: the flat attributes, or a whole `defs.yaml` of one `MonitoredModel`, which may have a
    `declarations.yaml` beside it.

    Args:
        path: the YAML file.
        overrides: `dotted.key=value` pairs that replace what the file says, as `--set` takes them.

    Raises:
        SpecError: unreadable, templated (`{{`), an unknown key or a bad value; names file, line and key.
    """
    spec = parse_spec(_text(path), path, overrides)
    return with_declarations(spec, path.parent) if path.name == SPEC_FILE else spec


def with_declarations(spec: ModelSpec, folder: Path) -> ModelSpec:
    """The spec with what the folder's `declarations.yaml` says; as it is where there is none. Raises SpecError as
    `read_spec`."""
    path = folder / DECLARATIONS
    if not path.exists():
        return spec
    if spec.declarations != Declarations():
        raise SpecError(f"{path}: the spec has declarations of its own; keep them in one place")
    root, document = _parsed(_text(path), path)
    if root is None or document is None:  # all of it is commented out
        return spec
    if not isinstance(document, dict):
        raise SpecError(f"{path}: declarations are a YAML mapping with risk, card, datasheet, annexes and article_50")
    found = _validated(document, lambda keys: f"{path}:{_line_of(root, keys)}", Declarations)
    return spec.model_copy(update={"declarations": found})


def parse_spec(text: str, path: Path, overrides: Sequence[str] = ()) -> ModelSpec:
    """A spec's YAML that is, or is to be, the file's; arguments and errors as of `read_spec`."""
    root, document = _parsed(text, path)
    if not isinstance(document, dict) or root is None:
        raise SpecError(f"{path}: a spec is a YAML mapping with name, owner, task, features and outcome")
    prefix: tuple[str, ...] = ()
    if "attributes" in document:
        prefix = ("attributes",)
        document = document["attributes"]
        if not isinstance(document, dict):
            raise SpecError(f"{path}: 'attributes' must be a mapping")
    set_keys = [_override(document, pair) for pair in overrides]

    def where(keys: tuple[str, ...]) -> str:
        given = any(keys[: len(some)] == some for some in set_keys)
        return "--set" if given else f"{path}:{_line_of(root, prefix + keys)}"

    return _validated(document, where, ModelSpec).placed(path.parent)


def read_part(path: Path, kind: type[Read]) -> Read:
    """A file of settings that is a YAML mapping of this form. Raises SpecError as `read_spec`."""
    root, document = _parsed(_text(path), path)
    if not isinstance(document, dict) or root is None:
        raise SpecError(f"{path}: is no YAML mapping; it has {', '.join(kind.model_fields)}")
    return _validated(document, lambda keys: f"{path}:{_line_of(root, keys)}", kind)


def spec_of(document: Mapping[str, Any]) -> ModelSpec:
    """A model from a mapping with the keys of its YAML. Raises SpecError: an unknown key or a bad value; names it."""
    return _validated(dict(document), lambda _: "the spec", ModelSpec)


def _validated(document: dict[str, Any], where: Callable[[tuple[str, ...]], str], kind: type[Read]) -> Read:
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise SpecError(_explain(error, where, kind)) from error


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise SpecError(f"{path}: is longer than {MOST_BYTES:,} bytes; a spec is one model's settings")
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from error


def _parsed(text: str, path: Path) -> tuple[yaml.Node | None, object]:
    """The YAML's nodes, which know their lines, and what they hold."""
    try:
        if _depth(text) > DEEPEST:
            raise RecursionError  # before PyYAML, which takes the square of it
        if line := _template_line(text):
            raise SpecError(
                f"{path}:{line}: '{{{{' found; a spec holds no template and no secret: write the value itself"
            )
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if _size(root, {}) > MOST_NODES:
            raise SpecError(f"{path}: its anchors come to more than {MOST_NODES:,} values; write out what is meant")
        if repeated := _repeated_key(root, set()):
            raise SpecError(f"{path}:{repeated.start_mark.line + 1}: the key {repeated.value!r} stands twice; keep one")
        return root, yaml.safe_load(text)
    except RecursionError as error:
        raise SpecError(f"{path}: is nested too deep; a spec has a few levels") from error
    except (yaml.YAMLError, *_OF_VALUES) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise SpecError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from error


def _depth(text: str) -> int:
    """Of its brackets, those in texts counted as well."""
    depth = deepest = 0
    for sign in re.findall(r"[][{}]", text):
        depth += 1 if sign in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _size(node: yaml.Node | None, sizes: dict[int, int]) -> int:
    """Of the document with each alias and merge written out; an alias to what it stands in counts nothing."""
    if id(node) not in sizes:
        sizes[id(node)] = 0
        children = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        sizes[id(node)] = 1 + sum(_size(part, sizes) for part in parts)
    return sizes[id(node)]


def _template_line(text: str) -> int | None:
    """Line of the first `{{` outside of comments, counted from 1."""
    for token in yaml.scan(text):
        if "{{" in getattr(token, "value", "") or text.startswith("{{", token.start_mark.index):
            return int(token.start_mark.line) + 1
    return None


def _repeated_key(node: yaml.Node | None, seen: set[int]) -> yaml.ScalarNode | None:
    """The first key that its mapping holds already: YAML itself would silently take the last."""
    if id(node) in seen:  # an alias
        return None
    seen.add(id(node))
    children = node.value if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        known: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in known:
                    return key
                known.add(key.value)
        children = [value for _, value in node.value]
    return next((found for child in children if (found := _repeated_key(child, seen))), None)


def _override(document: dict[str, Any], pair: str) -> tuple[str, ...]:
    key, separator, value = pair.partition("=")
    keys = tuple(key.split("."))
    if not separator or not all(keys):
        raise SpecError(f"--set {pair}: write dotted.key=value, such as kpis.auroc.drop=0.03")
    node: dict[str, Any] = document
    for part in keys[:-1]:
        child = node.get(part)
        if not isinstance(child, dict):
            child = node[part] = {}
        node = child
    try:
        node[keys[-1]] = yaml.safe_load(value)
    except (yaml.YAMLError, RecursionError, *_OF_VALUES) as error:
        raise SpecError(f"--set {pair}: the value is not valid YAML") from error
    return keys


def _explain(error: ValidationError, where: Callable[[tuple[str, ...]], str], kind: type[Part]) -> str:
    lines = []
    problems = error.errors(include_url=False)
    for problem in problems[:_MOST_TOLD]:
        keys = tuple(str(part) for part in problem["loc"] if part != "[key]")
        message = re.sub(r"^Value error, ", "", problem["msg"])
        if problem["type"] == "extra_forbidden":
            message = "unknown key" + _did_you_mean(keys, kind)
        elif problem["type"] == "missing":
            message = "required, and missing"
        elif problem["type"] == "literal_error":
            message = f"{reprlib.repr(problem['input'])} is not supported; what works: {problem['ctx']['expected']}"
        lines.append(f"{where(keys)}: {'.'.join(keys) or 'spec'}: {message}")
    if len(problems) > _MOST_TOLD:
        lines.append(f"and {len(problems) - _MOST_TOLD:,} more")
    return "\n".join(lines)


def _did_you_mean(keys: tuple[str, ...], kind: type[Part]) -> str:
    from difflib import get_close_matches

    model: Any = kind
    for key in keys[:-1]:
        if key not in model.model_fields:  # the place in a list, or the key of a mapping
            continue
        annotation = model.model_fields[key].annotation
        model = next((a for a in getattr(annotation, "__args__", (annotation,)) if hasattr(a, "model_fields")), None)
        if model is None:
            return ""
    near = get_close_matches(keys[-1], model.model_fields, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known here: {', '.join(model.model_fields)}"


def _line_of(node: yaml.Node, keys: tuple[str, ...]) -> int:
    """Line of the deepest node that the keys reach, counted from 1."""
    line: int = node.start_mark.line + 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            entry = next(((k, v) for k, v in node.value if k.value == key), None)
            if entry is None:
                return line
            line, node = entry[0].start_mark.line + 1, entry[1]
        elif isinstance(node, yaml.SequenceNode) and key.isdigit() and int(key) < len(node.value):
            node = node.value[int(key)]
            line = node.start_mark.line + 1
    return line
