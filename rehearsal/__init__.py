"""A rehearsal of Metaflow deployments on one machine, without a cluster.

`python -m rehearsal COMMAND` runs COMMAND against a stand-in for Argo Workflows and
Argo Events, runs what it deploys and triggers, and reports which event started what.

The actors, a file each: `server` (what answers HTTP), `cluster` with `objects` (what the
Kubernetes API keeps, and the event bus), `sensor` (which event starts what), `workflow`
with `expression` and `jobset` (what a WorkflowTemplate does), `pod` with `inpod` and
`secret` (a step's process), `forkserver` with `forkclient` (the Python that starts fast),
`run` (a Workflow that ran), `stage` (what connects them), `display` (what is said while it
works) and `report` (what came of it) with `page` (its picture). `why` explains one event
and one Sensor.
"""
