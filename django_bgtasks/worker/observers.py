"""Who listens to the signals of a worker's tasks: what nobody hears is not made."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from ..compat import TASKS_LOGGER
from .capture import CaptureHandler

logger = logging.getLogger("django_bgtasks.worker")
_framework_logger = logging.getLogger(TASKS_LOGGER)


def is_observed(signal: Any) -> bool:
    """
    Say whether anybody but Django's own logging listens to a signal, or that is heard.

    What a receiver is given costs more to make than a short task to run.
    """
    return len(signal.receivers) > 1 or (bool(signal.receivers) and framework_log_is_heard())


@lru_cache(maxsize=1)
def framework_log_is_heard() -> bool:
    """Say whether a handler takes what Django's receivers log of a success."""
    if not _framework_logger.isEnabledFor(logging.INFO):
        return False
    record = logging.LogRecord(TASKS_LOGGER, logging.INFO, __file__, 0, "", (), None)
    heard: logging.Logger | None = _framework_logger
    while heard is not None:
        for handler in heard.handlers:
            # CaptureHandler leaves these lines out: to make them for it halved the throughput.
            if isinstance(handler, CaptureHandler):
                continue
            if handler.level <= logging.INFO and handler.filter(record):
                return True
        heard = heard.parent if heard.propagate else None
    return False


def log_receiver_errors(responses: Any) -> None:
    """Log what the receivers of a signal raised."""
    for receiver, response in responses:
        if isinstance(response, Exception):
            logger.error(
                "A signal receiver failed: %r",
                receiver,
                exc_info=(type(response), response, response.__traceback__),
            )
