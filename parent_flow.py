from metaflow import Config, FlowSpec, project, step

from namespaced_trigger import namespaced_trigger


@project(name="foo")
class HelloFlowUpstream(FlowSpec):
    """Publish the event that starts HelloFlowDownstream in the same namespace."""

    project = Config("project", default_value={})  # for your own values: it sets no branch here

    @step
    def start(self):
        print("Hello World!")
        self.next(self.end)

    @step
    def end(self):
        namespaced_trigger.raise_event("food", safe_publish=True)


if __name__ == "__main__":
    HelloFlowUpstream()
