"""What the guides show is run: every Python block, the README's server, the examples in docstrings, the notebook.

A block under `<!-- not run -->` is left out. A text block under `<!-- prints -->` is what the block before it prints.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import inspect
import io
import json
import re
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import penstock._cache
import penstock._deadline
import penstock._fake_upstream
import penstock._scope
import penstock._steps
import penstock._test_client
import penstock.batching
import penstock.client
import penstock.models
import penstock.pipeline
import penstock.safetensors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[a-z ]+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    language: str
    mark: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(found["language"], found["mark"] or "", found["text"], text.count("\n", 0, found.start("text")) + 1)
        for found in BLOCK.finditer(text)
    ]


def run(page: Path, block: Block, names: dict[str, Any], runner: asyncio.Runner) -> None:
    """Runs a block, which may await at its top level, as in a notebook."""
    text = "\n" * (block.line - 1) + block.text  # tracebacks name the line of the page
    code = compile(text, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        runner.run(eval(code, names))  # noqa: S307  our own pages
    else:
        exec(code, names)  # noqa: S102  as above


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_blocks_run_and_print_what_they_say(page: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = io.StringIO()
    with asyncio.Runner() as runner, contextlib.redirect_stdout(printed):
        for block in blocks(page):
            if block.language == "python" and block.mark != "not run":
                printed.seek(0)
                printed.truncate()
                run(page, block, names, runner)
            elif block.mark == "prints":
                assert printed.getvalue() == block.text, f"{page}:{block.line}"


def test_the_harness_sees_the_blocks() -> None:
    for page in PAGES:
        fences = page.read_text(encoding="utf-8").count("\n```")
        assert fences == 2 * len(blocks(page)), f"a block of {page} is not understood"
    assert sum(block.language == "python" for page in PAGES for block in blocks(page)) > 10


@pytest.mark.parametrize(
    "module",
    [
        penstock._cache,
        penstock._deadline,
        penstock._fake_upstream,
        penstock._scope,
        penstock._steps,
        penstock.batching,
        penstock.client,
        penstock.models,
        penstock.pipeline,
        penstock.safetensors,
        penstock._test_client,
    ],
    ids=lambda module: module.__name__,
)
def test_examples_in_docstrings(module: ModuleType) -> None:
    finder = doctest.DocTestFinder(recurse=True)
    names = {**vars(module)}
    examples = [found for found in finder.find(module, globs=names) if found.examples]
    assert examples
    runner = doctest.DocTestRunner()
    for example in examples:
        assert runner.run(example).failed == 0, f"{example.name}: see what it printed"


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of `penstock serve app.py`, run as a reader does, except that any port will do."""
    command = [sys.executable, "-m", "penstock", "serve", "app.py", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(
                r"penstock \S+ serves iris on (http://127\.0\.0\.1:\d+) and grpc://127\.0\.0\.1:\d+\n", line
            )
            assert found, f"it said {line!r}"
            yield found[1]
        finally:
            process.terminate()
            process.communicate(timeout=30)
    assert process.returncode == 0


def test_the_server_of_the_readme_answers_as_shown(tmp_path: Path) -> None:
    found = blocks(ROOT / "README.md")
    (app,) = [block.text for block in found if block.text.startswith("# app.py\n")]
    (curl,) = [block.text for block in found if block.text.startswith("$ curl")]
    (shown,) = [block.text for block in found if block.language == "json"]
    request = re.fullmatch(r"\$ curl -s http://127\.0\.0\.1:8000(\S+) -d '(.*)'\n", curl, re.DOTALL)
    assert request, "the test must send what the reader sends"
    (tmp_path / "app.py").write_text(app, encoding="utf-8")
    with (
        served(tmp_path) as url,
        urllib.request.urlopen(url + request[1], data=request[2].encode(), timeout=30) as reply,
    ):
        answer = json.load(reply)
    expected = json.loads(shown)
    for got, wanted in zip(answer["outputs"], expected["outputs"], strict=True):
        if wanted["datatype"] == "FP32":  # sums of another processor may differ in the last digit
            wanted["data"] = pytest.approx(wanted["data"], rel=1e-5)
        assert got == wanted
    assert {**answer, "outputs": 0} == {**expected, "outputs": 0}


def test_security_lists_every_file_with_unsafe_code() -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.rs")}
    unsafe = {str(path.relative_to(ROOT)) for path, text in sources.items() if re.search(r"\bunsafe \{", text)}
    listed = re.findall(r"^\| `(src/\S+)` \|", (ROOT / "SECURITY.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(listed) == unsafe


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", ["notebook", "pipeline"])
def test_the_notebook_runs_in_a_fresh_kernel(name: str, tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    script = ROOT / "docs" / ("make_notebook.py" if name == "notebook" else f"make_{name}_notebook.py")
    made = tmp_path / f"{name}.ipynb"
    # A process of its own: a kernel's machinery warns of things that are none of ours.
    finished = subprocess.run(
        [sys.executable, script, "--output", made],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    fresh, committed = (
        json.loads(path.read_text(encoding="utf-8"))["cells"] for path in (made, script.parent / made.name)
    )
    assert [cell["source"] for cell in fresh] == [cell["source"] for cell in committed], (
        f"docs/{made.name} is not what {script.name} makes: run it again"
    )
    for cell in committed:
        if cell["cell_type"] == "code":
            assert cell["execution_count"], "the notebook was committed without its outputs"
            assert all(output["output_type"] != "error" for output in cell["outputs"])
