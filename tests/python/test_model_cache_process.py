"""A model cache and the life of its process: forks, exits with loads in flight, closed loops, Ctrl-C."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.python.support.scripts import IN_CHILD

if TYPE_CHECKING:
    from tests.python.support.scripts import Finished, Script

HEAD = """
import warnings
warnings.filterwarnings("ignore", category=DeprecationWarning)  # Python 3.12 warns of every fork with threads
cache = penstock.ModelCache()
cache.loader("a")(lambda ctx: ["model"])

@cache.loader("hangs")
def hangs(ctx):
    print("ready", flush=True)
    time.sleep(3600)

@cache.loader("hangs_async")
async def hangs_async(ctx):
    print("ready", flush=True)
    await asyncio.sleep(3600)
"""


def ended(done: Finished, code: int = 0) -> list[str]:
    assert (done.code, done.err) == (code, ""), done
    return done.out


def test_registering_starts_no_thread(script: Script) -> None:
    assert ended(script.run(HEAD + "print(threading.active_count(), cache)")) == [
        "1 <penstock.ModelCache 0 of 3 models loaded, memory=None>"
    ]


def test_a_cache_that_was_never_closed_holds_nothing_up(script: Script) -> None:
    assert ended(script.run(HEAD + "print(cache.acquire('a').wait().value)")) == ["['model']"]


def test_a_lease_that_is_never_released_does_not_hold_the_exit_up(script: Script) -> None:
    done = script.run(
        HEAD
        + """
lease = cache.acquire("a").wait()
import atexit
began = []
atexit.register(lambda: print(time.monotonic() - began[0] < 1.5))
import penstock._lifecycle
penstock._lifecycle.come_first_at_exit()
began.append(time.monotonic())
"""
    )
    assert ended(done) == ["True"]


@pytest.mark.parametrize("name", ["hangs", "hangs_async"])
def test_a_load_in_flight_does_not_hold_the_exit_up(name: str, script: Script) -> None:
    done = script.run(
        HEAD
        + f"""
handle = cache.preload({name!r})
while cache.progress({name!r}).state != "loading":
    time.sleep(0.01)
time.sleep(0.1)
"""
    )
    assert ended(done) == ["ready"]


@pytest.mark.parametrize("name", ["hangs", "hangs_async"])
def test_ctrl_c_ends_waiting(name: str, script: Script) -> None:
    done = script.interrupt(
        HEAD
        + f"""
try:
    cache.acquire({name!r}).wait()
except KeyboardInterrupt:
    print("interrupted", cache.index()[0].leases)
print(cache.acquire("a").wait().value)
"""
    )
    assert ended(done) == ["interrupted 0", "['model']"]


def test_ctrl_c_ends_waiting_for_a_preload(script: Script) -> None:
    done = script.interrupt(
        HEAD
        + """
try:
    cache.preload("hangs").wait()
except KeyboardInterrupt:
    print("interrupted")
"""
    )
    assert ended(done) == ["interrupted"]


def test_ctrl_c_in_asyncio_run_gives_up_waiting(script: Script) -> None:
    done = script.interrupt(
        HEAD
        + """
async def main():
    async with cache.acquire("hangs"):
        print("no")
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
print(cache.acquire("a").wait().value)
"""
    )
    assert ended(done) == ["interrupted", "['model']"]


def test_a_cache_that_was_not_used_works_in_child_and_parent(script: Script) -> None:
    done = script.run(
        HEAD
        + IN_CHILD
        + """
in_child(lambda: (print(cache.acquire("a").wait().value), cache.close()))
print(cache.acquire("a").wait().value)
"""
    )
    assert ended(done) == ["['model']", "exit 5", "['model']"]


def test_a_cache_that_was_used_says_closed_in_the_child_and_the_parent_goes_on(script: Script) -> None:
    done = script.run(
        HEAD
        + IN_CHILD
        + """
print(cache.acquire("a").wait().value)
in_child(lambda: cache.acquire("a"))
print(cache.acquire("a").wait().value)
"""
    )
    out = ended(done)
    assert out[0] == out[3] == "['model']"
    assert out[1].startswith("child: Closed this model cache was used before a fork")
    assert out[2] == "exit 5"


def test_fifty_loops_one_after_the_other(script: Script) -> None:
    done = script.run(
        HEAD
        + """
async def main(at):
    cache.loader("b", version=at)(lambda ctx: [at])
    async with cache.acquire(f"b@{at}") as model, cache.acquire("a") as other:
        return model + other
print(all(asyncio.run(main(at)) == [at, "model"] for at in range(50)))
print(sum(row.leases for row in cache.index()))
cache.close()
time.sleep(0.1)
print(sorted(thread.name for thread in threading.enumerate()))
"""
    )
    assert ended(done) == ["True", "0", "['MainThread']"]


def test_a_loop_that_closes_over_a_wait_harms_nobody(script: Script) -> None:
    done = script.run(
        HEAD
        + """
gate = threading.Event()
cache.loader("slow")(lambda ctx: gate.wait(20))
loop = asyncio.new_event_loop()
async def wait():
    async with cache.acquire("slow"):
        pass
task = loop.create_task(wait())
loop.run_until_complete(asyncio.sleep(0.1))
task._log_destroy_pending = False
loop.close()
gate.set()
print(cache.acquire("slow").wait().value)
async def main():
    async with cache.acquire("slow") as model:
        return model
print(asyncio.run(main()))
task.get_coro().close()
"""
    )
    assert ended(done) == ["True", "True"]


def test_two_loops_at_a_time_share_a_load(script: Script) -> None:
    done = script.run(
        HEAD
        + """
gate = threading.Event()
loads = []
cache.loader("slow")(lambda ctx: (loads.append(1), gate.wait(20))[1])
async def main():
    async def one():
        async with cache.acquire("slow") as model:
            return model
    return await asyncio.gather(*(one() for _ in range(100)))
got = []
threads = [threading.Thread(target=lambda: got.extend(asyncio.run(main()))) for _ in range(2)]
for thread in threads:
    thread.start()
time.sleep(0.2)
gate.set()
for thread in threads:
    thread.join()
print(len(got), all(got), len(loads))
"""
    )
    assert ended(done) == ["200 True 1"]


def test_a_cache_that_is_dropped_closes_itself(script: Script) -> None:
    done = script.run("""
closed = []
cache = penstock.ModelCache()
cache.loader("a", close=lambda model: closed.append(model))(lambda ctx: ["model"])
cache.acquire("a").wait().release()
del cache
end = time.monotonic() + 10
while not closed and time.monotonic() < end:
    time.sleep(0.01)
while any(thread.name == "penstock-loader" for thread in threading.enumerate()) and time.monotonic() < end:
    time.sleep(0.01)
print(closed, time.monotonic() < end)
""")
    assert ended(done) == ["[['model']] True"]
