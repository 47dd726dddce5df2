"""RabbitMQ's address: checked, and never shown with its password."""

from yarl import URL

from blacktree.errors import BadRequest

HEARTBEAT_SECONDS = 10  # aiormq gives up after three times one more without a frame, and looks every half of one


class Address:
    """The URL where no repr shows its password."""

    def __init__(self, url: URL) -> None:
        self.url = url

    def __repr__(self) -> str:
        return str(self.url.with_user(None))


def checked(url: str) -> URL:
    """Raises `BadRequest`, without the password in it."""
    try:
        parsed = URL(url)
        fine = parsed.scheme in ("amqp", "amqps") and bool(parsed.host)
    except ValueError:
        fine = False
    if not fine:
        raise BadRequest(
            "the broker's URL is not amqp://user:password@host[:port]/[vhost] (or amqps://)", path="broker_url"
        )
    return parsed if "heartbeat" in parsed.query else parsed.update_query(heartbeat=str(HEARTBEAT_SECONDS))
