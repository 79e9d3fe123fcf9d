"""Event loops that come and go around clients, streams and pipelines: fifty in a row, two at a time, closed at work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.python.support.scripts import Finished, Script

SERVED = """
from penstock import AsyncClient, Pipeline, Server

@penstock.model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def double(x):
    return x * 2

entered, go = threading.Event(), threading.Event()

@penstock.model("gated", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def gated(x):
    entered.set()
    go.wait(20)
    return x * 2

@penstock.model("words", task="generate")
def words(request):
    yield from ("a ", "b ", "c ")

@penstock.model("endless", task="generate")
def endless(request):
    while True:
        yield "on "
        time.sleep(0.002)

ALL = [double, gated, words, endless]
server = Server(ALL, port=0).start()
client = AsyncClient(server.url)
pipeline = Pipeline(ALL).start()

def rows(number):
    return {"x": np.full((1, 2), number, np.float32)}

def files():
    return len(os.listdir("/proc/self/fd"))

def penstock_threads():
    return sum(thread.name.startswith("penstock") for thread in threading.enumerate())

async def infers(number):
    return int((await client.infer("double", rows(number)))["y"][0, 0])

ENDLESS = {"model": "endless", "prompt": "", "stream": True}

async def streams(number):
    asked = {"model": "words", "prompt": "", "stream": True}
    async with client.stream("POST", "/v1/completions", json=asked) as stream:
        assert len([event async for event in stream.sse()]) == 5
    return 2 * number

async def asks_the_pipeline(number):
    return int((await pipeline.infer("double", rows(number)))["y"][0, 0])

async def streams_from_the_pipeline(number):
    assert [text async for text in pipeline.stream("words", prompt="")] == ["a ", "b ", "c "]
    return 2 * number

async def works(number):
    for each in (infers, streams, asks_the_pipeline, streams_from_the_pipeline):
        assert await each(number) == 2 * number, each
    return True
"""
END = """
go.set()
asyncio.run(client.aclose())
pipeline.close()
server.close()
"""


def ended(done: Finished) -> list[str]:
    assert (done.code, done.err) == (0, ""), done
    return done.out


EACH = pytest.mark.parametrize("use", ["infers", "streams", "asks_the_pipeline", "streams_from_the_pipeline"])


def test_fifty_loops_one_after_the_other_leak_nothing(script: Script) -> None:
    done = script.run(
        f"""{SERVED}
for number in range(50):
    assert asyncio.run(works(number))
    if number == 10:
        early = files(), penstock_threads()
print(files() <= early[0] + 3, penstock_threads() <= early[1] + 1, early, files(), penstock_threads())
{END}"""
    )
    assert ended(done)[0].startswith("True True"), done.out


@EACH
def test_two_loops_in_two_threads_share_what_there_is(use: str, script: Script) -> None:
    done = script.run(
        f"""{SERVED}
async def many(first):
    return await asyncio.gather(*({use}(number) for number in range(first, first + 100)))

found = {{}}
def run(first):
    found[first] = asyncio.run(many(first))
threads = [threading.Thread(target=run, args=(first,)) for first in (0, 1000)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(20)
print(all(found[first] == [2 * number for number in range(first, first + 100)] for first in (0, 1000)))
{END}"""
    )
    assert ended(done) == ["True"]


AT_WORK = {
    "a request": 'client.infer("gated", rows(1))',
    "a request of a pipeline": 'pipeline.infer("gated", rows(1))',
    "a stream": 'reads(client.stream("POST", "/v1/completions", json=ENDLESS))',
    "a stream of a pipeline": 'reads_on(pipeline.stream("endless", prompt=""))',
}


@pytest.mark.parametrize("how", ["run ends", "closed as it is"])
@pytest.mark.parametrize("what", AT_WORK.values(), ids=AT_WORK)
def test_a_loop_that_closes_over_what_is_under_way_harms_no_later_loop(what: str, how: str, script: Script) -> None:
    # A loop that is closed under its tasks says so itself, where it is asked to: that is not ours to prevent.
    done = script.run(
        f"""{SERVED}
import gc, warnings, weakref
async def reads(stream):
    async with stream as events:
        async for _ in events.sse():
            entered.set()

async def reads_on(stream):
    async for _ in stream:
        entered.set()

async def begins():
    task = asyncio.ensure_future({what})
    while not entered.is_set():
        await asyncio.sleep(0.01)
    return task

if {how == "run ends"}:
    asyncio.run(begins())
else:
    logging.getLogger("asyncio").disabled = True
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda unraisable: None
    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(begins())
    loop.close()
    gone = weakref.ref(task)
    del task, loop
go.set()
for number in range(3):
    print(asyncio.run(works(number)))
if {how == "closed as it is"}:
    # The next loop finds that nobody waits any more, and lets go of the task: from then on it is Python's to collect.
    end = time.monotonic() + 15
    while gone() is not None and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)
    assert gone() is None
{END}"""
    )
    assert ended(done) == ["True"] * 3
