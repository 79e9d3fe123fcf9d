"""The end of the process: whatever is in flight, it ends soon, with the right code and nothing on stderr.

Functions that must not hold the exit up sleep for an hour; a script that is not done by the limit fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.python.support.scripts import Finished, Script

SAYS_IN = 'print("in" + chr(10), end="", flush=True)'
"""At once with its end of line: two threads may print."""
HOUR = """
def sleeps(x):
    print("in" + chr(10), end="", flush=True)
    time.sleep(3600)
    return x

async def sleeps_async(x):
    print("in" + chr(10), end="", flush=True)
    await asyncio.sleep(3600)
    return x

def spins(x):
    print("in" + chr(10), end="", flush=True)
    while True:
        time.sleep(0.0005)

def churns(x):
    print("in" + chr(10), end="", flush=True)
    while True:
        sum(range(100))
"""
BUSY = ["sleeps", "sleeps_async", "spins", "churns"]


def ended(done: Finished, code: int = 0) -> list[str]:
    assert (done.code, done.err) == (code, ""), done
    return done.out


def test_importing_alone_starts_no_thread_and_ends(script: Script) -> None:
    assert ended(script.run("print(threading.active_count())")) == ["1"]


def test_importing_does_not_change_the_switch_interval(script: Script) -> None:
    assert ended(script.run("print(sys.getswitchinterval())")) == ["0.005"]


@pytest.mark.parametrize("workers", [1, 3, "inline"])
def test_an_idle_batcher_that_was_never_closed_holds_nothing_up(workers: object, script: Script) -> None:
    done = script.run(f"""
    f = batched(lambda x: x * 2, workers={workers!r})
    print(f.call(21))
    print(asyncio.run(f.map([1, 2])) == [2, 4])
    """)
    assert ended(done) == ["42", "True"]


@pytest.mark.parametrize("fn", BUSY)
def test_work_in_flight_from_a_loop_does_not_hold_the_exit_up(fn: str, script: Script) -> None:
    done = script.run(f"""{HOUR}
f = batched({fn})
async def main():
    future = f(1)
    while not f.stats().running:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
asyncio.run(main())
print("end")
""")
    assert ended(done) == ["in", "end"]


@pytest.mark.parametrize("fn", BUSY)
def test_a_daemon_thread_in_call_does_not_hold_the_exit_up(fn: str, script: Script) -> None:
    done = script.run(f"""{HOUR}
f = batched({fn})
threading.Thread(target=f.call, args=(1,), daemon=True).start()
while not f.stats().running:
    time.sleep(0.01)
time.sleep(0.05)
print("end")
""")
    assert ended(done) == ["in", "end"]


def test_a_daemon_thread_with_a_loop_of_its_own_does_not_hold_the_exit_up(script: Script) -> None:
    done = script.run(f"""{HOUR}
f = batched(sleeps)
g = batched(lambda x: x)
async def main():
    future = f(1)
    while True:
        await g(1)
threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
while not f.stats().running:
    time.sleep(0.01)
time.sleep(0.1)
print("end")
""")
    out = done.out
    assert done.code == 0, done
    assert out == ["in", "end"]
    assert "Fatal" not in done.err
    assert "panic" not in done.err


def test_queued_work_does_not_hold_the_exit_up_and_is_not_run(script: Script) -> None:
    done = script.run(f"""{HOUR}
f = batched(sleeps, max_batch_size=1)
async def main():
    futures = [f(number) for number in range(50)]
    while not f.stats().running:
        await asyncio.sleep(0.01)
asyncio.run(main())
print(f.stats().queued)
""")
    assert ended(done) == ["in", "49"]


def test_work_that_is_nearly_done_is_waited_for(script: Script) -> None:
    done = script.run("""
    def f(x):
        time.sleep(0.3)
        print("done", flush=True)
        return x
    f = batched(f)
    async def main():
        future = f(1)
        while not f.stats().running:
            await asyncio.sleep(0.01)
    asyncio.run(main())
    """)
    assert ended(done) == ["done"]


@pytest.mark.parametrize("fn", ["sleeps", "sleeps_async"])
def test_sys_exit_inside_a_coroutine_ends_with_its_code(fn: str, script: Script) -> None:
    done = script.run(f"""{HOUR}
f = batched({fn})
async def main():
    future = f(1)
    while not f.stats().running:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    sys.exit(3)
asyncio.run(main())
""")
    assert ended(done, 3) == ["in"]


def test_an_exception_that_ends_the_program_ends_it(script: Script) -> None:
    done = script.run(f"""{HOUR}
