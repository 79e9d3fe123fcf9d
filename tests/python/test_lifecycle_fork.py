"""Forked and spawned processes: what was unused works in the child, what was used says so, the parent goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.python.support.scripts import IN_CHILD

if TYPE_CHECKING:
    from tests.python.support.scripts import Finished, Script

FORK = (
    """
import warnings
warnings.filterwarnings("ignore", category=DeprecationWarning)  # Python 3.12 warns of every fork with threads

def double(x):
    return x * 2
"""
    + IN_CHILD
)


def ended(done: Finished) -> list[str]:
    assert (done.code, done.err) == (0, ""), done
    return done.out


WORKERS = pytest.mark.parametrize("workers", [1, 3, "inline"])


@WORKERS
def test_a_batcher_that_was_not_used_works_in_child_and_parent(workers: object, script: Script) -> None:
    done = script.run(f"""{FORK}
f = batched(double, workers={workers!r})
def child():
    print(f.call(4), asyncio.run(f.map(range(3))) == [0, 2, 4])
    f.close()
in_child(child)
print(f.call(5))
""")
    assert ended(done) == ["8 True", "exit 5", "10"]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_batcher_that_was_used_says_closed_with_advice_in_the_child_and_the_parent_goes_on(
    workers: int, script: Script
) -> None:
    done = script.run(f"""{FORK}
f = batched(double, workers={workers})
print(f.call(1))
def child():
    async def awaits():
        await f(1)
    for use in (lambda: f.call(1), lambda: asyncio.run(awaits()), lambda: f.options(timeout=5).call(1)):
        try:
            use()
        except penstock.errors.Closed as error:
            print("closed", "fork" in str(error))
in_child(child)
print(f.call(2))
print(asyncio.run(f.map([3])) == [6])
""")
    assert ended(done) == ["2", "closed True", "closed True", "closed True", "exit 5", "4", "True"]


def test_a_used_inline_batcher_works_or_says_closed_in_the_child(script: Script) -> None:
    done = script.run(f"""{FORK}
f = batched(double, workers="inline")
print(f.call(1))
def child():
    try:
        print(f.call(2))
    except penstock.errors.Closed as error:
        print("closed", "fork" in str(error))
in_child(child)
print(f.call(2))
""")
    out = ended(done)
    assert out[1] in ("4", "closed True")
    assert [out[0], *out[2:]] == ["2", "exit 5", "4"]


def test_closing_a_used_batcher_in_the_child_does_not_hang(script: Script) -> None:
    done = script.run(f"""{FORK}
f = batched(double)
print(f.call(1))
def child():
    f.close()
    asyncio.run(f.aclose())
    print("closed", f.closed)
in_child(child)
print(f.closed, f.call(2))
""")
    assert ended(done) == ["2", "closed True", "exit 5", "False 4"]


@pytest.mark.parametrize("use", ["f.close(timeout=1)", "f.stats()", "repr(f)", "globals().pop('f')"])
def test_a_child_forked_while_the_function_runs_can_let_go_of_its_batcher_and_exit(use: str, script: Script) -> None:
    done = script.run(f"""{FORK}
go = threading.Event()
def waits(x):
    go.wait(20)
    return x
f = batched(waits, max_batch_size=1)
threads = [threading.Thread(target=f.call, args=(1,)) for _ in range(3)]
for thread in threads:
    thread.start()
while not (f.stats().running and f.stats().queued == 2):
    time.sleep(0.01)
def child():
    {use}
    print(batched(double).call(2))
in_child(child)
go.set()
for thread in threads:
    thread.join()
print(f.call(7))
""")
    assert ended(done) == ["4", "exit 5", "7"]


@WORKERS
def test_a_forked_child_can_make_batchers_of_its_own(workers: object, script: Script) -> None:
    done = script.run(f"""{FORK}
old = batched(double)
async def parent():
    return await old(1)
print(asyncio.run(parent()))
def child():
    f = batched(double, workers={workers!r})
    async def main():
        return await asyncio.gather(*map(f, range(3)))
    print(f.call(4), asyncio.run(main()) == [0, 2, 4])
    asyncio.run(f.aclose())
in_child(child)
print(old.call(5))
""")
    assert ended(done) == ["2", "8 True", "exit 5", "10"]


def test_async_functions_work_in_a_child_after_they_ran_in_the_parent(script: Script) -> None:
    done = script.run(f"""{FORK}
async def slow_double(x):
    await asyncio.sleep(0.001)
    return x * 2
print(batched(slow_double).call(1))
def child():
    f = batched(slow_double)
    print(f.call(2), asyncio.run(f.map([3])) == [6])
in_child(child)
print(batched(slow_double).call(4))
""")
    assert ended(done) == ["2", "4 True", "exit 5", "8"]


def test_a_fork_inside_a_running_loop_leaves_the_parents_loop_alone(script: Script) -> None:
    done = script.run(f"""{FORK}
f = batched(double)
async def main():
    print(await f(1))
    def child():
        g = batched(double)
        print(g.call(2))
    in_child(child)
    print(await f(3))
asyncio.run(main())
""")
    assert ended(done) == ["2", "4", "exit 5", "6"]


def test_the_answers_of_the_parent_do_not_go_to_the_child(script: Script) -> None:
    done = script.run(f"""{FORK}
f = batched(double)
async def main():
    for turn in range(5):
        futures = [f(number) for number in range(20)]
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        assert await asyncio.wait_for(asyncio.gather(*futures), 10) == [2 * n for n in range(20)]
        os.waitpid(pid, 0)
    print("all")
asyncio.run(main())
""")
    assert ended(done) == ["all"]


def test_a_child_of_a_child_works(script: Script) -> None:
    done = script.run(f"""{FORK}
print(batched(double).call(1))
def child():
    print(batched(double).call(2))
    in_child(lambda: print(batched(double).call(3)))
in_child(child)
""")
    assert ended(done) == ["2", "4", "6", "exit 5", "exit 5"]


POOL = """
import multiprocessing
import warnings
warnings.filterwarnings("ignore", category=DeprecationWarning)

f = batched(lambda x: x * 2)

def work(number):
    return int(f.call(number)), len(asyncio.run(f.map([1, 2])))

if __name__ == "__main__":
    with multiprocessing.get_context("{method}").Pool(2) as pool:
        print(pool.map(work, range(4)))
        pool.close()
        pool.join()
    print(f.call(21))
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_batcher_of_the_module_works_in_a_pool_of_processes(method: str, script: Script) -> None:
    done = script.run(POOL.format(method=method), limit=60)
    assert ended(done) == ["[(0, 2), (2, 2), (4, 2), (6, 2)]", "42"]


RAISES = """
import multiprocessing

def fails(x):
    raise ValueError("in the child")

f = batched(fails)

def work(number):
    return f.call(number)

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        try:
            pool.apply(work, (1,))
        except penstock.errors.ModelError as error:
            print("ModelError", "in the child" in str(error))
        pool.close()
        pool.join()
"""


def test_errors_cross_from_a_process_to_its_parent(script: Script) -> None:
    assert ended(script.run(RAISES, limit=60)) == ["ModelError True"]
