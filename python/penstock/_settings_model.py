"""How a class of settings is declared, and how the values of its settings are put together from all sources.

A class of settings is a frozen dataclass that derives from `Resolved` and names its section of `penstock.toml`; each of
its fields is made by `setting`. One line in `penstock.settings.SECTIONS` has it read everywhere: by the file, the
environment, the command line, `penstock.Server`, `penstock config` and the guide.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, TypeVar

from penstock._settings_file import MODEL, environment_or, file_in_force, nearest
from penstock._settings_values import CHECKS, choice_of, metavar_of, secret_of, shown
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from dataclasses import Field
    from pathlib import Path
    from typing import Self

    from penstock._settings_file import SettingsFile

Kind: TypeAlias = Literal["default", "keyword", "file", "environment", "command line"]

T = TypeVar("T", bound="Resolved")

_ATTRIBUTE = re.compile(r" {4}(\w+): (.*)")


def setting(
    default: Any,
    kind: str,
    text: str,
    choices: tuple[str, ...] = (),
    *,
    secret: bool = False,
    none: str | None = None,
    metavar: str | None = None,
    check: Callable[[str, Any], Any] | None = None,
) -> Any:
    """A field of a class of settings.

    Args:
        default: its value where no source gives one.
        kind: what it may hold: `"size"`, `"count"`, `"seconds"` (above 0), `"pause"` (0 and more seconds), `"share"` (0
            to 1), `"port"`, `"switch"`, `"choice"`, `"text"`, `"texts"` and `"names"` (several, with commas between
            them; the flag may be repeated), `"file"`, `"directory"`, `"secret"`.
        text: what it means, in a line of the help of a command.
        choices: what a `"choice"` may be.
        secret: whether its value is never shown, whatever its kind; a kind `"secret"` always is.
        none: what `None` means in words, where it is a value.
        metavar: what stands for its value in the help of a command.
        check: makes the value of what was said, and refuses it with `ConfigError`; in place of the check of its kind.
    """
    secret = secret or kind == "secret"
    metadata = {"kind": kind, "help": text, "choices": choices, "secret": secret, "none": none, "check": check}
    return field(default=default, repr=not secret, metadata={**metadata, "metavar": metavar})


@dataclass(frozen=True)
class Source:
    """Where a value came from.

    Attributes:
        kind: which source it was.
        name: what errors call it: `max_body`, `penstock.toml:12 [server] max_body`, `PENSTOCK_MAX_BODY`, `--max-body`.
    """

    kind: Kind
    name: str

    def __str__(self) -> str:
        return self.name


_DEFAULT = Source("default", "default")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting as it is in force.

    Attributes:
        name: its name as a keyword.
        section: its section of `penstock.toml`.
        key: its name there.
        variable: its environment variable.
        flag: its flag of `penstock serve`, or `None`.
        value: its value.
        source: where that came from.
        default: its value where no source gives one.
        shadowed: the values of weaker sources, and their sources, the strongest of them first.
        text: what it means.
        kind: what it may hold.
        secret: whether its value is not to be shown.
        none: what `None` means in words, where that is not what it means of any setting of this kind.
    """

    name: str
    section: str
    key: str
    variable: str
    flag: str | None
    value: Any = field(repr=False)
    source: Source
    default: Any
    shadowed: tuple[tuple[Source, Any], ...] = field(repr=False)
    text: str
    kind: str
    secret: bool
    none: str | None = None

    @property
    def shown(self) -> str:
        """Its value as people write it; no secret."""
        return self.show(self.value)

    def show(self, value: Any) -> str:
        """A value of this setting as people write it; no secret."""
        if self.secret and value is not None:
            return "(secret)"
        return shown(self.kind, value, self.none)