f = batched(sleeps)
threading.Thread(target=f.call, args=(1,), daemon=True).start()
while not f.stats().running:
    time.sleep(0.01)
raise KeyError("the user's own")
""")
    assert done.code == 1
    assert done.err.strip().endswith('KeyError: "the user\'s own"')
    assert done.err.count("Traceback") == 1


def test_a_batcher_used_in_an_exit_handler_answers_or_says_closed(script: Script) -> None:
    done = script.run("""
    import atexit
    f = batched(lambda x: x * 2)
    g = batched(lambda x: x * 2)
    print(f.call(1))
    def last():
        for batcher in (f, g):
            try:
                print(batcher.call(4))
            except penstock.errors.Closed:
                print("closed")
    atexit.register(last)
    """)
    out = ended(done)
    assert out[0] == "2"
    assert set(out[1:]) <= {"8", "closed"}
    assert len(out) == 3


def test_a_batcher_that_is_used_for_the_first_time_in_a_finalizer_hangs_nobody(script: Script) -> None:
    done = script.run("""
    f = batched(lambda x: x * 2)
    class Late:
        def __del__(self):
            try:
                f.options(timeout=1).call(1)
            except BaseException:
                pass
    late = Late()
    keep = sys.modules["late"] = late
    print("end")
    """)
    assert (done.code, done.out) == (0, ["end"]), done


def test_a_thread_that_waits_when_the_program_ends_gets_closed(script: Script) -> None:
    done = script.run(f"""{HOUR}
import atexit
f = batched(sleeps, max_batch_size=1)
def waits():
    try:
        f.call(2)
    except penstock.errors.Closed:
        print("closed" + chr(10), end="", flush=True)
threading.Thread(target=f.call, args=(1,), daemon=True).start()
while not f.stats().running:
    time.sleep(0.01)
threading.Thread(target=waits, daemon=True).start()
while not f.stats().queued:
    time.sleep(0.01)
""")
    assert ended(done) == ["in", "closed"]


@pytest.mark.parametrize("fn", BUSY)
def test_ctrl_c_during_call_raises_keyboard_interrupt(fn: str, script: Script) -> None:
    done = script.interrupt(f"""{HOUR.replace(SAYS_IN, 'print("ready", flush=True)')}
f = batched({fn})
try:
    f.call(1)
except KeyboardInterrupt:
    print("interrupted", f.stats().running)
""")
    assert ended(done) == ["interrupted 1"]


@pytest.mark.parametrize("fn", ["sleeps", "spins", "churns"])
def test_ctrl_c_during_an_inline_call_raises_keyboard_interrupt(fn: str, script: Script) -> None:
    done = script.interrupt(f"""{HOUR.replace(SAYS_IN, 'print("ready", flush=True)')}
f = batched({fn}, workers="inline")
try:
    f.call(1)
except KeyboardInterrupt:
    print("interrupted", f.stats().running)
""")
    assert ended(done) == ["interrupted 0"]


def test_ctrl_c_while_a_call_waits_takes_it_out_of_the_queue(script: Script) -> None:
    done = script.interrupt("""
    seen, go = [], threading.Event()
    def f(x):
        seen.extend(x.tolist())
        go.wait(20)
        return x
    f = batched(f, max_batch_size=1)
    first = threading.Thread(target=f.call, args=(1,))
    first.start()
    while not f.stats().running:
        time.sleep(0.01)
    threading.Thread(target=lambda: (time.sleep(0.2), print("ready", flush=True))).start()
    try:
        f.call(2)
    except KeyboardInterrupt:
        print("interrupted")
    go.set()
    first.join()
    print(f.call(3), seen)
    """)
    assert ended(done) == ["interrupted", "3 [1, 3]"]


@pytest.mark.parametrize("fn", BUSY)
def test_ctrl_c_during_asyncio_run_raises_keyboard_interrupt(fn: str, script: Script) -> None:
    done = script.interrupt(f"""{HOUR.replace(SAYS_IN, 'print("ready", flush=True)')}
f = batched({fn})
async def main():
    await f(1)
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
""")
    assert ended(done) == ["interrupted"]


def test_ctrl_c_during_close_raises_keyboard_interrupt(script: Script) -> None:
    done = script.interrupt(
        f"""{HOUR}
f = batched(sleeps)
threading.Thread(target=f.call, args=(1,), daemon=True).start()
while not f.stats().running:
    time.sleep(0.01)
threading.Thread(target=lambda: (time.sleep(0.2), print("ready", flush=True)), daemon=True).start()
try:
    f.close()
except KeyboardInterrupt:
    print("interrupted")
""".replace(SAYS_IN, "pass")
    )
    assert ended(done) == ["interrupted"]
