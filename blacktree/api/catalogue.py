"""What `/metrics` serves: the kind, the labels and the meaning of every metric. docs/metrics.md is this, for people.

Labels are what the farm itself names (states, kinds of step, pools, which are limited): never a repository or a job.
"""

from typing import Literal, NamedTuple

Kind = Literal["gauge", "counter", "histogram"]


class Metric(NamedTuple):
    """One family. Its name in the catalogue is without `blacktree_`."""

    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


CATALOGUE: dict[str, Metric] = {
    # How it stands
    "build_info": Metric("gauge", "Always 1; the label is the version that runs.", ("version",)),
    "ready": Metric("gauge", "1 while the farm is ready, as /readyz says."),
    "broker_connected": Metric("gauge", "1 while the broker is there."),
    "broker_reconnects_total": Metric("counter", "How often the broker was reached again after it was away."),
    "event_loop_delay_seconds": Metric("histogram", "How late a timer is served: the orchestrator's own business."),
    # The queue
    "jobs": Metric("gauge", "Jobs on record.", ("state",)),
    "queue_jobs": Metric("gauge", "Jobs that wait.", ("pool",)),
    "queue_oldest_seconds": Metric("gauge", "How long the oldest job that waits has waited.", ("pool",)),
    "job_wait_seconds": Metric("histogram", "From being queued to being assigned to a worker.", ("pool",)),
    "job_dispatch_seconds": Metric("histogram", "From being assigned to the first word of the worker's build."),
    # Jobs and attempts
    "jobs_ended_total": Metric("counter", "Jobs that ended.", ("state",)),
    "job_duration_seconds": Metric("histogram", "From the first start of a job to its end.", ("outcome",)),
    "step_duration_seconds": Metric(
        "histogram", "Steps: the farm's own, and a Dockerfile's by their instruction.", ("step", "outcome")
    ),
    "attempts_held": Metric("gauge", "Attempts that workers hold now."),
    "attempts_total": Metric("counter", "Attempts that ended.", ("outcome",)),
    "attempts_lost_total": Metric("counter", "Attempts that were taken from their worker."),
    "hand_offs_total": Metric("counter", "Attempts that a worker accepted."),
    "hand_offs_refused_total": Metric("counter", "Attempts that a worker refused."),
    # Workers
    "workers": Metric("gauge", "Workers.", ("state",)),
    "slots": Metric("gauge", "Build slots of the workers that live."),
    "slots_busy": Metric("gauge", "Build slots in use."),
    "leases_lost_total": Metric("counter", "Leases that ran out: a worker was silent for too long."),
    "scaling_workers": Metric("gauge", "Workers that the farm started and has.", ("pool",)),
    "scaling_wanted": Metric("gauge", "Workers that it wants to have.", ("pool",)),
    "scaling_started_total": Metric("counter", "Workers that it started.", ("pool",)),
    "scaling_removed_total": Metric("counter", "Workers that it removed.", ("pool",)),
    "scaling_failures_total": Metric("counter", "Workers that could not be started.", ("pool",)),
    # Logs
    "log_bytes_total": Metric("counter", "Bytes that builds printed and that were stored."),
    "log_lines_total": Metric("counter", "Lines that builds printed and that were stored."),
    "log_readers": Metric("gauge", "Who reads along a job or a deployment now."),
    "log_readers_behind": Metric("gauge", "Readers that have not been given the newest event yet."),
    "log_reader_lag_events": Metric("gauge", "How many events the slowest reader is behind."),
    # The store
    "commits_total": Metric("counter", "Committed changes of jobs."),
    "store_commit_seconds": Metric("histogram", "Transactions of the store, waiting for the disk included."),
    "published_total": Metric("counter", "Messages that the broker has confirmed."),
    # The door
    "door_connections": Metric("gauge", "Open connections."),
    "door_websockets": Metric("gauge", "Websockets among them."),
    "door_watches": Metric("gauge", "Watches on websockets."),
    "door_connections_refused_total": Metric("counter", "Connections beyond the limit."),
    "door_requests_total": Metric("counter", "HTTP answers.", ("status",)),
    # Deployments
    "deployments": Metric("gauge", "Deployments, by the state of their newest version.", ("state",)),
    "deployment_replicas": Metric("gauge", "Replicas as their workers report them.", ("state",)),
    "deployment_switches_total": Metric("counter", "Versions that took over."),
    "deployment_failures_total": Metric("counter", "Versions that failed."),
    "deployment_log_lines_total": Metric("counter", "Lines that deployments printed and that were stored."),
    # In and out
    "webhooks_total": Metric("counter", "Webhooks that forges sent.", ("result",)),
    "webhooks_waiting": Metric("gauge", "Webhooks that were taken and are not worked off yet."),
    "notifications_total": Metric("counter", "Tries to deliver a notification.", ("target", "result")),
    "notifications_waiting": Metric("gauge", "Notifications that are not delivered yet.", ("target",)),
    "notification_duration_seconds": Metric("histogram", "How long targets take to answer.", ("target",)),
    "trace_spans_total": Metric("counter", "Spans that the orchestrator exported or had to drop.", ("result",)),
}
