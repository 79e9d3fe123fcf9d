"""How statistics and progress look in a notebook and in a terminal."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Sized
    from typing import Self


class Table:
    """A frozen dataclass that shows itself as a table in a notebook."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def _repr_html_(self) -> str:
        import html  # noqa: PLC0415  a notebook asks for it, an import of penstock should not pay

        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(field.name.replace('_', ' '))}</th>"
            f"<td style='text-align:right'>{html.escape(shown(getattr(self, field.name)))}</td></tr>"
            for field in fields(self)
        )
        return f"<table><caption>{html.escape(type(self).__name__)}</caption>{rows}</table>"


def shown(value: object) -> str:
    """A number with its thousands apart, counts by their names."""
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {shown(count)}" for key, count in value.items()) or "none"
    return str(value)


class _Bar:
    """Progress that is not shown."""

    def update(self, count: int = 1) -> None:
        """Counts items."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


def progress_bar(items: tuple[Iterable[Any], ...], *, shown: bool) -> Any:
    """A bar to update once for each of `items`; nothing where it is not to be shown."""
    if not shown:
        return _Bar()
    first = items[0] if items else ()
    return _tqdm("progress=True")(total=len(cast("Sized", first)) if hasattr(first, "__len__") else None)


def load_bar(what: str) -> Any:
    """A bar for loads, whose `n` and `total` count models."""
    return _tqdm("bar()")(desc=what, total=1.0, bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} {postfix}")


def _tqdm(what: str) -> Any:
    try:
        from tqdm.auto import tqdm  # noqa: PLC0415  an extra
    except ImportError as error:
        from penstock.errors import ConfigError  # noqa: PLC0415  errors are above what they look like

        raise ConfigError(f"{what} needs tqdm: pip install 'penstock[notebook]'") from error
    return tqdm
