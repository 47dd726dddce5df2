# First of all: from Python 3.12 on, trio-asyncio replaces `asyncio.current_task`, and grpclib keeps whichever one it
# finds when it is imported. In the other order every call fails with "no running event loop".
import blacktree.concurrency.island as _island

__all__: list[str] = []
_ = _island
