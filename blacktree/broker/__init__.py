"""The broker of a configuration: RabbitMQ where a URL is given, else the embedded one over the store."""

from blacktree.broker.base import Broker
from blacktree.broker.embedded import EmbeddedBroker
from blacktree.broker.rabbit import RabbitBroker
from blacktree.config import Config
from blacktree.storage.base import QueueTable


def open_broker(config: Config, queues: QueueTable, farm_id: str) -> Broker:
    """Not running yet. Raises `BadRequest` for a URL that is none."""
    limits = config.queue
    if not config.orchestrator.broker_url:
        return EmbeddedBroker(queues, status_maximum=limits.status_maximum, event_maximum=limits.event_maximum)
    return RabbitBroker(
        config.orchestrator.broker_url,
        status_maximum=limits.status_maximum,
        event_maximum=limits.event_maximum,
        events=limits.events,
        farm_id=farm_id,
    )
