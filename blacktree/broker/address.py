"""RabbitMQ's address: checked, and never shown with its password."""

from yarl import URL

from blacktree.endpoints import check_broker_url

HEARTBEAT_SECONDS = 10  # aiormq gives up after three times one more without a frame, and looks every half of one


class Address:
    """The URL where no repr shows its password."""

    def __init__(self, url: URL) -> None:
        self.url = url

    def __repr__(self) -> str:
        return str(self.url.with_user(None))


def checked(url: str) -> URL:
    """Raises `BadRequest`, without the password in it."""
    check_broker_url(url)
    parsed = URL(url)
    return parsed if "heartbeat" in parsed.query else parsed.update_query(heartbeat=str(HEARTBEAT_SECONDS))
