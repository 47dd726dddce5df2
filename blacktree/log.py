"""structlog, once: JSON lines or a console format on stderr; job and worker ids ride in context variables."""

import logging
import sys

import structlog

from blacktree.config import LogConfig


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
