"""`python -m rehearsal` with real flows, from the outside."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import textwrap
import threading
from pathlib import Path
from xml.etree import ElementTree

import pyte
import pytest
from conftest import ROOT, SECONDS_FOR_A_COMMAND, Rehearsal, has_traceback, rehearse

import namespaced_trigger

PUBLISHER = """
from metaflow import FlowSpec, project, step
from namespaced_trigger import namespaced_trigger

@project(name="foo")
class UpFlow(FlowSpec):
    @step
    def start(self):
        {publish}
        self.next(self.end)
    @step
    def end(self):
        pass

if __name__ == "__main__":
    UpFlow()
"""
LISTENER = """
from metaflow import Config, FlowSpec, Parameter, current, project, step, trigger
from namespaced_trigger import namespaced_trigger

@namespaced_trigger({events})
@project(name="foo")
class DownFlow(FlowSpec):
    project = Config("project", default_value={{"branch": "bar"}})
    {parameters}
    @step
    def start(self):
        {body}
        self.next(self.end)
    @step
    def end(self):
        pass

if __name__ == "__main__":
    DownFlow()
"""
CREATE_AND_TRIGGER = """
set -e
python down.py argo-workflows create
python up.py --branch bar argo-workflows create
python up.py --branch bar argo-workflows trigger
"""


DEPLOY_OTHER = "python other.py argo-workflows create\n"


def write_flows(
    folder: Path,
    publish: str = 'namespaced_trigger.raise_event("food", safe_publish=True)',
    events: str = 'event="food"',
    parameters: str = "",
    body: str = "print('by', current.trigger.event.name)",
) -> None:
    (folder / "up.py").write_text(PUBLISHER.format(publish=publish))
    listener = LISTENER.format(events=events, parameters=parameters, body=body)
    (folder / "down.py").write_text(listener)


def write_other_listener(folder: Path, event: str) -> None:
    other = LISTENER.format(events=f"event={event!r}", parameters="", body="pass")
    (folder / "other.py").write_text(other.replace("DownFlow", "OtherFlow"))


def test_an_event_starts_the_listener_of_its_own_namespace_only(tmp_path: Path) -> None:
    write_flows(tmp_path)
    other = (
        """python down.py --config-value project '{"branch": "other"}' argo-workflows create\n"""
    )
    rehearsal = rehearse(tmp_path, other + CREATE_AND_TRIGGER)
    assert rehearsal.status == 0, rehearsal.output
    (event,) = rehearsal.report["events"]
    assert event["name"] == "foo.test.bar.food"
    assert event["listeners"] == ["foo-test-bar-downflow"]
    (started,) = event["started"]
    assert started.startswith("foo.test.bar.downflow-")
    for line in (
        "[rehearsal] deployed  foo.test.bar.upflow\n",
        "[rehearsal] listens   foo.test.bar.downflow to foo.test.bar.food\n",
        f"[rehearsal] triggered {event['publisher']}\n",
        f"[rehearsal] published foo.test.bar.food by {event['publisher']}\n",
        f"[rehearsal] started   {started} by foo.test.bar.food\n",
        f"[rehearsal] succeeded {started} after ",
    ):
        assert line in rehearsal.output
    (row,) = rehearsal.table[1:]
    assert row.split() == ["foo.test.bar.food", event["publisher"], started, "succeeded"]


def test_a_run_has_the_package_the_config_and_the_variables_of_its_pod(tmp_path: Path) -> None:
    body = "; ".join(
        [
            "import os, namespaced_trigger as module",
            "print('saw', current.branch_name, current.trigger.event.name, self.count + 1)",
            "print('text', self.text)",
            "print('package', os.path.relpath(module.__file__))",
            "print('owner', os.environ['METAFLOW_OWNER'], os.environ['METAFLOW_USER'])",
            "raise SystemExit('shown')",
        ]
    )
    parameters = (
        "count = Parameter('count', default=1); text = Parameter('text', default='a \"b\"')"
    )
    publish = 'namespaced_trigger.raise_event("food", {"count": 41}, safe_publish=True)'
    write_flows(tmp_path, publish, parameters=parameters, body=body)
    shutil.copy(namespaced_trigger.__file__, tmp_path / "namespaced_trigger.py")
    rehearsal = rehearse(tmp_path, CREATE_AND_TRIGGER, METAFLOW_USER="alice")
    assert "saw test.bar foo.test.bar.food 42" in rehearsal.output
    assert 'text a "b"' in rehearsal.output
    assert "package namespaced_trigger.py" in rehearsal.output
    assert "owner alice argo-workflows" in rehearsal.output


def test_a_failed_run_is_shown_and_fails_the_rehearsal(tmp_path: Path) -> None:
    write_flows(tmp_path, body="raise ValueError('spoiled')")
    rehearsal = rehearse(tmp_path, CREATE_AND_TRIGGER)
    assert rehearsal.status == 1
    assert "ValueError: spoiled" in rehearsal.output
    (failed,) = rehearsal.report["events"][0]["started"]
    assert f"Failed: {failed}\n" in rehearsal.output


def test_an_event_that_nobody_heard_fails_and_names_the_nearest_listener(tmp_path: Path) -> None:
    write_flows(tmp_path, events='event="foods"')
    rehearsal = rehearse(tmp_path, CREATE_AND_TRIGGER)
    assert rehearsal.status == 1
    assert (
        "Orphan: nobody heard foo.test.bar.food; the nearest name that somebody listens to is "
        "foo.test.bar.foods (foo.test.bar.downflow)\n"
    ) in rehearsal.output
    assert rehearsal.table[1].split()[-1] == "nobody"


def test_a_listener_that_argo_leaves_dead_hears_nothing(tmp_path: Path) -> None:
    (tmp_path / "down.py").write_text(
        LISTENER.format(events='event="food"', parameters="", body="pass")
        .replace("@namespaced_trigger(", "@trigger(")
        .replace('"food"', '"2fast"')
    )
    (tmp_path / "publish.py").write_text(
        "from metaflow.integrations import ArgoEvent\nArgoEvent('2fast').publish()\n"
    )
    script = "python down.py argo-workflows create && python publish.py"
    rehearsal = rehearse(tmp_path, script, METAFLOW_USER="jane")
    assert rehearsal.status == 1
    assert (
        "Orphan: nobody heard 2fast; foo.user.jane.downflow is dead\n"
        "Dead: foo.user.jane.downflow never hears 2fast: Argo Events takes a name only where it "
        "begins with a letter\n"
    ) in rehearsal.output
    assert "[rehearsal] dead      foo.user.jane.downflow to 2fast\n" in rehearsal.output


def test_an_event_from_before_a_deployment_is_not_heard(tmp_path: Path) -> None:
    write_flows(tmp_path)
    (tmp_path / "publish.py").write_text(
        "from metaflow.integrations import ArgoEvent\nArgoEvent('foo.test.bar.food').publish()\n"
    )
    rehearsal = rehearse(tmp_path, "python publish.py; python down.py argo-workflows create")
    assert rehearsal.status == 1
    assert "nobody heard foo.test.bar.food; its listener was deployed afterwards" in (
        rehearsal.output
    )


def test_an_event_that_one_of_two_listeners_drops_says_why(tmp_path: Path) -> None:
    parameters = "size = Parameter('size', required=True)"
    write_flows(tmp_path, events='event="food"', parameters=parameters)
    write_other_listener(tmp_path, "food")
    rehearsal = rehearse(tmp_path, DEPLOY_OTHER + CREATE_AND_TRIGGER)
    assert rehearsal.status == 1
    assert rehearsal.report["problems"] == [
        "Dropped: foo.test.bar.food by foo.test.bar.downflow, which asks that size is there"
    ]
    assert rehearsal.table[2].split(None, 1) == [
        "foo.test.bar.downflow",
        "drops it: asks that size is there",
    ]
    assert rehearsal.report["events"][0]["dropped"] == {
        "foo-test-bar-downflow": "asks that size is there"
    }


def test_an_automatic_event_that_its_listener_drops_is_an_orphan(tmp_path: Path) -> None:
    payload = '{"auto-generated-by-metaflow": True}'  # Metaflow 2.19.10 publishes no text here
    publish = f"""
        from metaflow.integrations import ArgoEvent
        ArgoEvent("metaflow.foo.test.bar.UpFlow.end").safe_publish(payload={payload})
    """
    write_flows(tmp_path, textwrap.dedent(publish).strip().replace("\n", "\n        "))
    down = (tmp_path / "down.py").read_text()
    for old, new in (
        ('namespaced_trigger(event="food")', 'trigger_on_finish(flow="Other")'),
        ("step, trigger", "step, trigger_on_finish"),
    ):
        assert old in down
        down = down.replace(old, new)
    (tmp_path / "down.py").write_text(down)
    up = (tmp_path / "up.py").read_text().replace("UpFlow.end", "Other.end")
    (tmp_path / "up.py").write_text(up)
    rehearsal = rehearse(tmp_path, CREATE_AND_TRIGGER.replace("down.py", "down.py --branch bar"))
    assert rehearsal.status == 1
    assert (
        "Orphan: nobody heard metaflow.foo.test.bar.Other.end; foo.test.bar.downflow asks that "
        "auto-generated-by-metaflow == 'True'"
    ) in rehearsal.output


def test_a_listener_of_two_events_waits_for_both(tmp_path: Path) -> None:
    publish = "; ".join(f"namespaced_trigger.raise_event({name!r})" for name in ("food", "drink"))
    events = 'events=["food", "drink"]'
    write_flows(tmp_path, f"{publish}; {publish.partition('; ')[0]}", events=events, body="pass")
    rehearsal = rehearse(tmp_path, CREATE_AND_TRIGGER)
    assert rehearsal.status == 0, rehearsal.output
    assert len(rehearsal.report["runs"]) == 2
    assert rehearsal.table[3].endswith("  waits for foo.test.bar.drink")


@pytest.mark.parametrize(
    ("published", "nearest"),
    [
        (["food"], ""),
        (["food", "drinks"], "; the nearest name that somebody published is foo.test.bar.drinks"),
    ],
)
def test_a_listener_that_waits_for_an_event_that_nobody_published_fails_the_rehearsal(
    tmp_path: Path, published: list[str], nearest: str
) -> None:
    publish = "; ".join(f"namespaced_trigger.raise_event({name!r})" for name in published)
    write_flows(tmp_path, publish, events='events=["food", "drink"]')
    write_other_listener(tmp_path, "drinks")
    rehearsal = rehearse(tmp_path, DEPLOY_OTHER + CREATE_AND_TRIGGER)
    assert rehearsal.status == 1
    assert rehearsal.report["problems"] == [
        "Waiting: foo.test.bar.downflow heard foo.test.bar.food and waits for foo.test.bar.drink, "
        f"which nobody published{nearest}"
    ]


@pytest.mark.parametrize(("script", "status"), [("exit 7", 7), ("true", 0), ("kill -9 $$", 137)])
def test_the_status_of_the_command_is_the_status_of_the_rehearsal(
    tmp_path: Path, script: str, status: int
) -> None:
    rehearsal = rehearse(tmp_path, script)
    assert rehearsal.status == status
    assert "No event was published." in rehearsal.output


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["no-such-command"], 127, "rehearsal: 'no-such-command' cannot be run: No such file"),
        (["/"], 126, "rehearsal: '/' cannot be run: Permission denied"),
        ([], 2, "there is no COMMAND. Write, for example: python -m rehearsal bash deploy.sh"),
        (["--report", "/no/such.json", "true"], 2, "the folder of --report /no/such.json is not"),
        (["--timeout", "0", "true"], 2, "invalid positive number value: '0'"),
        (["--webhook-status", "200", "true"], 2, "200 is not an HTTP status from 400 to 599"),
        (["--webhook-status", "foo", "true"], 2, "foo is not an HTTP status from 400 to 599"),
        (["--report", "tests", "true"], 2, "--report tests is a folder. Write the name of a file"),
        (["--logs", "pyproject.toml", "true"], 2, "--logs pyproject.toml is a file. Write the"),
        (["--", "pyproject.toml"], 127, "No such file or directory. Write what runs it: python "),
    ],
)
def test_a_command_line_that_cannot_work_is_refused(
    arguments: list[str], status: int, message: str
) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "rehearsal", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert process.returncode == status
    assert message in process.stderr
    assert not has_traceback(process.stderr)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ("{'a': 'x' * 1100000}", "bytes, and at most 1048576 pass"),
    ],
)
def test_an_event_that_the_webhook_refuses_fails_the_rehearsal(
    tmp_path: Path, payload: str, reason: str
) -> None:
    write_flows(
        tmp_path,
        publish=f'namespaced_trigger.raise_event("food", {payload}, safe_publish=True)',
        parameters="count = Parameter('count', default=1)",
    )
    rehearsal = rehearse(tmp_path, CREATE_AND_TRIGGER)
    assert rehearsal.status == 1
    assert "Refused: an event by foo.test.bar.upflow-" in rehearsal.output
    assert reason in rehearsal.output
    assert not has_traceback(rehearsal.output)


def test_a_listener_whose_values_are_not_known_fails_the_rehearsal_and_the_others_hear(
    tmp_path: Path,
) -> None:
    event = "__import__('metaflow.integrations').integrations.ArgoEvent('foo.test.bar.food')"
    publish = f'print("id", {event}.publish({{"count": 10 ** 400}}))'
    write_flows(tmp_path, publish, parameters="count = Parameter('count', default=1)")
    other = (tmp_path / "down.py").read_text().replace("DownFlow", "OtherFlow")
    (tmp_path / "other.py").write_text(other.replace("count = ", "other = ").replace("'c", "'o"))
    rehearsal = rehearse(tmp_path, DEPLOY_OTHER + CREATE_AND_TRIGGER)
    assert rehearsal.status == 1
    assert (
        "Lost: foo.test.bar.food for foo-test-bar-downflow: the rehearsal cannot act out a number "
        "that does not fit a 64-bit float\n"
    ) in rehearsal.output
    (event,) = rehearsal.report["events"]
    assert event["listeners"] == ["foo-test-bar-otherflow", "foo-test-bar-downflow"]
    assert [name.partition("-")[0] for name in event["started"]] == ["foo.test.bar.otherflow"]
    assert "Orphan" not in rehearsal.output


def test_a_project_named_metaflow_has_orphans_too(tmp_path: Path) -> None:
    write_flows(tmp_path, events='event="foods"')
    for flow in (tmp_path / "up.py", tmp_path / "down.py"):
        flow.write_text(flow.read_text().replace('name="foo"', 'name="metaflow"'))
    rehearsal = rehearse(tmp_path, CREATE_AND_TRIGGER)
    assert rehearsal.status == 1
    assert "Orphan: nobody heard metaflow.test.bar.food; the nearest" in rehearsal.output


def test_a_change_of_a_run_that_the_rehearsal_cannot_act_out_is_refused(tmp_path: Path) -> None:
    write_flows(tmp_path, publish="__import__('time').sleep(1)")
    (tmp_path / "suspend.py").write_text(
        "from metaflow import Deployer\n"
        "import os\n"
        "run = Deployer('up.py').argo_workflows().create().trigger()\n"
        "os.execlp('python', 'python', 'up.py', 'argo-workflows', 'suspend', run.pathspec[7:])\n"
    )
    rehearsal = rehearse(tmp_path, "python suspend.py")
    assert rehearsal.status == 1
    assert "the rehearsal cannot act out a change of a Workflow (foo.user." in rehearsal.output
    assert [run["phase"] for run in rehearsal.report["runs"]] == ["Succeeded"]


def test_a_rehearsal_goes_on_when_nobody_reads_its_output(tmp_path: Path) -> None:
    write_flows(tmp_path)
    report = tmp_path / "report.json"
    script = f"exec > /dev/null 2>&1\n{CREATE_AND_TRIGGER}"
    with subprocess.Popen(
        [sys.executable, "-m", "rehearsal", "--report", report, "bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT), "TMPDIR": os.fspath(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("[rehearsal] deployed")
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(SECONDS_FOR_A_COMMAND) == 0
    runs = json.loads(report.read_text())["runs"]
    assert [run["phase"] for run in runs] == ["Succeeded"] * 2


def test_a_run_that_cannot_be_started_is_an_error_and_the_others_go_on(tmp_path: Path) -> None:
    publish = "namespaced_trigger.raise_event('food', {'text': '\\0'}, safe_publish=True)"
    write_flows(tmp_path, publish, parameters="text = Parameter('text', default='')")
    rehearsal = rehearse(tmp_path, CREATE_AND_TRIGGER)
    phases = sorted(run["phase"] for run in rehearsal.report["runs"])
    assert phases[1] == "Succeeded", rehearsal.output


def test_the_user_s_own_settings_are_neither_used_nor_changed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".metaflowconfig").mkdir(parents=True)
    settings = home / ".metaflowconfig" / "config.json"
    settings.write_text('{"METAFLOW_DEFAULT_DATASTORE": "azure", "METAFLOW_USER": "eve"}')
    flows, temporary = tmp_path / "flows", tmp_path / "tmp"
    flows.mkdir()
    temporary.mkdir()
    write_flows(flows)
    before = sorted(home.rglob("*"))
    rehearsal = rehearse(
        flows,
        CREATE_AND_TRIGGER,
        HOME=os.fspath(home),
        TMPDIR=os.fspath(temporary),
        METAFLOW_PROFILE="production",
        METAFLOW_DEFAULT_METADATA="service",
        METAFLOW_SERVICE_URL="http://127.0.0.1:9",
        KUBECONFIG="/nowhere",
        AWS_PROFILE="production",
        http_proxy="http://127.0.0.1:9",
    )
    assert rehearsal.status == 0, rehearsal.output
    assert sorted(home.rglob("*")) == before
    assert sorted(path.name for path in flows.iterdir()) == ["down.py", "report.json", "up.py"]
    (logs,) = temporary.iterdir()  # what the runs printed stays; the report says where
    assert sorted(path.name for path in logs.iterdir()) == ["run-1.txt", "run-2.txt"]


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name
)
def test_an_interrupted_rehearsal_stops_what_it_started(tmp_path: Path, number: int) -> None:
    marker = tmp_path / "pid"
    publish = f"open({str(marker)!r}, 'w').write(str(__import__('os').getpid()))"
    (tmp_path / "up.py").write_text(
        PUBLISHER.format(publish=publish + "; __import__('time').sleep(600)")
    )
    script = textwrap.dedent(
        f"""
        python up.py argo-workflows create
        python up.py argo-workflows trigger
        for try in $(seq 600); do [ -s {marker} ] && break; sleep 0.1; done
        sleep 600 &
        echo child $!
        echo ready
        wait
        """
    )
    with (
        tempfile.TemporaryDirectory() as temporary,
        subprocess.Popen(
            [sys.executable, "-m", "rehearsal", "bash", "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.fspath(ROOT), "TMPDIR": temporary},
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        lines = list(itertools.takewhile("ready\n".__ne__, process.stdout))
        try:
            assert marker.exists(), lines
            process.send_signal(number)
            output = process.stdout.read()
            assert process.wait(30) == 128 + number
        finally:
            process.kill()
        assert "No event was published." in output
        assert not Path(f"/proc/{marker.read_text()}").exists()
        assert not Path(f"/proc/{lines[-1].split()[1]}").exists()
        (logs,) = Path(temporary).iterdir()
        assert f"{logs}/run-1.txt" in output


def test_what_a_run_prints_is_kept_in_a_file_that_the_report_names(tmp_path: Path) -> None:
    write_flows(tmp_path)
    rehearsal = rehearse(tmp_path, CREATE_AND_TRIGGER, "--logs", "logs/new")
    assert rehearsal.status == 0, rehearsal.output
    outputs = {run["flow"]: tmp_path / run["output"] for run in rehearsal.report["runs"]}
    assert "by foo.test.bar.food" in outputs["DownFlow"].read_text()
    (shown,) = (line for line in rehearsal.output.splitlines() if line.endswith("new/run-2.txt"))
    assert shown.split()[1] == "succeeded"


def test_a_cycle_is_stopped_with_a_message(tmp_path: Path) -> None:
    again = "namespaced_trigger.raise_event('food', safe_publish=True)"
    write_flows(tmp_path, body=again)
    page = tmp_path / "report.html"
    rehearsal = rehearse(tmp_path, CREATE_AND_TRIGGER, "--cycle", "2", "--report", str(page))
    assert rehearsal.status == 1
    assert "1 of 3 runs failed" in page.read_text()
    phases = [(run["flow"], run["phase"]) for run in rehearsal.report["runs"]]
    assert phases == [
        ("UpFlow", "Succeeded"),
        ("DownFlow", "Succeeded"),
        ("DownFlow", "Succeeded"),
        ("DownFlow", "Stopped"),
    ]
    assert (
        "foo.test.bar.downflow has started itself 2 times by the events that it causes (--cycle)\n"
    ) in rehearsal.output


def test_a_command_that_hangs_is_stopped_after_the_timeout(tmp_path: Path) -> None:
    rehearsal = rehearse(tmp_path, "sleep 600 & echo child $!; wait", "--timeout", "1")
    assert rehearsal.status == 124
    assert "rehearsal: 'bash' has not ended after 1 s; all that it started is stopped\n" in (
        rehearsal.output
    )
    (child,) = (line for line in rehearsal.output.splitlines() if line.startswith("child "))
    assert not Path(f"/proc/{child.split()[1]}").exists()


def test_a_run_that_never_ends_is_stopped_after_the_timeout(tmp_path: Path) -> None:
    write_flows(tmp_path, publish="print('begun', flush=True); __import__('time').sleep(600)")
    script = "python up.py argo-workflows create && python up.py argo-workflows trigger"
    rehearsal = rehearse(tmp_path, script, "--timeout", "30")
    assert rehearsal.status == 124
    assert "rehearsal: not all runs have ended after 30 s" in rehearsal.output
    (run,) = rehearsal.report["runs"]
    assert run["phase"] == "Stopped"
    assert "begun" in Path(run["output"]).read_text()


def test_a_webhook_that_fails_on_purpose_shows_what_the_flows_do(tmp_path: Path) -> None:
    write_flows(tmp_path)
    rehearsal = rehearse(tmp_path, CREATE_AND_TRIGGER, "--webhook-status", "500")
    assert rehearsal.status == 1
    (run,) = rehearsal.report["runs"]
    assert (run["phase"], rehearsal.report["events"]) == ("Succeeded", [])
    refusal = f"foo.test.bar.food by {run['name']}: the webhook answered 500, on purpose"
    assert rehearsal.report["problems"] == [f"Refused: {refusal}"]
    assert f"[rehearsal] refused   {refusal}\n" in rehearsal.output
    assert "HTTP Error 500" in Path(run["output"]).read_text()


def test_a_workflow_that_cannot_be_created_loses_its_event(tmp_path: Path) -> None:
    write_flows(tmp_path)
    script = CREATE_AND_TRIGGER + "python up.py --branch bar argo-workflows trigger\n"
    rehearsal = rehearse(tmp_path, script, "--fail-create", "1")
    assert rehearsal.status == 1
    assert len(rehearsal.report["runs"]) == 3
    lost = "the Workflow could not be created, on purpose"
    assert f"Lost: foo.test.bar.food for foo-test-bar-downflow: {lost}\n" in rehearsal.output
    assert [event["lost"] for event in rehearsal.report["events"]] == [
        {"foo-test-bar-downflow": lost},
        {},
    ]
    assert rehearsal.table[1].split()[2:] == ["foo.test.bar.downflow", "lost"]


CLUSTER_FLOW = """
from metaflow import FlowSpec, kubernetes, schedule, step

