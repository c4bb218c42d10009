"""The steps of a flow in the pods of a rehearsal, from the outside."""

from __future__ import annotations

import hashlib
import re
import subprocess
import textwrap
from pathlib import Path

from conftest import Rehearse, Workbench

from rehearsal.pod import add_programs

TRIGGER = (
    "set -e; python DemoFlow.py argo-workflows create; python DemoFlow.py argo-workflows trigger"
)


def printed(rehearse: Rehearse, run: dict[str, str]) -> str:
    folder = rehearse.folder / run["output"]
    return "".join(path.read_text() for path in sorted(folder.iterdir()))


ISOLATED = """
@environment(vars={"ONLY": "in start"})
@step
def start(self):
    import os, pathlib, tempfile
    self.own = os.getcwd(), os.environ["HOME"], tempfile.gettempdir()
    pathlib.Path("left.txt").write_text(os.environ["ONLY"])
    pathlib.Path(tempfile.gettempdir(), "left.txt").write_text("too")
    print("package", os.path.relpath(__import__("namespaced_trigger").__file__))
    print("who", os.environ["METAFLOW_OWNER"], os.environ["METAFLOW_USER"], current.run_id)
    self.next(self.end)

@step
def end(self):
    import os, pathlib, tempfile
    own = os.getcwd(), os.environ["HOME"], tempfile.gettempdir()
    print("apart", not set(own) & set(self.own), "ONLY" in os.environ)
    print("left", *[pathlib.Path(each, "left.txt").exists() for each in (own[0], own[2])])
    print(os.environ["OF_THE_LAPTOP"])
"""


def test_a_step_has_a_pod_of_its_own_and_nothing_of_the_laptop(
    bench: Workbench, rehearse: Rehearse
) -> None:
    bench.flow(above="", steps=ISOLATED)
    rehearsal = rehearse(TRIGGER, OF_THE_LAPTOP="1", METAFLOW_USER="jane")
    assert rehearsal.status == 1
    (run,) = rehearsal.report["runs"]
    text = printed(rehearse, run)
    assert "package .mf_code/namespaced_trigger.py\n" in text
    assert f"who jane argo-workflows argo-{run['name']}\n" in text
    assert "apart True False\n" in text
    assert "left False False\n" in text
    assert f"[{run['name']}/end-0] KeyError: 'OF_THE_LAPTOP'\n" in rehearsal.output


STORED = """
import boto3, os
big = os.urandom(20 * 1024 * 1024)
with S3(run=self) as s3:
    s3.put_many([(f"many/{number}", f"value {number}") for number in range(20)])
    root = s3.put("big", big)[: -len("/big")]
    print("big", s3.get("big").blob == big, s3.info("big").size)
    print("many", *[each.text for each in s3.get_many(["many/0", "many/19"])])
    print("lists", len(s3.list_paths()), len(s3.list_recursive()), len(s3.get_all()))
    print("missing", s3.get("none", return_missing=True).exists)
with S3(s3root=root) as s3:
    s3.put_many([S3PutObject("told", value="x", metadata={"who_am": "i"}, content_type="a/b")])
    told = s3.get("told")
    print("told", told.metadata, told.content_type)
    print("range", s3.get(S3GetObject("big", 5, 10)).blob == big[5:15])
bucket, _, prefix = root.removeprefix("s3://").partition("/")
client = boto3.client("s3")
print("boto3", client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/many/")["KeyCount"])
client.delete_object(Bucket=bucket, Key=f"{prefix}/told")
with S3(s3root=root) as s3:
    print("deleted", not s3.get("told", return_missing=True).exists)
self.big = big
"""


def test_s3_holds_what_metaflow_and_boto3_do_with_it(bench: Workbench, rehearse: Rehearse) -> None:
    bench.flow(above="", start=STORED, end="print('artifact', len(self.big))")
    rehearsal = rehearse(TRIGGER)
    assert rehearsal.status == 0, rehearsal.output
    (run,) = rehearsal.report["runs"]
    text = printed(rehearse, run)
    for line in (
        "big True 20971520",
        "many value 0 value 19",
        "lists 2 21 21",
        "missing False",
        "told {'who_am': 'i'} a/b",
        "range True",
        "boto3 20",
        "deleted True",
        "artifact 20971520",
    ):
        assert f"\n{line}\n" in text, text


