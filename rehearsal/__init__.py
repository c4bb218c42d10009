"""A rehearsal of Metaflow deployments on one machine, without a cluster.

`python -m rehearsal COMMAND` runs COMMAND against a stand-in for Argo Workflows and
Argo Events, runs what it deploys and triggers, and reports which event started what.

The actors, a file each: `cluster` (the Kubernetes API, S3 and the webhook), `sensor`
(which event starts what), `run` (a Workflow's run) with `pod` (inside its processes),
`stage` (what connects them), `display` (what is said while it works) and `report` (what
came of it) with `page` (its picture). `why` explains one event and one Sensor.
"""
