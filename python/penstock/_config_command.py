"""`penstock config`: the settings that are in force, and why."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from penstock._batch_settings import ModelTerms
from penstock._serve_command import add_settings, add_target, models_of, settings_from
from penstock._settings_file import nearest
from penstock._settings_model import described
from penstock._settings_notes import notes_of
from penstock.errors import ConfigError
from penstock.models import spec_of
from penstock.repository import ModelDirectory
from penstock.settings import SECTIONS, RepositorySettings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from penstock._settings_model import Resolved, Setting, Settings
    from penstock.models import ModelSpec


def add_parser(commands: Any) -> None:
    """Adds `config` to the commands."""
    parser = commands.add_parser(
        "config",
        help="print the settings that are in force, and why",
        description="Prints the settings that `penstock serve` would have with the same arguments, and where each "
        "came from; refuses what it would refuse. Secrets are not shown.",
    )
    add_target(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--explain", metavar="NAME", help="say all of one setting: max_body, or digits.max_wait")
    add_settings(parser)
    parser.set_defaults(carry_out=_carry_out)


def _carry_out(options: argparse.Namespace) -> int:
    settings = settings_from(options)
    terms = ModelTerms(settings)
    specs = _specs_of(options.target, settings.of(RepositorySettings))
    # What cannot be is refused here as it would be by a server.
    placed = {spec.reference: (terms.applied(spec), terms.explained(spec))[1] for spec in specs}
    # Without a target nobody has said what there is.
    is_told = options.target is not None or bool(specs)
    notes = notes_of(os.environ, terms if is_told else ModelTerms(type(settings)([])), specs)
    if options.explain is not None:
        text = _explained(_found(options.explain, settings, placed))
    elif options.json:
        text = json.dumps(_as_json(settings, placed, notes), indent=2)
    else:
        text = "\n".join(_lines(settings, placed, notes))
    print(text)  # noqa: T201  a command line answers so
    return 0


def _specs_of(target: str | None, settings: RepositorySettings) -> list[ModelSpec]:
    if target is None and settings.models is None:
        return []
    specs = []
    for model in models_of(target, settings):
        if isinstance(model, ModelDirectory):
            found = (spec_of(one.model) for one in model.scan().found.values())
            specs += [spec for spec in found if spec is not None]
        elif (spec := spec_of(model)) is not None:
            specs.append(spec)
    return specs


def _lines(settings: Settings, models: dict[str, list[Setting]], notes: list[str]) -> list[str]:
    lines = [f"file: {settings.file or 'none'}"]
    section = ""
    for each in settings.values():
        if each.section != section:
            section = each.section
            lines += ["", f"[{section}]"]
        lines.append(_line(each))
    for reference, every in models.items():
        lines += ["", f"[model.{reference}]"]
        lines += [_line(each) for each in every if each.source.kind != "default"] or ["  all as by default"]
    return [*lines, *([""] if notes else []), *(f"note: {note}" for note in notes)]


def _line(each: Setting) -> str:
    told = "" if each.source.kind == "default" else f"{each.source} (default {each.show(each.default)})"
    over = ", ".join(f"{source}: {each.show(value)}" for source, value in each.shadowed if source.kind != "default")
    return f"  {each.key:<20} {each.shown:<16} {told}{f', over {over}' if over else ''}".rstrip()


def _found(name: str, settings: Settings, models: dict[str, list[Setting]]) -> Setting:
    """The setting that a person means: by its name, its place in the file, its variable or its flag."""
    names: dict[str, Setting] = {}
    for each in settings.values():
        names |= dict.fromkeys((f"{each.section}.{each.key}", each.variable, each.flag or each.name, each.name), each)
    for reference, every in models.items():
        for each in every:
            names[f"{reference.partition('@')[0]}.{each.key}"] = names[f"{reference}.{each.key}"] = each
    if name not in names:
        meant = nearest(name, names)
        raise ConfigError(f"there is no setting {name!r}" + (f"; did you mean {meant}?" if meant else ""))
    return names[name]


def _explained(each: Setting) -> str:
    """All that there is to say of a setting."""
    meaning = next((described(kind)[each.key] for kind in SECTIONS if _is_of(each, kind)), "")
    given = [(each.source, each.value), *each.shadowed]
    lines = [f"{each.name} = {each.shown}", *([f"  {meaning}"] if meaning else []), ""]
    for source, value in given:
        if source.kind != "default":
            lines.append(f"  {source.kind:<13} {each.show(value):<16} {source}")
    lines.append(f"  {'default':<13} {each.show(each.default)}")
    if each.variable:
        flags = [f"{each.flag}"] if each.flag else []
        places = [f"[{each.section}] {each.key} in penstock.toml", each.variable, *flags]
        lines += ["", f"  Weakest first, it may be said by {', '.join(places)}."]
    return "\n".join(lines)


def _is_of(each: Setting, kind: type[Resolved]) -> bool:
    return each.section == kind.section and each.key in described(kind)


def _as_json(settings: Settings, models: dict[str, list[Setting]], notes: list[str]) -> dict[str, Any]:
    return {
        "file": None if settings.file is None else str(settings.file),
        "settings": _records(settings.values()),
        "models": {reference: _records(every) for reference, every in models.items()},
        "notes": notes,
    }


def _records(every: Iterable[Setting]) -> list[dict[str, Any]]:
    return [
        {
            "name": each.name,
            "section": each.section,
            "key": each.key,
            "value": _plain(each, each.value),
            "default": _plain(each, each.default),
            "source": {"kind": each.source.kind, "name": each.source.name},
            "shadowed": [
                {"kind": source.kind, "name": source.name, "value": _plain(each, value)}
                for source, value in each.shadowed
                if source.kind != "default"
            ],
            "variable": each.variable or None,
            "flag": each.flag,
        }
        for each in every
    ]


def _plain(each: Setting, value: Any) -> Any:
    """A value as JSON has it."""
    if each.secret and value is not None:
        return each.show(value)
    if isinstance(value, tuple | list):
        return [_plain(each, one) for one in value]
    if type(value) is dict:  # others have a reason to show themselves otherwise
        return {str(key): _plain(each, one) for key, one in value.items()}
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
