"""How Sphinx makes the site from these pages: `make docs` writes it to target/docs/html.

The guides are plain Markdown that reads on its own, on GitHub or in an editor. Two things are done to them here: links
that lead out of docs/ are turned to where the site has the page, and the README and its neighbours are taken in.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pygments.lexer import RegexLexer, bygroups
from pygments.token import Comment, Generic, Text

import penstock

if TYPE_CHECKING:
    from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

project = "Penstock"
author = "the makers of Penstock"
copyright = "2026, the makers of Penstock"  # noqa: A001  Sphinx reads it by this name
version = release = penstock.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
root_doc = "index"
exclude_patterns = ["pipeline.ipynb"]  # beside pipeline.md it would be a page of the same name: see `site/`

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
nb_execution_mode = "off"  # the notebooks were run when they were written, and the tests run them

autodoc_member_order = "bysource"
autodoc_default_options = {
    "members": True,
    "inherited-members": "object, BaseException, dict, tuple, Formatter, Generic, Mapping, Resolved, TypedDict",
}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_class_signature = "mixed"
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"Penstock {release}"
html_static_path = ["_static"]
html_css_files = ["penstock.css"]
html_js_files = ["tables.js"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = False  # commands may go over several lines

TAKEN_IN = {
    "site/readme": "README.md",
    "site/changelog": "CHANGELOG.md",
    "site/contributing": "CONTRIBUTING.md",
    "site/threat-model": "SECURITY.md",
    "site/examples": "examples/README.md",
    "site/byte-lm": "examples/byte_lm/README.md",
}
"""Pages of the site, and the files outside docs/ that they are."""

LINKED = {"site/pipeline-notebook": "docs/pipeline.ipynb"}
"""Pages that are links to a file, by a name that no other page has."""

_PLACES = {(ROOT / file).resolve(): DOCS / f"{page}.md" for page, file in TAKEN_IN.items()}
_PLACES.update({path.parent: place for path, place in list(_PLACES.items()) if path.parent != ROOT})
_PLACES.update({ROOT / file: DOCS / f"{page}.ipynb" for page, file in LINKED.items()})
_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)(?=(\w?))")
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


class Console(RegexLexer):
    """Commands after a prompt, also over several lines, and what they print."""

    name = "Console"
    tokens = {  # noqa: RUF012  the name is Pygments'
        "root": [
            (r"^(\$ )([^\n#]*)(#[^\n]*)?(\n)", bygroups(Generic.Prompt, Generic.Strong, Comment, Text)),
            (r"[^\n]*\n", Generic.Output),
        ]
    }


def relinked(text: str, file: Path, page: Path) -> str:
    """The text of `file` with its links turned to where they lead from `page`, another place in the site."""

    def turn(found: re.Match[str]) -> str:
        if re.match(r"[a-z]+:", found[2]):
            return found[0]
        target = (file.parent / found[2]).resolve()
        while target.is_dir() and target not in _PLACES:
            target = target.parent
        return found[1] + os.path.relpath(_PLACES.get(target, target), page.parent) + found[3]

    parts, at = [], 0
    for fence in _FENCE.finditer(text):
        parts += [_LINK.sub(turn, text[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*parts, _LINK.sub(turn, text[at:])])


def read_source(_app: Sphinx, name: str, source: list[str]) -> None:
    """Takes in the pages that lie elsewhere, and turns links that lead out of docs/."""
    page = DOCS / f"{name}.md"
    if name in TAKEN_IN:
        file = ROOT / TAKEN_IN[name]
        source[0] = relinked(file.read_text(encoding="utf-8"), file, page)
    elif name in LINKED:
        source[0] = relinked(source[0], ROOT / LINKED[name], page)
    elif page.exists():
        source[0] = relinked(source[0], page, page)


def _literal(text: str) -> str:
    """Single backticks become double ones; a letter may follow them only behind an escaped space."""
    return _CODE.sub(lambda found: "``" + " ".join(found[1].split()) + "``" + (r"\ " if found[2] else ""), text)


def read_docstring(_app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Turns what docstrings have of Markdown, fenced blocks and single backticks, into reStructuredText."""
    parts = re.split(r"^([ ]*)```(\w*)\n(.*?)\n[ ]*```$", "\n".join(lines), flags=re.MULTILINE | re.DOTALL)
    result = [_literal(parts[0])]
    for indent, language, code, after in zip(parts[1::4], parts[2::4], parts[3::4], parts[4::4], strict=True):
        inner = "\n".join("   " + line if line.strip() else "" for line in code.split("\n"))
        result += [f"\n{indent}.. code-block:: {language or 'text'}\n\n{inner}\n", _literal(after)]
    lines[:] = "".join(result).split("\n")


def skip_member(_app: Sphinx, _what: str, name: str, value: object, _skip: object, _options: object) -> bool | None:
    """Leaves out what the native half and the settings have for one another, and not for users."""
    if name in {"native", "native_settings"}:
        return True
    owner = getattr(value, "__objclass__", None)
    where = f"{getattr(owner, '__module__', '')}.{getattr(owner, '__name__', '')}"
    return True if where.startswith("penstock._native.Native") and name != "closed" else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_lexer("console", Console)
    app.connect("source-read", read_source)
    app.connect("autodoc-process-docstring", read_docstring, priority=100)  # before napoleon
    app.connect("autodoc-skip-member", skip_member)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
