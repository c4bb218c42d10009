"""The page: the report as a picture, and with its tables in one HTML file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .report import Report

# In pixels.
_COLUMN, _ROW = 330, 64
_WIDTH, _HEIGHT = 250, 46
_MARGIN, _TITLE = 24, 30
_CHARACTERS = 32  # that fit into a box

_GOOD, _BAD, _IDLE = "good", "bad", "idle"

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --line: #8c959f;
  --paper: #ffffff; --band: #f3f5f7; --good: #1a7f37; --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --ink: #f0f6fc; --soft: #9198a1;
  --line: #656c76; --paper: #0d1117; --band: #171c23; --good: #3fb950; --bad: #f85149; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem; color: var(--ink);
  background: var(--paper); }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.verdict { font-weight: 600; } .verdict.good, td.good { color: var(--good); }
.verdict.bad, td.bad { color: var(--bad); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .25rem 1.5rem .25rem 0; }
th { color: var(--soft); font-weight: 600; } td { border-top: 1px solid var(--band); }
svg { font: 13px system-ui, sans-serif; }
.band { fill: var(--band); } .title { fill: var(--soft); font-weight: 600; }
.box { fill: var(--paper); stroke: var(--line); stroke-width: 1.5; }
.box.good { stroke: var(--good); } .box.bad { stroke: var(--bad); stroke-width: 2.5; }
.event.bad { stroke-dasharray: 6 4; }
.name { fill: var(--ink); } .note { fill: var(--soft); } .note.bad { fill: var(--bad); }
.edge { fill: none; stroke: var(--line); stroke-width: 1.5; } .edge.good { stroke: var(--good); }
.edge.idle { stroke-dasharray: 3 4; }
"""


@dataclass
class _Node:
    """A deployment or an event in the picture."""

    name: str
    kind: str
    namespace: str
    state: str = _IDLE
    note: str = ""
    after: set[str] = field(default_factory=set)  # what an arrow leads to
    column: int = 0
    row: int = 0


def as_page(report: Report) -> str:
    """Return the page: the picture of flows and events, and the tables."""
    problems = report.problems
    verdict = _count(len(problems), "problem")
    state = _BAD if problems else _GOOD
    lists = [
        f"<h2>{title}</h2><ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
        for title, lines in (("Problems", problems), ("Not supported", report.unsupported))
        if lines
    ]
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>Rehearsal: {verdict}</title><style>{_STYLE}</style></head><body>",
            f'<h1>Rehearsal</h1><p class="verdict {state}">'
            f"{_count(len(report.publications), 'event')}, {_count(len(report.runs), 'run')}, "
            f"{verdict}</p>",
            f'<div class="wide">{_picture(_graph(report))}</div>',
            *lists,
            "<h2>Events</h2>",
            _table(report.event_rows()),
            "<h2>Runs</h2>",
            _table(report.run_rows()),
            "</body></html>\n",
        ]
    )


def as_picture(report: Report) -> str:
    """Return the picture of flows and events alone, as SVG."""
    attributes = 'xmlns="http://www.w3.org/2000/svg" '
    return _picture(_graph(report), attributes, f"<style>{_STYLE}</style>") + "\n"


def _graph(report: Report) -> dict[str, _Node]:
    nodes: dict[str, _Node] = {}

    def deployment(name: str) -> _Node:
        key = f"deployment {name}"
        if key not in nodes:
            runs = [run for run in report.runs.values() if run.deployment == name]
            failed = [run for run in report.failures if run.deployment == name]
            state = _BAD if failed else _GOOD if runs else _IDLE
            count = _count(len(runs), "run")
            note = f"{len(failed)} of {len(runs)} runs failed" if failed else count
            nodes[key] = _Node(name, "deployment", report.namespaces.get(name, ""), state, note)
        return nodes[key]

    def event(name: str) -> _Node:
        found = [space for space in report.namespaces.values() if name.startswith(f"{space}.")]
        namespace = max(found, key=len, default="")
        return nodes.setdefault(
            f"event {name}", _Node(name, "event", namespace, note="not published")
        )

    for name in report.namespaces:
        deployment(name)
    for sensor in report.sensors.values():
        for name in sensor.event_names:
            event(name).after.add(f"deployment {deployment(sensor.deployment).name}")
        if not sensor.subscribes:
            node = nodes[f"deployment {sensor.deployment}"]
            node.state, node.note = _BAD, "dead: hears nothing"
    counts: dict[str, int] = {}
    for publication in report.publications:
        name = str(publication.event.name)
        counts[name] = counts.get(name, 0) + 1
        node = event(name)
        is_bad = not publication.listeners or publication.lost or node.state == _BAD
        node.state = _BAD if is_bad else _GOOD
        node.note = (
            "published, nobody heard it"
            if not publication.listeners
            else (
                "published, and lost" if publication.lost else f"published {_times(counts[name])}"
            )
        )
        if publication.publisher in report.runs:
            deployment(report.runs[publication.publisher].deployment).after.add(f"event {name}")
    _place(nodes)
    return nodes


