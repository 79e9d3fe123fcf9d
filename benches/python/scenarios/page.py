"""Puts figures into a guide: a block between two marks, and the charts beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def marks(name: str) -> tuple[str, str]:
    """What stands before a block of figures, and after it."""
    return f"<!-- {name} -->", f"<!-- /{name} -->"


def put(page: Path, name: str, text: str) -> None:
    """Replaces what stands between `<!-- name -->` and `<!-- /name -->`.

    Raises:
        ValueError: where the page has no such place.
    """
    begin, end = marks(name)
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise ValueError(f"{page} has no place for the figures: {begin} ... {end}")
    page.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", encoding="utf-8")


def draw(page: Path, name: str, image: str, shows: str) -> str:
    """Writes an image into the folder of the page's images, and gives the link to it."""
    folder = page.parent / "images"
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(image, encoding="utf-8")
    return f"![{shows}](images/{name})"