DEPLOYER = """
import time
from metaflow import Deployer
from metaflow.cards import get_cards

deployed = Deployer("DemoFlow.py").argo_workflows().create()
first = deployed.trigger(seconds=0)
first.wait_for_completion()
print("ended", first.status, first.run.pathspec, first.run.successful)
print("stdout", "said hello" in first.run["start"].task.stdout)
print("cards", len(get_cards(first.run["start"].task)))

second = deployed.trigger(seconds=600)
while second.run is None or "start" not in [each.id for each in second.run]:
    time.sleep(0.1)
print("suspended", second.suspend(), second.is_running)
print("resumed", second.unsuspend())
print("terminated", second.terminate())
second.wait_for_completion()
print("then", second.status)
"""
DEPLOYED = """
@card(type="blank")
@step
def start(self):
    print("said hello", flush=True)
    __import__("time").sleep(self.seconds)
    self.next(self.end)

@step
def end(self):
    pass
"""


def test_a_deployer_sees_suspends_and_terminates_its_runs(
    bench: Workbench, rehearse: Rehearse
) -> None:
    bench.flow(above="", body='seconds = Parameter("seconds", default=0)', steps=DEPLOYED)
    (bench.folder / "deploy.py").write_text(DEPLOYER)
    rehearsal = rehearse("python deploy.py")
    assert rehearsal.status == 1  # the second run failed
    first, second = (run["name"] for run in rehearsal.report["runs"])
    for line in (
        f"ended Succeeded DemoFlow/argo-{first} True",
        "stdout True",
        "cards 1",
        "suspended True True",
        "resumed True",
        "terminated True",
        "then Failed",
    ):
        assert f"\n{line}\n" in rehearsal.output, rehearsal.output
    assert rehearsal.report["problems"] == [f"Failed: {second}"]


def test_a_workflow_is_ended_at_its_timeout_and_exit_hooks_run_after_a_failure(
    bench: Workbench, rehearse: Rehearse
) -> None:
    hook = "def on_error(run):\n    print('hook of', run.pathspec)\n\n"
    above = f"{hook}\n@exit_hook(on_error=[on_error])"
    bench.flow("Fails", above=above, start="raise ValueError('spoiled')")
    bench.flow("Slow", above="", start="__import__('time').sleep(600)")
    rehearsal = rehearse(
        """
        set -e
        python Slow.py argo-workflows create --workflow-timeout 5
        python Fails.py argo-workflows create
        python Slow.py argo-workflows trigger
        python Fails.py argo-workflows trigger
        """
    )
    assert rehearsal.status == 1
    slow, fails = rehearsal.report["runs"]
    reason = "Pod was active on the node longer than the specified deadline"
    assert f"[rehearsal] failed    {slow['name']}/start-0: {reason}\n" in rehearsal.output
    assert f"hook of Fails/argo-{fails['name']}\n" in printed(rehearse, fails)


def test_three_flows_that_wait_for_each_other_end(bench: Workbench, rehearse: Rehearse) -> None:
    folder = bench.folder / "meeting"
    folder.mkdir()
    wait = f"""
        import pathlib, time
        folder = pathlib.Path({str(folder)!r})
        (folder / current.flow_name).touch()
        while len(list(folder.iterdir())) < 3:
            time.sleep(0.1)
    """
    names = ("First", "Second", "Third")
    for name in names:
        bench.flow(name, above="", start=textwrap.dedent(wait))
    commands = [f"python {name}.py argo-workflows create" for name in names]
    commands += [f"python {name}.py argo-workflows trigger" for name in names]
    rehearsal = rehearse(" && ".join(commands))
    assert rehearsal.status == 0, rehearsal.output


def test_a_machine_without_gnu_programs_has_them_in_a_pod(tmp_path: Path) -> None:
    add_programs(tmp_path, path=str(tmp_path))

    def output(*command: str | Path, given: str = "") -> str:
        return subprocess.run(
            command, input=given, capture_output=True, text=True, check=True
        ).stdout

    expected = f"{hashlib.md5(b'text').hexdigest()}  -\n"
    assert output(tmp_path / "md5sum", given="text") == expected
    date = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{9}\+00:00\n"
    assert re.fullmatch(date, output(tmp_path / "date", "-u", "-Ins"))
