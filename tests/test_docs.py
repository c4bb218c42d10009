"""What README.md and docs/ show is run here, in the order of the page."""

from __future__ import annotations

import ast
import doctest
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Result, SetUp, Workbench, copy_installed_project
from flows import PROJECT, listening
from markdown_it import MarkdownIt

import namespaced_trigger

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
MARKDOWN = MarkdownIt("commonmark").enable("table")
# What takes long, and is inspected elsewhere as well, by the fixture that runs it.
SETUPS = {
    "bash setup_flow.sh": "rehearsed_setup",
    "bash setup_flow.sh --cluster": "setup_on_cluster",
}
DEMO_BODY = """
project = Config("project", default_value={"branch": "bar"})
path = Parameter("path", default="")
"""

# What no two runs have in common.
VARYING = (
    (re.compile(r"\S*/(rehearsal-logs-)\w+"), r"\1"),
    (re.compile(r"-[a-z0-9]{5}\b"), "-xxxxx"),
    (re.compile(r"\b\d+\.\d+( ?s\b)?"), "SECONDS"),
    (re.compile(r"\b127\.0\.0\.1:\d+"), "HOST"),
    (re.compile(r"\balice\b"), "jane"),  # the user of a bench, and of a page
    (re.compile(r" +"), " "),  # the width of a column
)


@dataclass
class Block:
    """A block of code in a page."""

    page: Path
    line: int
    language: str
    title: str  # the file that it shows
    kind: str  # which part of a flow it is
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    for token in MARKDOWN.parse(page.read_text()):
        if token.type == "fence":
            assert token.map
            language, _, rest = token.info.partition(" ")
            title = re.fullmatch(r'title="(.+)"', rest)
            kind = "" if title else rest
            yield Block(
                page, token.map[0] + 1, language, title[1] if title else "", kind, token.content
            )


def rows(page: Path, heading: str) -> Iterator[list[str]]:
    """Return the cells of the table below a heading."""
    section = page.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    tokens = MARKDOWN.parse(section)
    body = tokens[[token.type for token in tokens].index("tbody_open") :]
    cells: list[str] = []
    for token, content in pairwise(body):
        if token.type == "td_open":
            cells.append(content.content)
        elif token.type == "tr_close":
            yield cells
            cells = []


class Reader:
    """Somebody who does what a page shows, in a clone of the project."""

    def __init__(self, bench: Workbench, setups: dict[str, SetUp]) -> None:
        self.bench = bench
        self.setups = setups
        copy_installed_project(bench.folder)
        if (ROOT / ".mypy_cache").exists():
            shutil.copytree(ROOT / ".mypy_cache", bench.folder / ".mypy_cache")
        bench.variables.update(
            PYTHONPATH="(unset)",
            # A page that runs the tests would run itself: only test_sensor.py is left.
            PYTEST_ADDOPTS="-n 0 --ignore-glob=tests/test_[!s]* --ignore=tests/test_setup.py",
            TOKEN=bench.stage.cluster.token,
        )

    def follow(self, block: Block) -> None:
        if block.title:
            self.write(block)
        elif block.language == "console":
            self.type_and_compare(block)
        elif block.language == "bash":
            result = self.shell(f"set -e\n{block.text}")
            assert result.status == 0, f"{block.place}: {result.output}"
        elif block.kind == "decorator":
            flow = self.bench.flow(above=block.text + PROJECT, body=DEMO_BODY)
            self.python(block, flow, "argo-workflows", "create")
        elif block.kind == "step":
            flow = self.bench.flow(body=DEMO_BODY, start=block.text)
            self.python(block, flow, "--datastore", "local", "run")
        else:
            assert block.language == "python", f"{block.place} is run by nobody"
            self.python(block, "-c", block.text)

    def write(self, block: Block) -> None:
        if (ROOT / block.title).exists():
            assert (ROOT / block.title).read_text() == block.text, block.place
        path = self.bench.folder / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        if block.language == "yaml":
            for job in yaml.safe_load(block.text)["jobs"].values():
                for command in (step["run"] for step in job["steps"] if "run" in step):
                    if "pip install" not in command:
                        result = self.shell(command)
                        assert result.status == 0, f"{block.place}: {result.output}"

    def type_and_compare(self, block: Block) -> None:
        lines = block.text.splitlines()
        commands = [line[2:] for line in lines if line.startswith("$ ")]
        shown = [constant(line) for line in lines if not line.startswith("$ ")]
        printed = [constant(line) for line in self.shell("\n".join(commands)).output.splitlines()]
        whole = "\n".join(printed)
        missing = [line for line in shown if line not in (*printed, "...")]
        assert not missing, f"{block.place} shows what is not printed:\n{missing}\n{whole}"
        if "..." not in shown:
            assert sorted(printed) == sorted(shown), f"{block.place}:\n{whole}"

    def python(self, block: Block, *command: str | Path) -> None:
        result = self.bench.run(*command)
        assert result.status == 0, f"{block.place}: {result.output}"

    def shell(self, script: str) -> Result:
        """Run a script, but for what setup_flow.sh prints, which was made once for all tests."""
        for command, setup in self.setups.items():
            printed = f"cat '{setup.folder}/output.txt'; (exit {setup.status})"
            script = re.sub(rf"^{re.escape(command)}(?= *(#|$))", printed, script, flags=re.M)
        url = "METAFLOW_ARGO_EVENTS_WEBHOOK_URL"
        variables = {url: self.bench.stage.environment[url]} if f"${url}" in script else {}
        return replace(self.bench, variables={**self.bench.variables, **variables}).shell(script)


