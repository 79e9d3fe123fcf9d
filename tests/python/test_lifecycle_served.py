"""Servers, pipelines and the streams of clients at the end of a process, under Ctrl-C, over forks and in notebooks.

What must not hold an exit up lasts an hour; a script that is not done by the limit fails, and so does one that says
anything on stderr.
"""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.python.support.scripts import IN_CHILD

if TYPE_CHECKING:
    from tests.python.support.scripts import Finished, Script

MODELS = """
import warnings
os.environ["PENSTOCK_DRAIN_TIMEOUT"] = "0.5"
warnings.filterwarnings("ignore", category=DeprecationWarning)  # Python 3.12 warns of every fork with threads
from penstock import AsyncClient, Client, Pipeline, Server

@penstock.model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def double(x):
    return x * 2

@penstock.model("sleeps", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def sleeps(x):
    entered.set()
    time.sleep(3600)
    return x

@penstock.model("endless", task="generate")
def endless(request):
    while True:
        yield "on "
        time.sleep(0.005)

@penstock.model("silent", task="generate")
async def silent(request):
    yield "first "
    await asyncio.sleep(3600)

entered = threading.Event()
ALL = [double, sleeps, endless, silent]
X = {"x": np.ones((1, 2), np.float32)}
ASKED = {"model": "endless", "prompt": "", "stream": True}

def told(y):
    return np.asarray(y).ravel().tolist()

def soon(condition):
    end = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)

def at_work(ask, until=entered):
    # Somebody waits for what lasts an hour; that he hears in the end that nobody is there is his own affair.
    def waits():
        try:
            ask("sleeps", X)
        except penstock.PenstockError:
            pass
    threading.Thread(target=waits, daemon=True).start()
    assert until.wait(15)
"""


def ended(done: Finished, code: int = 0) -> list[str]:
    assert (done.code, done.err) == (code, ""), done
    return done.out


# -- the end of the process

OPEN = {
    "a server": "server = Server(ALL, port=0).start()",
    "a server that was asked": """server = Server(ALL, port=0).start()
client = Client(server.url)
assert told(client.infer("double", X)["y"]) == [2, 2]""",
    "a server at work": """server = Server(ALL, port=0).start()
client = Client(server.url)
at_work(client.infer)""",
    "a server that streams": """server = Server(ALL, port=0).start()
client = Client(server.url)
stream = client.stream("POST", "/v1/completions", json=ASKED).__enter__()
events = stream.sse()
next(events)""",
    "a server that loads": """
@penstock.model("late", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
class Late:
    def load(self, ctx):
        loads.set()
        time.sleep(3600)
    def predict(self, x):
        return x
loads = threading.Event()
server = Server([double, Late], port=0)
at_work(lambda *_: server.start(), loads)""",
    "a pipeline": """pipeline = Pipeline(ALL).start()
assert told(pipeline.call("double", X)["y"]) == [2, 2]""",
    "a pipeline at work": """pipeline = Pipeline(ALL).start()
at_work(pipeline.call)""",
    "a loop that ends at work": """
async def main():
    client = AsyncClient(server.url)
    task = asyncio.create_task(client.infer("sleeps", X))
    while not entered.is_set():
        await asyncio.sleep(0.01)
server = Server(ALL, port=0).start()
asyncio.run(main())""",
}


@pytest.mark.parametrize("what", OPEN.values(), ids=OPEN)
def test_what_is_open_does_not_hold_the_exit_up(what: str, script: Script) -> None:
    assert ended(script.run(f"{MODELS}\n{what}\nprint('end')")) == ["end"]


@pytest.mark.parametrize("what", ["Server(ALL, port=0)", "Pipeline(ALL)"])
def test_sys_exit_within_a_context_ends_with_its_code(what: str, script: Script) -> None:
    done = script.run(f"{MODELS}\nwith {what} as served:\n    sys.exit(3)")
    assert ended(done, 3) == []