class Resolved:
    """Settings that come from several sources, the strongest last.

    Class arguments:
        section: the section of `penstock.toml` that they stand in; several classes may share one.
        title: what they are, over their flags in the help of `penstock serve`.
        keywords: whether `penstock.Server` takes them.
        flags: whether `penstock serve` takes them.
        prefix: what begins their variables and names, where the names alone would not tell them apart.
    """

    section: ClassVar[str] = ""
    title: ClassVar[str] = ""
    keywords: ClassVar[bool] = True
    flags: ClassVar[bool] = True
    prefix: ClassVar[str] = ""

    def __init_subclass__(
        cls, *, section: str = "", title: str = "", keywords: bool = True, flags: bool = True, prefix: str = ""
    ) -> None:
        cls.section, cls.title, cls.keywords, cls.flags, cls.prefix = section, title or section, keywords, flags, prefix

    @classmethod
    def resolve(
        cls,
        keywords: Mapping[str, Any],
        command_line: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Self:
        """Puts the values of all sources together; `None` stands for "not given".

        The file of settings is the one that `command_line["config"]` names, else the one of `PENSTOCK_CONFIG`, else
        `penstock.toml` in the working directory.

        Raises:
            ConfigError: for a value that cannot be, naming the setting and where it came from, or for a keyword that is
                no setting.
        """
        environment = environment_or(environment)
        refuse_unknown(keywords, [cls])
        return cls.put_together(keywords, known_file(environment, command_line), environment, command_line or {})

    @classmethod
    def put_together(
        cls,
        keywords: Mapping[str, Any],
        file: SettingsFile | None,
        environment: Mapping[str, str],
        command_line: Mapping[str, Any],
    ) -> Self:
        """As `resolve`, of sources that were read before. Keywords that are not of this class are not looked at."""
        said = file.section(cls.section) if file is not None and cls.section else {}
        given: dict[str, list[tuple[Source, Any]]] = {}
        for each in settings_of(cls):
            name, variable, flag = cls.prefix + each.name, variable_of(cls, each), flag_of(each)
            where = file.where(cls.section, each.name) if file is not None and each.name in said else ""
            candidates = (
                (Source("keyword", name), keywords.get(name)),
                (Source("file", where), None if file is None else _beside(file, each, said.get(each.name))),
                (Source("environment", variable), _in_environment(each, environment.get(variable))),
                (Source("command line", flag), command_line.get(name) if cls.flags else None),
            )
            for source, value in candidates:
                if value is not None:
                    given.setdefault(each.name, []).append((source, _checked(each, source, value)))
        made = cls(**{name: values[-1][1] for name, values in given.items()})
        # Beside the fields: it says why they are as they are, and is not compared.
        object.__setattr__(made, "_given", given)
        return made

    def explained(self) -> list[Setting]:
        """Every setting with its value and where that came from."""
        given: dict[str, list[tuple[Source, Any]]] = getattr(self, "_given", {})
        return [self._explained(each, given.get(each.name, [])) for each in settings_of(type(self))]

    def _explained(self, each: Field[Any], given: list[tuple[Source, Any]]) -> Setting:
        return Setting(
            name=self.prefix + each.name,
            section=self.section,
            key=each.name,
            variable=variable_of(type(self), each),
            flag=flag_of(each) if self.flags else None,
            value=getattr(self, each.name),
            source=given[-1][0] if given else _DEFAULT,
            default=each.default,
            shadowed=tuple(reversed(given[:-1])),
            text=each.metadata["help"],
            kind=each.metadata["kind"],
            secret=each.metadata["secret"],
            none=each.metadata["none"],
        )


class Settings(Mapping[str, Setting]):
    """The settings that are in force, by name: each with its value, and with where that came from.

    A table in a notebook. `settings["max_body"].value` is a value, `settings["max_body"].source` where it came from;
    `settings.of(DoorSettings)` gives the values of one class as its attributes.
    """

    def __init__(self, parts: Iterable[Resolved], file: SettingsFile | None = None) -> None:
        self._parts: dict[type[Resolved], Resolved] = {type(part): part for part in parts}
        self._every = {each.name: each for part in self._parts.values() for each in part.explained()}
        self._file = file

    @classmethod
    def resolve(
        cls,
        classes: Iterable[type[Resolved]],
        keywords: Mapping[str, Any],
        command_line: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Self:
        """Puts the values of all sources together, for several classes of settings; `None` stands for "not given".

        Raises:
            ConfigError: as `Resolved.resolve` does.
        """
        environment, classes = environment_or(environment), list(classes)
        refuse_unknown(keywords, classes)
        file = known_file(environment, command_line)
        made = cls((one.put_together(keywords, file, environment, command_line or {}) for one in classes), file)
        if file is not None and made.shown_file:
            file.tell()
        return made

    def of(self, kind: type[T]) -> T:
        """The settings of one class.

        Raises:
            KeyError: where these are not among them.
        """
        found: Any = self._parts[kind]
        return found  # type: ignore[no-any-return]

    @property
    def file(self) -> Path | None:
        """The file of settings that was read."""
        return None if self._file is None else self._file.path

    @property
    def shown_file(self) -> str:
        """The file, as what is made by these settings names it; an empty text where nothing of it is in force."""
        if self._file is None or not (
            self._file.tables.get(MODEL) or any(each.source.kind == "file" for each in self.values())
        ):
            return ""
        return f", settings of {self._file.name}"

    def __getitem__(self, name: str) -> Setting:
        return self._every[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._every)

    def __len__(self) -> int:
        return len(self._every)

    def __repr__(self) -> str:
        said = [f"{each.name}={each.shown} ({each.source})" for each in self.values() if each.source is not _DEFAULT]
        return f"<penstock.Settings {', '.join(said) or 'all as by default'}>"

    def _repr_html_(self) -> str:
        import html  # noqa: PLC0415  a notebook asks for it, an import of penstock should not pay

        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(each.name)}</th><td>{html.escape(each.shown)}</td>"
            f"<td>{html.escape(str(each.source))}</td></tr>"
            for each in self.values()
        )
        head = "<tr><th>setting</th><th>value</th><th>from</th></tr>"
        return f"<table><caption>Settings</caption>{head}{rows}</table>"