@schedule(daily=True)
class ClusterFlow(FlowSpec):
    @kubernetes(image="my/image:1", secrets=["token"], gpu=1)
    @step
    def start(self):
        print("ran here")
        self.next(self.end)
    @step
    def end(self):
        pass

if __name__ == "__main__":
    ClusterFlow()
"""


def test_what_only_a_cluster_can_do_is_named(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(CLUSTER_FLOW)
    create = "python flow.py argo-workflows create"
    notify = "--notify-on-error --notify-slack-webhook-url http://127.0.0.1:9"
    rehearsal = rehearse(tmp_path, f"{create} {notify} && python flow.py argo-workflows trigger")
    assert rehearsal.status == 0, rehearsal.output
    assert "ran here" in Path(rehearsal.report["runs"][0]["output"]).read_text()
    named = rehearsal.report["not_acted_out"]
    for thing in (
        "the schedule '0 0 * * ?' of clusterflow",
        "the image 'my/image:1' of start of clusterflow",
        "the secret 'token' of start of clusterflow",
        "the resource 'nvidia.com/gpu' of start of clusterflow",
    ):
        assert thing in named
        assert f"Not acted out: {thing}\n" in rehearsal.output
    assert any("the hook 'notify" in thing for thing in named), named


def test_the_report_as_a_page_shows_who_starts_whom_and_needs_nothing_else(tmp_path: Path) -> None:
    write_flows(tmp_path)
    (tmp_path / "publish.py").write_text(
        "from metaflow.integrations import ArgoEvent\nArgoEvent('<b>orphan').publish()\n"
    )
    script = CREATE_AND_TRIGGER + "python publish.py\n"
    reports = ("--report", "report.html", "--report", "report.svg")
    rehearsal = rehearse(tmp_path, script, *reports)
    assert rehearsal.status == 1, rehearsal.output
    page = (tmp_path / "report.html").read_text()
    picture = ElementTree.fromstring(
        page[page.index("<svg") : page.index("</svg>") + len("</svg>")]
    )
    boxes = {
        group[0].text: (group[1].get("class"), *(text.text for text in group[2:]))
        for group in picture.iter("g")
    }
    assert boxes == {
        "foo.test.bar.upflow": ("box deployment good", "upflow", "1 run"),
        "foo.test.bar.food": ("box event good", "food", "published once"),
        "foo.test.bar.downflow": ("box deployment good", "downflow", "1 run"),
        "<b>orphan": ("box event bad", "<b>orphan", "published, nobody heard it"),
    }
    assert "<li>Orphan: nobody heard &lt;b&gt;orphan" in page
    assert not re.search(r"<script|<link|src=|https?:", page)

    alone = ElementTree.fromstring((tmp_path / "report.svg").read_text())
    groups = alone.iter("{http://www.w3.org/2000/svg}g")
    assert {group[0].text for group in groups} == set(boxes)


def test_the_picture_of_nothing_says_so(tmp_path: Path) -> None:
    rehearsal = rehearse(tmp_path, "true", "--report", "report.svg")
    assert rehearsal.status == 0, rehearsal.output
    assert "Nothing was deployed." in (tmp_path / "report.svg").read_text()


def test_two_rehearsals_at_once_do_not_meet(tmp_path: Path) -> None:
    rehearsals: dict[str, Rehearsal] = {}

    def run(name: str) -> None:
        folder = tmp_path / name
        folder.mkdir()
        write_flows(folder, publish=f'namespaced_trigger.raise_event("food", {{"a": "{name}"}})')
        rehearsals[name] = rehearse(folder, CREATE_AND_TRIGGER)

    threads = [threading.Thread(target=run, args=(name,)) for name in ("first", "second")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rehearsal in rehearsals.values():
        assert rehearsal.status == 0, rehearsal.output
        assert len(rehearsal.report["runs"]) == 2
        assert len(rehearsal.report["events"]) == 1


@pytest.mark.parametrize(("kilobytes", "message"), [(0, "rehearsal: [Errno "), (4, "too large")])
def test_a_full_disk_ends_the_rehearsal_with_a_message(
    tmp_path: Path, kilobytes: int, message: str
) -> None:
    write_flows(tmp_path)
    script = f'ulimit -f {kilobytes}; exec "$0" -m rehearsal bash -c "$1"'
    process = subprocess.run(
        ["bash", "-c", script, sys.executable, CREATE_AND_TRIGGER],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT), "TMPDIR": os.fspath(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS_FOR_A_COMMAND,
    )
    assert process.returncode == 1
    assert message in process.stdout
    assert "rehearsal/__main__.py" not in process.stdout  # in a traceback of its own
    left = [path.name for path in tmp_path.iterdir() if not path.name.startswith("rehearsal-logs-")]
    assert sorted(left) == ["down.py", "up.py"]


def test_a_terminal_shows_a_line_for_each_run_that_has_not_ended(tmp_path: Path) -> None:
    write_flows(tmp_path, publish="__import__('time').sleep(2)")
    script = "python up.py argo-workflows create; python up.py argo-workflows trigger; echo end"
    reading, writing = os.openpty()
    size = struct.pack("HHHH", 40, 120, 0, 0)
    fcntl.ioctl(writing, termios.TIOCSWINSZ, size)
    with subprocess.Popen(
        [sys.executable, "-m", "rehearsal", "bash", "-c", script],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.fspath(ROOT),
            "TMPDIR": os.fspath(tmp_path),
            "TERM": "xterm",
        },
        stdin=subprocess.DEVNULL,
        stdout=writing,
    ) as process:
        os.close(writing)
        screen = pyte.Screen(120, 40)
        stream = pyte.ByteStream(screen)
        seen: set[str] = set()
        with contextlib.suppress(OSError):  # what Linux says at the end
            while chunk := os.read(reading, 65536):
                stream.feed(chunk)
                seen.update(line.split()[0] for line in screen.display if " s  foo." in line)
        os.close(reading)
        assert process.wait() == 0
    shown = [line.rstrip() for line in screen.display]
    assert "running" in seen
    assert "end" in shown  # what the command has printed
    assert not any(" s  foo." in line for line in shown), shown
    assert sum("succeeded foo." in line for line in shown) == 1
