"""The report: what came of a rehearsal, as tables or for machines."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from .cluster import Publication
from .page import as_page, as_picture
from .run import Run, unsupported
from .secret import Secrets
from .sensor import Sensor

NEAREST_NAME = 0.6


class Report:
    """What happened in a rehearsal."""

    def __init__(
        self,
        publications: Sequence[Publication],
        runs: Sequence[Run],
        sensors: Sequence[Sensor],
        templates: Sequence[Mapping[str, Any]],
        refusals: Sequence[str],
        secrets: Secrets,
    ) -> None:
        self.publications = publications
        self.runs = {run.name: run for run in runs}
        self.sensors = {sensor.name: sensor for sensor in sensors}
        self.templates = templates
        self.refusals = refusals
        self.unsupported = [
            f"{thing} of {template['metadata']['name']}"
            for template in templates
            for thing in unsupported(template, secrets)
        ]
        self.unsupported += [
            f"{thing} of {sensor.deployment}" for sensor in sensors for thing in sensor.unsupported
        ]

    @cached_property
    def orphans(self) -> list[Publication]:
        """The events that nobody heard."""
        return [each for each in self.publications if not each.listeners]

    @cached_property
    def dead(self) -> dict[str, Sensor]:
        """The sensors that never hear anything, by name."""
        return {name: each for name, each in self.sensors.items() if not each.subscribes}

    @cached_property
    def failures(self) -> list[Run]:
        """The runs that did not succeed, or did not end."""
        return [run for run in self.runs.values() if run.phase != "Succeeded"]

    @cached_property
    def problems(self) -> list[str]:
        """Everything that fails the rehearsal, a line each."""
        return [
            *(self._orphan(each) for each in self.orphans),
            *(
                f"Dead: {sensor.deployment} never hears {' and '.join(sensor.event_names)}: Argo "
                "Events takes a name only where it begins with a letter"
                for sensor in self.dead.values()
            ),
            *(
                f"Dropped: {publication.event.name} by {self._deployment(sensor)}, which {reason}"
                for publication in self.publications
                for sensor, reason in publication.dropped.items()
                if publication.listeners and sensor not in self.dead
            ),
            *(
                f"Waiting: {sensor.deployment} heard {' and '.join(heard)} and waits for {missing}"
                for sensor in self.sensors.values()
                if (heard := [str(event.name) for event in sensor.heard.values()])
                for missing in self._never_published(sensor)
            ),
            *(
                f"Lost: {publication.event.name} for {sensor}: {reason}"
                for publication in self.publications
                for sensor, reason in publication.lost.items()
            ),
            *(f"Refused: {refusal}" for refusal in self.refusals),
            *(
                f"{run.phase}: {run.name}" + (f": {run.problem}" if run.problem else "")
                for run in self.failures
            ),
        ]

    @cached_property
    def namespaces(self) -> dict[str, str]:
        """The deployments by name, and the namespace of each, "" for one without a project."""
        return {template["metadata"]["name"]: _namespace(template) for template in self.templates}

    def event_rows(self) -> list[tuple[str, ...]]:
        """Return the table of events, its head first."""
        rows: list[tuple[str, ...]] = [("EVENT", "PUBLISHED BY", "HEARD BY", "RUN")]
        for publication in self.publications:
            first = (str(publication.event.name), publication.publisher or "the command")
            heard = self._heard(publication) or [("nobody", "")]
            rows += [first + heard[0], *(("", "", *row) for row in heard[1:])]
        return rows

    def run_rows(self) -> list[tuple[str, ...]]:
        """Return the table of runs, its head first."""
        rows: list[tuple[str, ...]] = [("RUN", "PHASE", "SECONDS", "OUTPUT")]
        for run in self.runs.values():
            output = str(run.folder) if run.logs else ""
            rows.append((run.name, run.phase.lower(), f"{run.seconds:.1f}", output))
        return rows

    def as_text(self) -> str:
        """Return the tables of events and runs, then whatever went wrong."""
        events, runs = self.event_rows(), self.run_rows()
        paragraphs = [
            _table(events) if len(events) > 1 else ["No event was published."],
            _table(runs) if len(runs) > 1 else [],
            self.problems,
            [f"Not supported: {each}" for each in self.unsupported],
        ]
        return "\n\n".join("\n".join(lines) for lines in paragraphs if lines)

    def as_json(self) -> dict[str, Any]:
        """Return the same for machines."""
        return {
            "events": [
                {
                    "name": each.event.name,
                    "publisher": each.publisher,
                    "listeners": each.listeners,
                    "dropped": each.dropped,
                    "started": each.started,
                    "lost": each.lost,
                }
                for each in self.publications
            ],
            "runs": [
                {
                    "name": run.name,
                    "flow": run.annotation("flow_name"),
                    "project": run.annotation("project_name"),
                    "branch": run.annotation("branch_name"),
                    "phase": run.phase,
                    "seconds": round(run.seconds, 3),
                    "output": str(run.folder) if run.logs else None,
                }
                for run in self.runs.values()
            ],
            "problems": self.problems,
            "unsupported": self.unsupported,
        }

    def write(self, path: Path) -> None:
        """Write the report to a file: a page (.html), a picture (.svg), else for machines."""
        if path.suffix == ".html":
            text = as_page(self)
        elif path.suffix == ".svg":
            text = as_picture(self)
        else:
            text = json.dumps(self.as_json(), indent=2) + "\n"
        path.write_text(text, encoding="utf-8")

    def _heard(self, publication: Publication) -> list[tuple[str, str]]:
        runs = [self.runs[name] for name in publication.started if name in self.runs]
        heard = [(run.name, run.phase.lower()) for run in runs]
        started = {run.deployment for run in runs}
        for name in publication.listeners:
            sensor = self.sensors.get(name)
            if sensor and sensor.deployment not in started:
                heard.append((sensor.deployment, _waiting(sensor, publication)))
        heard += [
            (self._deployment(sensor), f"drops it: {reason}")
            for sensor, reason in publication.dropped.items()
            if publication.listeners
        ]
        return heard

    @cached_property
    def _published(self) -> set[str]:
        return {str(each.event.name) for each in self.publications}

    def _never_published(self, sensor: Sensor) -> Iterator[str]:
        """Return the events that a sensor waits for in vain, each with the nearest one."""
        for name in sensor.waiting_for:
            if name not in self._published:
                nearest = _nearest(name, self._published.difference(sensor.event_names))
                yield f"{name}, which nobody published" + (
                    f"; the nearest name that somebody published is {nearest}" if nearest else ""
                )

    def _deployment(self, sensor: str) -> str:
        return self.sensors[sensor].deployment if sensor in self.sensors else sensor

    def _orphan(self, publication: Publication) -> str:
        listened = {
            name: sensor.deployment
            for sensor in self.sensors.values()
            for name in sensor.event_names
        }
        name = str(publication.event.name)
        if publication.dropped:
            reasons = [
                f"{self._deployment(each)} {why}" for each, why in publication.dropped.items()
            ]
            return f"Orphan: nobody heard {name}; {', '.join(reasons)}"
        if name in listened:
            return f"Orphan: nobody heard {name}; its listener was deployed afterwards"
        if nearest := _nearest(name, listened):
            return (
                f"Orphan: nobody heard {name}; the nearest name that somebody listens to is "
                f"{nearest} ({listened[nearest]})"
            )
        if listened:
            return f"Orphan: nobody heard {name}; no name that somebody listens to is like it"
        return f"Orphan: nobody heard {name}; nobody listens at all"


def _namespace(template: Mapping[str, Any]) -> str:
    annotations = template["metadata"]["annotations"]
    parts = (annotations.get(f"metaflow/{part}_name") for part in ("project", "branch"))
    return ".".join(filter(None, parts))


def _nearest(name: str, names: Iterable[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=NEAREST_NAME)), None)


def _waiting(sensor: Sensor, publication: Publication) -> str:
    """Return why a sensor that heard an event has started nothing for it."""
    if sensor.name in publication.lost:
        return "lost"
    if not any(event is publication.event for event in sensor.heard.values()):
        return "replaced by a later one"
    return f"waits for {' and '.join(sensor.waiting_for)}"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
