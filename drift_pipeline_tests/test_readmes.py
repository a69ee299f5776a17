"""What the READMEs show: no `drift` line that the command would not take, no link to nowhere, one page at the top."""

import re
import shlex
from pathlib import Path

import click
import pytest

from drift_pipeline.cli import drift

TOP = Path(__file__).parents[1]
READMES = [
    TOP / "README.md",
    *sorted((TOP / "drift_pipeline").rglob("README.md")),
    *sorted((TOP / "drift_pipeline_tests").rglob("README.md")),
    *sorted((TOP / "deploy").rglob("README.md")),
]


def console_lines(text: str) -> list[str]:
    """Of all console fences, each command with the lines that belong to it."""
    fences = re.findall(r"```console\n(.*?)\n```", text, flags=re.DOTALL)
    return [line.replace("\\\n", " ") for fence in fences for line in fence.removeprefix("$ ").split("\n$ ")]


def commands() -> list[tuple[str, str]]:
    found = [
        (readme.relative_to(TOP).as_posix(), line) for readme in READMES for line in console_lines(readme.read_text())
    ]
    return [(name, line) for name, line in found if re.match(r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?drift ", line)]


@pytest.mark.parametrize(("readme", "line"), commands())
def test_a_line_of_a_readme_is_one_that_the_command_takes(readme: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    words = words[next(at for at, word in enumerate(words) if word.endswith("drift")) + 1 :]
    command: click.Command = drift
    context = click.Context(drift)
    while isinstance(command, click.Group):
        known = command.get_command(context, words[0])
        assert known is not None, (readme, line)
        command, words = known, words[1:]
    command.parse_args(click.Context(command), words)


def test_there_are_such_lines() -> None:
    assert len(commands()) > 10


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(TOP)))
def test_links_lead_somewhere(readme: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", readme.read_text())
    assert [link for link in links if not (readme.parent / link).exists()] == []


def test_the_readme_at_the_top_is_one_page() -> None:
    assert len((TOP / "README.md").read_text().splitlines()) <= 150
