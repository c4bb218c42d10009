from metaflow import Config, FlowSpec, current, project, step

from namespaced_trigger import namespaced_trigger


@namespaced_trigger(event="food")
@project(name="foo")
class HelloFlowDownstream(FlowSpec):
    """Start when HelloFlowUpstream has published its event in the same namespace."""

    project = Config("project", default_value={})

    @step
    def start(self):
        if current.get("trigger"):
            print(f"Triggered by {current.trigger.event.name}!")
        else:
            print("Not triggered by an event.")
        self.next(self.end)

    @step
    def end(self):
        print("Flow complete!")


if __name__ == "__main__":
    HelloFlowDownstream()
