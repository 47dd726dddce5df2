"""`Pipe`: one stream of a replica's output becomes lines."""

from blacktree.services.core.lines import LineSplitter
from blacktree.services.core.masking import Masker


class Pipe:
    """One stream: masked, then split."""

    def __init__(self, masker: Masker) -> None:
        self._mask = masker.stream()
        self._lines = LineSplitter()

    @property
    def pending(self) -> bool:
        return self._mask.pending or self._lines.pending

    def feed(self, data: bytes) -> list[tuple[str, bool]]:
        return self._lines.feed(self._mask.feed(data))

    def finish(self) -> list[tuple[str, bool]]:
        return self._lines.feed(self._mask.finish()) + self._lines.finish()