def _place(nodes: Mapping[str, _Node]) -> None:
    """Put each node to the right of what leads to it, and the namespaces below each other."""
    before: dict[str, list[str]] = {key: [] for key in nodes}
    for key, node in nodes.items():
        for after in node.after:
            before[after].append(key)
    for key in _order(before):
        # Events stand in the odd columns, also those that nobody published.
        first = int(nodes[key].kind == "event")
        nodes[key].column = max((nodes[each].column + 1 for each in before[key]), default=first)
    row = 0
    for namespace in _namespaces(nodes.values()):
        rows: dict[int, int] = {}
        for node in nodes.values():
            if node.namespace == namespace:
                node.row = row + rows.get(node.column, 0)
                rows[node.column] = rows.get(node.column, 0) + 1
        row += max(rows.values())


def _order(before: dict[str, list[str]]) -> list[str]:
    """Return the nodes with those first that lead to others; cycles are cut open."""
    while True:
        try:
            return list(TopologicalSorter(before).static_order())
        except CycleError as error:
            *_, last, first = error.args[1]
            before[first].remove(last)


def _namespaces(nodes: Iterable[_Node]) -> list[str]:
    return list(dict.fromkeys(node.namespace for node in nodes))


def _picture(nodes: Mapping[str, _Node], attributes: str = "", style: str = "") -> str:
    names = _namespaces(nodes.values())

    def left(node: _Node) -> int:
        return _MARGIN + node.column * _COLUMN

    def top(node: _Node) -> int:
        return _MARGIN + node.row * _ROW + (names.index(node.namespace) + 1) * _TITLE

    width = max(map(left, nodes.values()), default=0) + _WIDTH + _MARGIN
    height = max(map(top, nodes.values()), default=0) + _HEIGHT + _MARGIN
    parts = [
        f'<svg {attributes}role="img" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}">{style}'
    ]
    if not nodes:
        parts.append(f'<text class="note" x="{_MARGIN}" y="{_MARGIN}">Nothing was deployed.</text>')
    for name in names:
        tops = [top(node) for node in nodes.values() if node.namespace == name]
        above, below = min(tops) - _TITLE + 6, max(tops) + _HEIGHT + 6
        parts.append(
            f'<rect class="band" x="8" y="{above}" width="{width - 16}" height="{below - above}" '
            f'rx="8"/><text class="title" x="{_MARGIN}" y="{above + 17}">'
            f"{escape(name or 'no project')}</text>"
        )
    for node in nodes.values():
        for after in node.after:
            other = nodes[after]
            state = _IDLE if _IDLE in (node.state, other.state) else _GOOD
            if other.column > node.column:
                x, y = left(node) + _WIDTH, top(node) + _HEIGHT // 2
                to_x, to_y = left(other), top(other) + _HEIGHT // 2
                middle = (x + to_x) // 2
                curve = f"C{middle} {y} {middle} {to_y} {to_x} {to_y}"
                head = f"M{to_x - 6} {to_y - 4} L{to_x} {to_y} L{to_x - 6} {to_y + 4}"
            else:  # back to where a cycle begins, from below and to below
                x, y = left(node) + _WIDTH // 2, top(node) + _HEIGHT
                to_x, to_y = left(other) + _WIDTH // 2, top(other) + _HEIGHT
                lowest = max(y, to_y) + _ROW // 2
                curve = f"C{x} {lowest} {to_x} {lowest} {to_x} {to_y}"
                head = f"M{to_x - 4} {to_y + 6} L{to_x} {to_y} L{to_x + 4} {to_y + 6}"
            parts.append(
                f'<path class="edge {state}" d="M{x} {y} {curve}"/><path class="edge" d="{head}"/>'
            )
    for node in nodes.values():
        corner = _HEIGHT // 2 if node.kind == "event" else 6
        parts.append(
            f"<g><title>{escape(node.name)}</title>"
            f'<rect class="box {node.kind} {node.state}" x="{left(node)}" y="{top(node)}" '
            f'width="{_WIDTH}" height="{_HEIGHT}" rx="{corner}"/>'
            f'<text class="name" x="{left(node) + 16}" y="{top(node) + 20}">'
            f"{escape(_short(node))}</text>"
            f'<text class="note {node.state}" x="{left(node) + 16}" y="{top(node) + 37}">'
            f"{escape(node.note)}</text></g>"
        )
    return "".join([*parts, "</svg>"])


def _short(node: _Node) -> str:
    name = node.name.removeprefix(f"{node.namespace}.")
    return name if len(name) <= _CHARACTERS else f"{name[: _CHARACTERS - 1]}…"


def _count(number: int, what: str) -> str:
    return f"no {what}" if not number else f"{number} {what}" + "s" * (number > 1)


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    cells = [
        "".join(f'<td class="{_state(cell)}">{escape(cell)}</td>' for cell in row) for row in body
    ]
    return (
        '<div class="wide"><table><tr>'
        + "".join(f"<th>{escape(cell.capitalize())}</th>" for cell in head)
        + "".join(f"</tr><tr>{row}" for row in cells)
        + "</tr></table></div>"
    )


def _state(cell: str) -> str:
    if cell == "succeeded":
        return _GOOD
    return _BAD if cell in ("failed", "error", "stopped", "lost", "nobody") else ""