def settings_of(kind: type[Resolved]) -> tuple[Field[Any], ...]:
    """The settings of a class, as the fields of its dataclass."""
    as_dataclass: Any = kind
    return fields(as_dataclass)


def described(kind: type[Resolved]) -> dict[str, str]:
    """What each setting of a class means, in the words of the class; the line of its help where there are none."""
    attributes = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")[2]
    said: dict[str, str] = {}
    name = ""
    for line in attributes.splitlines():
        if begins := _ATTRIBUTE.match(line):
            name, said[begins[1]] = begins[1], begins[2]
        elif name and line.strip():
            said[name] += " " + line.strip()
    return {each.name: said.get(each.name, each.metadata["help"]) for each in settings_of(kind)}


def variable_of(kind: type[Resolved], each: Field[Any]) -> str:
    """The environment variable of a setting."""
    return f"PENSTOCK_{kind.prefix}{each.name}".upper()


def flag_of(each: Field[Any]) -> str:
    """The flag of a setting."""
    return "--" + each.name.replace("_", "-")


def metavar_for(each: Field[Any]) -> str:
    """What stands for the value of a setting in the help of a command."""
    return each.metadata["metavar"] or "|".join(each.metadata["choices"]) or metavar_of(each.metadata["kind"])


def known_file(environment: Mapping[str, str], command_line: Mapping[str, Any] | None) -> SettingsFile | None:
    """The file of settings that is in force, where every name in it is known.

    Raises:
        ConfigError: where it cannot be read, or a name in it is not known.
    """
    file = file_in_force(environment, (command_line or {}).get("config"))
    if file is not None:
        from penstock.settings import SECTIONS  # noqa: PLC0415  it is made of what is declared here

        known: dict[str, list[str]] = {}
        for kind in SECTIONS:
            known.setdefault(kind.section, []).extend(each.name for each in settings_of(kind))
        file.check_names(known)
    return file


def refuse_unknown(keywords: Mapping[str, Any], classes: Iterable[type[Resolved]]) -> None:
    """Refuses keywords that are no settings of these classes.

    Raises:
        ConfigError: likewise.
    """
    known = {kind.prefix + each.name for kind in classes for each in settings_of(kind)}
    if unknown := sorted(set(keywords) - known):
        meant = nearest(unknown[0], known)
        told = f"did you mean {meant}? " if meant else ""
        raise ConfigError(f"unknown settings: {', '.join(unknown)}; {told}there are {', '.join(sorted(known))}")


def _in_environment(each: Field[Any], value: str | None) -> str | None:
    """Kubernetes sets `PENSTOCK_PORT=tcp://10.0.0.1:80` for a service that is called so: that is no setting."""
    is_link = each.metadata["kind"] == "port" and value is not None and value.startswith(("tcp://", "udp://"))
    return None if is_link else value


def _beside(file: SettingsFile, each: Field[Any], value: Any) -> Any:
    """A value of the file: the path of a file or a directory in it begins where the file lies."""
    kind = each.metadata["kind"]
    if not isinstance(value, str) or not value or kind not in {"file", "directory", "secret"}:
        return value
    if kind != "secret":
        return str(file.path.parent / value)
    return f"file:{file.path.parent / value[5:]}" if value.startswith("file:") else value


def _checked(each: Field[Any], source: Source, value: Any) -> Any:
    check, choices, kind = each.metadata["check"], each.metadata["choices"], each.metadata["kind"]
    if kind == "secret":
        return secret_of(source.name, value, public=source.kind in {"file", "command line"})
    if check is not None:
        return check(source.name, value)
    return choice_of(source.name, value, choices) if choices else CHECKS[kind](source.name, value)