def constant(line: str) -> str:
    for pattern, replacement in VARYING:
        line = pattern.sub(replacement, line)
    return line.strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_holds(
    bench: Workbench, page: Path, request: pytest.FixtureRequest
) -> None:
    setups = {
        command: request.getfixturevalue(fixture)
        for command, fixture in SETUPS.items()
        if command in page.read_text()
    }
    reader = Reader(bench, setups)
    for block in blocks(page):
        reader.follow(block)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_a_title_and_something_below_it(page: Path) -> None:
    assert re.match(r"# .+\n\n\S", page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, heading = link.partition("#")
        if link.startswith("https://"):
            continue
        target = (page.parent / path) if path else page
        assert target.exists(), link
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
        anchors = [re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings]
        assert not heading or heading in anchors, link


NAMES = """
import json, sys
from namespaced_trigger import NamespacedTriggerException, namespaced_trigger
for event, namespace in json.load(sys.stdin):
    try:
        print(namespaced_trigger.event_name(event, **namespace))
    except NamespacedTriggerException:
        print("rejected")
"""


def test_the_table_of_all_cases_is_true(bench: Workbench) -> None:
    questions, answers = [], []
    for *given, event, answer in rows(ROOT / "docs" / "names.md", "All cases"):
        values = dict(zip(("project", "branch", "production", "user"), given, strict=True))
        namespace = {key: text.strip("`") for key, text in values.items() if text}
        production = {"production": namespace.get("production") == "true"}
        questions.append((event.strip("`"), {**namespace, **production}))
        answers.append(answer)
    result = bench.run("-c", NAMES, stdin=json.dumps(questions))
    for answer, made in zip(answers, result.stdout.splitlines(), strict=True):
        assert answer.startswith("rejected" if made == "rejected" else f"`{made}`")
    warnings = result.stderr.count("Namespaced trigger warning: ")
    assert warnings == len([answer for answer in answers if "warning" in answer])


@pytest.mark.parametrize("row", list(rows(ROOT / "docs" / "names.md", "Who says which")))
def test_the_table_of_who_says_which_is_true(bench: Workbench, row: list[str]) -> None:
    project, config, flags, answer = (
        cell.replace("`", "").replace("jane", "alice") for cell in row
    )
    flow = bench.flow(**listening(project=f"@project({project})" if project else ""))
    result = bench.deploy(flow, "--config-value", "project", config, *flags.split())
    listened = [name for sensor in bench.sensors.values() for name in sensor.event_names]
    if answer.startswith("rejected"):
        assert (result.status, listened) == (1, [])
    else:
        name, *warning = answer.split(", with a warning")
        assert listened == [name]
        assert bool(warning) == ("Namespaced trigger warning: " in result.stderr)


SOURCES = (ROOT / "namespaced_trigger.py", *sorted((ROOT / "rehearsal").glob("*.py")))
TELLERS = ("NamespacedTriggerException", "_warn", "warn", "print", "error", "Refused", "__init__")
MESSAGES = (["message"], ["problem"], ["run.problem"])
WORDS_OF_A_MESSAGE = 3


def template(node: ast.AST) -> str:
    """Return a text with … for each value in it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(template, node.values))
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "_must_be":
        what, expected, _ = map(template, node.args)
        return f"{what} must be {expected}, not …."
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return template(node.left) + template(node.right)
    return "…"


def texts(node: ast.AST) -> Iterator[str]:
    text = template(node)
    if text != "…":
        yield text
    else:
        for child in ast.iter_child_nodes(node):
            yield from texts(child)


def messages(tree: ast.Module) -> Iterator[str]:
    """Return what is raised, warned of or printed, and the problems of a report."""
    for node in ast.walk(tree):
        call = getattr(node, "func", None)
        name = getattr(call, "id", getattr(call, "attr", None))
        assigned = [ast.unparse(target) for target in getattr(node, "targets", ())]
        if isinstance(node, ast.Raise) or name in TELLERS or assigned in MESSAGES:
            yield from texts(node)
        elif isinstance(node, ast.JoinedStr) and re.match(r"[A-Z]\w+: ", template(node)):
            yield template(node)


def explained() -> list[str]:
    page = (ROOT / "docs" / "errors.md").read_text()
    cells = re.findall(r"^\| ([^|]*) \|", page, re.MULTILINE)
    return [message for cell in cells for message in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_each_message_is_explained(source: Path) -> None:
    known = tuple(explained())
    tree = ast.parse(source.read_text())
    for message in messages(tree):
        if len(re.findall(r"\w+", message)) >= WORDS_OF_A_MESSAGE:
            assert message.startswith(known), message


def test_each_message_that_is_explained_is_still_said() -> None:
    said = [text for source in SOURCES for text in texts(ast.parse(source.read_text()))]
    assert [each for each in explained() if not any(each in text for text in said)] == []


def test_the_examples_of_the_docstrings_hold() -> None:
    failed, attempted = doctest.testmod(namespaced_trigger)
    assert attempted and not failed