@pytest.mark.parametrize("how", ["", "server.close()", "sys.exit(0)", "os.kill(os.getpid(), signal.SIGINT)"])
def test_a_program_that_ends_while_others_ask_ends_in_peace(how: str, script: Script) -> None:
    """Finalisation while serving: requests come in until there is nobody any more."""
    process = script.start(f"""{MODELS}
server = Server(ALL, port=0).start()
print(server.url, flush=True)
try:
    soon(lambda: server.stats().models["double"].requests > 200)
    {how or "pass"}
except KeyboardInterrupt:
    pass
""")
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,1]}]}'
    answers: list[bytes] = []

    def ask() -> None:
        try:
            while process.poll() is None:
                request = urllib.request.Request(f"{url}/v2/models/double/infer", data=body)
                with urllib.request.urlopen(request, timeout=20) as answer:
                    answers.append(answer.read())
        except (OSError, urllib.error.HTTPError):
            pass  # it has gone, or is about to

    asking = [threading.Thread(target=ask) for _ in range(8)]
    for thread in asking:
        thread.start()
    done = script.finish(process)
    for thread in asking:
        thread.join(30)
    assert ended(done) == []
    assert len(answers) >= 200
    assert {b'"data":[2.0,2.0]' in answer for answer in answers} == {True}


# -- Ctrl-C

LEFT = re.compile(r"after [\d.]+ s a model cache that closes still has (sleeps|late)@1")
SAY = "threading.Timer(0.3, print, ['ready'], {'flush': True}).start()"
WAITS = {
    "in the context of a server": "with Server(ALL, port=0):\n        SAY\n        time.sleep(3600)",
    "in the context of a server at work": """with Server(ALL, port=0) as server, Client(server.url) as client:
        at_work(client.infer)
        SAY
        time.sleep(3600)""",
    "in asyncio with a server": """async def main():
        async with Server(ALL, port=0):
            SAY
            await asyncio.sleep(3600)
    asyncio.run(main())""",
    "while a server loads": """@penstock.model("late", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
    class Late:
        def load(self, ctx):
            SAY
            time.sleep(3600)
        def predict(self, x):
            return x
    with Server(Late, port=0):
        print("never")""",
    "while a server closes": """server = Server(ALL, port=0, drain_timeout=3600).start()
    client = Client(server.url)
    at_work(client.infer)
    SAY
    server.close()""",
    "in a blocking stream": """with Server(ALL, port=0) as server, Client(server.url) as client:
        with client.stream("POST", "/v1/completions", json=ASKED) as stream:
            SAY
            for event in stream.sse():
                pass""",
    "in a blocking stream that says nothing": """with Server(ALL, port=0) as server, Client(server.url) as client:
        with client.stream("POST", "/v1/completions", json={**ASKED, "model": "silent"}) as stream:
            SAY
            for event in stream.sse():
                pass""",
    "in an asyncio stream": """async def main():
        async with Server(ALL, port=0) as server, AsyncClient(server.url) as client:
            async with client.stream("POST", "/v1/completions", json=ASKED) as stream:
                SAY
                async for event in stream.sse():
                    pass
    asyncio.run(main())""",
    "in an await of a client": """async def main():
        async with Server(ALL, port=0) as server, AsyncClient(server.url) as client:
            SAY
            await client.infer("sleeps", X)
    asyncio.run(main())""",
    "in a call of a pipeline": """with Pipeline(ALL) as pipeline:
        SAY
        pipeline.call("sleeps", X)""",
    "in an await of a pipeline": """async def main():
        async with Pipeline(ALL) as pipeline:
            SAY
            await pipeline.infer("sleeps", X)
    asyncio.run(main())""",
    "in a stream of a pipeline": """async def main():
        async with Pipeline(ALL) as pipeline:
            SAY
            async for text in pipeline.stream("endless", prompt=""):
                pass
    asyncio.run(main())""",
}


