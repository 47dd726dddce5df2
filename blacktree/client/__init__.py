"""The other end of the door, for programs and the command line: JSON-RPC over websockets, on Trio."""

from blacktree.client.calls import Client
from blacktree.client.link import Endpoint
from blacktree.client.watch import Batch, JobWatch

__all__ = ["Batch", "Client", "Endpoint", "JobWatch"]
