"""Gangs and secrets: `python -m rehearsal` with real flows, from the outside."""

from __future__ import annotations

from pathlib import Path

from conftest import Rehearse

CREATE_AND_TRIGGER = """
set -e
python flow.py argo-workflows create
python flow.py argo-workflows trigger
"""
GANG_FLOW = """
import os, pathlib, time
from metaflow import FlowSpec, current, parallel, retry, step

class GangFlow(FlowSpec):
    @step
    def start(self):
        self.text = "from start"
        self.next(self.train, num_parallel={pods})

    {decorators}
    @parallel
    @step
    def train(self):
        gang = current.parallel
        self.place = gang.node_index, gang.num_nodes, gang.main_ip, gang.control_task_id
        {body}
        self.next(self.join)

    @step
    def join(self, inputs):
        print("joined", [each.place[:3] for each in inputs], {{each.text for each in inputs}})
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    GangFlow()
"""
# Returns as soon as all three are there, so it never does where one waits for another's end.
MEET = """
        folder = pathlib.Path({folder!r})
        (folder / str(gang.node_index)).touch()
        while len(list(folder.iterdir())) < 3:
            time.sleep(0.05)
"""
WORKER_FAILS = """
        if gang.node_index == 1:
            raise ValueError("this worker fails")
        time.sleep(600)
"""
SECRET_FLOW = """
import os
from metaflow import FlowSpec, kubernetes, secrets, step

class SecretFlow(FlowSpec):
    @kubernetes(secrets=["token"])
    @step
    def start(self):
        assert os.environ["TOKEN"] == "hush # = hush"
        self.next(self.aws)

    @secrets(sources=["token"])
    @step
    def aws(self):
        assert os.environ["TOKEN"] == "hush # = hush"
        print("found it")
        self.next(self.end)

    @secrets(sources=["other"])
    @step
    def end(self):
        print("never here")

if __name__ == "__main__":
    SecretFlow()
"""


def logs(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("logs/*/*.txt")}


def test_a_gang_runs_together_and_is_joined(rehearse: Rehearse) -> None:
    meeting = rehearse.folder / "meeting"
    meeting.mkdir()
    body = MEET.format(folder=str(meeting))
    (rehearse.folder / "flow.py").write_text(GANG_FLOW.format(pods=3, decorators="", body=body))
    rehearsal = rehearse(CREATE_AND_TRIGGER)
    assert rehearsal.status == 0, rehearsal.output
    printed = logs(rehearse.folder)
    assert {"train-control-0.txt", "train-worker-0-0.txt", "train-worker-1-0.txt"} < set(printed)
    places = [(index, 3, "127.0.0.1") for index in range(3)]
    assert f"joined {places} {{'from start'}}" in printed["join-0.txt"]
    assert rehearsal.report["unsupported"] == [
        "the host names of a gang (each is 127.0.0.1 here) of train of gangflow"
    ]


def test_a_worker_that_fails_ends_its_gang_and_after_its_retries_the_run(
    rehearse: Rehearse,
) -> None:
    decorators = "@retry(times=1, minutes_between_retries=0)"
    flow = GANG_FLOW.format(pods=2, decorators=decorators, body=WORKER_FAILS)
    (rehearse.folder / "flow.py").write_text(flow)
    rehearsal = rehearse(CREATE_AND_TRIGGER)
    assert rehearsal.status == 1
    assert rehearsal.report["runs"][0]["phase"] == "Failed"
    printed = logs(rehearse.folder)
    assert {"train-control-1.txt", "train-worker-0-1.txt"} < set(printed)
    for attempt in ("0", "1"):
        assert "ValueError: this worker fails" in printed[f"train-worker-0-{attempt}.txt"]
        assert f"/train-worker-0-{attempt}: exit status 1\n" in rehearsal.output
    assert "/train-control-" not in rehearsal.output  # what the gang has ended has not failed


def test_a_secret_is_there_for_kubernetes_and_aws_and_its_values_are_not_shown(
    rehearse: Rehearse,
) -> None:
    (rehearse.folder / "flow.py").write_text(SECRET_FLOW)
    (rehearse.folder / "token.env").write_text("# a comment\n\nTOKEN=hush # = hush\n")
    rehearsal = rehearse(CREATE_AND_TRIGGER, "--secret", "token=token.env")
    assert rehearsal.status == 1
    printed = logs(rehearse.folder)
    assert "found it" in printed["aws-0.txt"]
    # One that was not given fails as on AWS.
    assert "ResourceNotFoundException" in printed["end-0.txt"]
    assert "never here" not in printed["end-0.txt"]
    shown = (rehearsal.output, str(rehearsal.report), *printed.values())
    assert not any("hush" in text for text in shown)
    assert rehearsal.report["unsupported"] == []
