"""structlog, once: JSON lines or a console format on stderr; job and worker ids ride in context variables."""

import logging
import sys

from blacktree.config import LogConfig

# structlog would load rich for tracebacks that it is never let draw: 4 MB of each daemon and a fifteenth of its start.
_without_rich = "rich" not in sys.modules
if _without_rich:
    sys.modules["rich"] = None  # type: ignore[assignment]  # how Python says "not to be had"
import structlog  # noqa: E402  # only after rich is hidden

if _without_rich:
    del sys.modules["rich"]


def configure(config: LogConfig) -> None:
    """Set up logging for this process. To be called once, before anything runs."""
    level = logging.getLevelNamesMapping().get(config.level.upper(), logging.INFO)
    console = config.format == "console" or (config.format == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        # Plain: rich shows local variables, and some of them are secrets.
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries speak through the standard module; only their warnings are news.
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
