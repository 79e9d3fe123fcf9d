"""Notebooks: cells that run again, modules that are imported again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.python.support.scripts import Finished, Script

CELLS = """
import builtins, gc
builtins.get_ipython = lambda: None  # what a notebook's kernel defines

def threads():
    return sum(thread.name.startswith("penstock-") for thread in threading.enumerate())

def threads_become(count):
    end = time.monotonic() + 15
    while threads() != count and time.monotonic() < end:
        time.sleep(0.01)
    return threads() == count

def cell(text):
    exec(compile(text, "<cell>", "exec"), globals())
"""


def ended(done: Finished) -> list[str]:
    assert (done.code, done.err) == (0, ""), done
    return done.out


CELL = '''"""
@batched{arguments}
def embed(x):
    return x * {factor}
"""'''


def embed(factor: int, arguments: str = "") -> str:
    return f"cell({CELL.format(arguments=arguments, factor=factor)})"


def test_running_a_cell_again_closes_the_older_batcher_and_ends_its_threads(script: Script) -> None:
    done = script.run(f"""{CELLS}
{embed(2, "(workers=2)")}
older = embed
print(older.call(1), threads())
{embed(3, "(workers=2)")}
print(older.closed, embed.closed, embed.call(1))
print(threads_become(2))
try:
    older.call(1)
except penstock.errors.Closed:
    print("closed")
""")
    assert ended(done) == ["2 2", "True False 3", "True", "closed"]


def test_running_a_cell_again_lets_what_waits_finish(script: Script) -> None:
    done = script.run(f"""{CELLS}
async def main():
    go = globals()["go"] = threading.Event()
    cell('''
@batched
def slow(x):
    go.wait(15)
    return x
''')
    futures = [slow(number) for number in range(3)]
    while not slow.stats().running:
        await asyncio.sleep(0.01)
    futures.append(slow(3))
    cell('''
@batched
def slow(x):
    return x * 100
''')
    go.set()
    print(list(map(int, await asyncio.gather(*futures))), int(await slow(4)))
asyncio.run(main())
""")
    assert ended(done) == ["[0, 1, 2, 3] 400"]


def test_other_names_and_several_batchers_of_one_function_are_left_open(script: Script) -> None:
    done = script.run(f"""{CELLS}
def plain(x):
    return x
def other(x):
    return x
a, b, c = batched(plain), batched(plain, max_batch_size=5), batched(other)
print(a.closed, b.closed, c.closed)
""")
    assert ended(done) == ["False False False"]


def test_lambdas_and_local_functions_are_left_open(script: Script) -> None:
    done = script.run(f"""{CELLS}
def make(factor):
    @batched
    def inner(x):
        return x * factor
    return inner
a, b = make(1), make(2)
c, d = batched(lambda x: x), batched(lambda x: x)
print([f.closed for f in (a, b, c, d)])
""")
    assert ended(done) == ["[False, False, False, False]"]


def test_methods_of_two_objects_are_left_open(script: Script) -> None:
    done = script.run(f"""{CELLS}
class Model:
    def __init__(self, factor):
        self.factor = factor
        self.f = batched(self.predict)
    def predict(self, x):
        return x * self.factor
a, b = Model(2), Model(3)
print(a.f.closed, b.f.closed)
print(a.f.call(1), b.f.call(1))
""")
    assert ended(done) == ["False False", "2 3"]


def test_outside_a_notebook_an_older_batcher_is_left_open(script: Script) -> None:
    done = script.run(f"""{CELLS}
del builtins.get_ipython
{embed(2)}
older = embed
{embed(3)}
print(older.closed, older.call(1), embed.call(1))
""")
    assert ended(done) == ["False 2 3"]


def test_an_older_batcher_that_nobody_holds_is_no_trouble(script: Script) -> None:
    done = script.run(f"""{CELLS}
for factor in range(20):
    {embed(2)}
    embed.call(1)
    del embed
    gc.collect()
print(threads_become(0))
""")
    assert ended(done) == ["True"]


def test_a_hundred_runs_of_a_cell_leave_the_threads_of_one(script: Script) -> None:
    done = script.run(f"""{CELLS}
kept = []
for factor in range(100):
    {embed(2)}
    kept.append(embed)
    assert embed.call(1) == 2
print(threads_become(1))
""")
    assert ended(done) == ["True"]


RELOADS = {
    "the package": "importlib.reload(penstock)",
    "its errors": "importlib.reload(penstock.errors)",
    "every module": "[importlib.reload(sys.modules[name]) for name in modules()]",
    "forgotten and imported again": "[sys.modules.pop(name) for name in modules()]; import penstock",
    "all forgotten": "[sys.modules.pop(name) for name in [*modules(), 'penstock._native']]; import penstock",
}


@pytest.mark.parametrize("how", RELOADS)
def test_importing_again_breaks_no_except_clause(how: str, script: Script) -> None:
    done = script.run(f"""
import importlib

def modules():
    return [name for name in sorted(sys.modules, reverse=True)
            if name.startswith("penstock") and name != "penstock._native"]

def fails(x):
    raise ValueError("no")

older, Older = batched(fails), penstock.errors
for _ in range(2):
    {RELOADS[how]}
newer, Newer = penstock.batched(fails), penstock.errors
for batcher in (older, newer):
    for errors in (Older, Newer):
        try:
            batcher.call(1)
        except errors.ModelError as error:
            print("caught", type(error.__cause__).__name__)
        try:
            penstock.batched(fails, max_batch_size=0)
        except errors.ConfigError:
            print("caught")
        refuses = penstock.batched(lambda x: [errors.ItemError("mine")] * len(x))
        try:
            refuses.call(1)
        except errors.ItemError:
            print("caught")
""")
    assert ended(done) == ["caught ValueError", "caught", "caught"] * 4