@pytest.mark.parametrize("where", WAITS.values(), ids=WAITS)
def test_ctrl_c_is_a_keyboard_interrupt_and_the_end(where: str, script: Script) -> None:
    """What sleeps in a thread cannot be stopped: closing waits for it, within its time, and says that it is left."""
    done = script.interrupt(f"""{MODELS}
try:
    {where.replace("SAY", SAY)}
except KeyboardInterrupt:
    print("interrupted")
""")
    assert (done.code, done.out) == (0, ["interrupted"]), done
    left = [line for line in done.err.splitlines() if not LEFT.fullmatch(line)]
    assert not left, done


# -- forks and spawned processes

ASKS = """
def asks(served):
    if isinstance(served, Pipeline):
        return told(served.call("double", X)["y"])
    with Client(served.url) as client:
        return told(client.infer("double", X)["y"])
"""
EACH = pytest.mark.parametrize("what", ["Server(ALL, port=0)", "Pipeline(ALL)"])


@EACH
def test_what_was_not_started_works_in_child_and_parent(what: str, script: Script) -> None:
    done = script.run(f"""{MODELS}{IN_CHILD}{ASKS}
served = {what}
def child():
    with served:
        print(asks(served))
in_child(child)
with served:
    print(asks(served))
""")
    assert ended(done) == ["[2.0, 2.0]", "exit 5", "[2.0, 2.0]"]


@EACH
def test_what_was_started_is_the_parents_and_goes_on(what: str, script: Script) -> None:
    done = script.run(f"""{MODELS}{IN_CHILD}{ASKS}
with {what} as served:
    print(asks(served))
    def child():
        served.close(timeout=1)
        with {what} as own:
            print(asks(own))
    in_child(child)
    in_child(lambda: None)
    print(asks(served))
""")
    assert ended(done) == ["[2.0, 2.0]", "[2.0, 2.0]", "exit 5", "exit 5", "[2.0, 2.0]"]


@EACH
def test_a_spawned_process_serves_for_itself(what: str, script: Script) -> None:
    done = script.run(f"""{MODELS}{IN_CHILD}{ASKS}
import multiprocessing

def work(number):
    with {what} as served:
        return asks(served)

if __name__ == "__main__":
    with {what} as served:
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            print(pool.map(work, range(2)))
            pool.close()
            pool.join()
        print(asks(served))
""")
    assert ended(done) == ["[[2.0, 2.0], [2.0, 2.0]]", "[2.0, 2.0]"]


# -- notebooks

CELL = """
import builtins
builtins.get_ipython = lambda: None  # what a notebook's kernel defines

def cell(text):
    exec(compile(text, "<cell>", "exec"), globals())

def held():
    return len(os.listdir("/proc/self/fd")), sum(thread.name.startswith("penstock") for thread in threading.enumerate())

CELL = '''
@penstock.model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def double(x):
    return x * FACTOR

server = Server(double, port=0).start()
client = Client(server.url)
cache = penstock.ModelCache(memory="1MiB")
@cache.loader("model")
def load(ctx):
    return FACTOR
with cache.acquire("model") as model:
    assert model == FACTOR
assert told(client.infer("double", X)["y"]) == [FACTOR, FACTOR]
'''
"""


def test_cells_that_run_again_leave_one_server_behind(script: Script) -> None:
    done = script.run(f"""{MODELS}{CELL}
servers = []
for factor in range(20):
    cell(CELL.replace("FACTOR", str(factor)))
    servers.append(server)
    if factor == 4:
        soon(lambda: all("closed" in repr(old) for old in servers[:-1]))
        early = held()
soon(lambda: all("closed" in repr(old) for old in servers[:-1]))
print("closed" in repr(server))
files, threads = held()
print(files <= early[0] + 8, threads <= early[1] + 2, (early, files, threads))
""")
    assert ended(done)[0] == "False"
    assert ended(done)[1].startswith("True True"), done.out
