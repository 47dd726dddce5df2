"""Where the scaler meets the providers of workers: the orchestrator itself knows none of them."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blacktree.config import Config
    from blacktree.scaling import OpenWorkerProvider


def worker_providers(config: "Config", state: Path) -> "OpenWorkerProvider":
    """What the daemon opens providers with. Raises `BadRequest` for a pool whose provider or options cannot be."""
    from blacktree.providers.scaling import open_worker_provider
    from blacktree.scaling import WorkerProviderSettings

    for pool, rules in config.scaling.pools.items():
        settings = WorkerProviderSettings(
            farm_id="",
            pool=pool,
            slots=rules.slots,
            orchestrator=config.orchestrator.grpc_listen,
            join_token_file=config.orchestrator.join_token_file,
            state_directory=str(state),
            lease_seconds=config.orchestrator.lease_seconds,
            options=rules.options,
        )
        # Looked at, not entered.
        open_worker_provider(rules.provider, settings)
    return open_worker_provider
