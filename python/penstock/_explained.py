"""What a command says of a failure."""

from __future__ import annotations

import traceback

from penstock.errors import ConfigError, PenstockError


def explained(error: BaseException) -> tuple[str, int]:
    """What to say of a failure, and the exit status for it."""
    if not isinstance(error, PenstockError):
        return "".join(traceback.format_exception(error)).rstrip(), 1
    text = f"penstock: {error}"
    if error.__cause__ is not None and not isinstance(error, ConfigError):
        text += "\n" + "".join(traceback.format_exception(error.__cause__)).rstrip()
    return text, 2
