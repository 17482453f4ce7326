"""How every command logs: JSON lines on stderr, or columns where a person is watching.

Components only call `structlog.get_logger()`. Whatever looks like a secret is taken out here, once
for all of them: a key, a token or a whole CSR in a log outlives its rotation.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

REDACTED = "[redacted]"
SECRET_NAMES = frozenset(
    {"authorization", "csr", "key", "passphrase", "password", "private_key", "secret", "token"}
)
# A PEM private key or request, a bearer token, a JWT (RFC 7519 §3: three base64url parts).
SECRET_TEXT = re.compile(
    r"-----BEGIN [A-Z ]*(?:PRIVATE KEY|CERTIFICATE REQUEST)-----"
    r"|[Bb]earer\s+\S+"
    r"|\beyJ[\w-]+\.[\w-]+\.[\w-]*"
)


def configure() -> None:
    """Set up logging for this process."""
    person = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            redact,
            structlog.dev.ConsoleRenderer() if person else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def redact(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replace each value whose name or text is that of a secret."""
    for name, value in event.items():
        if name in SECRET_NAMES or (isinstance(value, str) and SECRET_TEXT.search(value)):
            event[name] = REDACTED
    return event
