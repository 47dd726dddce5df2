"""`Surroundings`: what all replicas of a worker share."""

from collections.abc import Callable

import msgspec

from blacktree.providers.containers import Containers, Mount
from blacktree.runspec import Volume
from blacktree.worker.front import Traffic
from blacktree.worker.replica_secrets import SecretFiles


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What all replicas of a worker share."""

    containers: Containers
    traffic: Traffic
    secrets: SecretFiles
    mount: Callable[[Volume], Mount]
    farm: Callable[[], str]
