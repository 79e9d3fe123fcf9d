"""What is not wrong in settings, and is probably not meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock._settings_file import VARIABLE, nearest
from penstock._settings_model import settings_of, variable_of
from penstock.settings import SECTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from penstock._batch_settings import ModelTerms
    from penstock.models import ModelSpec

_PREFIX = "PENSTOCK_"
_OF_KUBERNETES = ("PENSTOCK_SERVICE_", "PENSTOCK_PORT_")
"""Set in every container beside a service that is called penstock."""


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """What to say of variables that look like settings and are none."""
    known = {variable_of(kind, each) for kind in SECTIONS for each in settings_of(kind)} | {VARIABLE}
    notes = []
    for name in sorted(environment):
        if not name.startswith(_PREFIX) or name.startswith(_OF_KUBERNETES) or name in known:
            continue
        # One that resembles no setting may be somebody's own.
        if meant := nearest(name, known):
            notes.append(f"{name} is no setting; did you mean {meant}?")
    return notes


def notes_of(environment: Mapping[str, str], terms: ModelTerms, specs: Iterable[ModelSpec]) -> list[str]:
    """What to tell whoever runs a command: of variables, and of `[model.NAME]` that no model is called."""
    return [*unknown_variables(environment), *terms.idle(specs)]
