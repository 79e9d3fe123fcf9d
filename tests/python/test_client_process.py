"""Clients and the process around them: forks, Ctrl-C, the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.python.support.http_server import HttpServer

if TYPE_CHECKING:
    from tests.python.support.http_server import Peer
    from tests.python.support.scripts import Script


def holding(peer: Peer) -> None:
    for request in peer:
        if request.target == "/hold":
            assert peer.sees_end()
            return
        peer.echo(request)


def test_a_client_is_used_before_and_after_a_fork(script: Script) -> None:
    with HttpServer() as server:
        finished = script.run(
            f"""
            import warnings
            warnings.simplefilter("ignore", DeprecationWarning)   # threads and forks, on 3.12
            client = penstock.Client({server.url!r})
            aclient = penstock.AsyncClient({server.url!r})
            async def one():
                return (await aclient.get("/x")).status_code
            print(client.get("/x").status_code, asyncio.run(one()))
            for _ in range(3):
                child = os.fork()
                if child == 0:
                    try:
                        assert client.get("/x").reused is False
                        assert client.get("/x").reused is True
                        assert asyncio.run(one()) == 200
                        assert len(client.request_many(["/x"] * 10)) == 10
                        client.close()
                        os._exit(7)
                    except BaseException as error:
                        print(repr(error), file=sys.stderr)
                        os._exit(1)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
                answer = client.get("/x")
                print(answer.status_code, answer.reused)
            """
        )
    assert (finished.code, finished.err) == (0, "")
    assert finished.out == ["200 200", "200 True", "200 True", "200 True"]


CALLS = {
    "get": 'client.get("/hold")',
    "many": 'client.request_many(["/x", "/hold"])',
    "many with a bar": 'client.request_many(["/x", "/hold"], return_exceptions=True)',
    "infer": 'client.infer("hold", {})',
    "stream": 'client.stream("GET", "/hold").__enter__()',
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_ctrl_c_ends_a_blocking_call(script: Script, call: str) -> None:
    def behave(peer: Peer) -> None:
        for request in peer:
            if request.target == "/x":
                peer.echo(request)
            else:
                assert peer.sees_end()
                return

    with HttpServer(behave) as server:
        finished = script.interrupt(
            f"""
            client = penstock.Client({server.url!r})
            threading.Timer(0.5, print, ["ready"], {{"flush": True}}).start()
            try:
                {call}
            except KeyboardInterrupt:
                print("interrupted")
            assert client.get("/x").status_code == 200
            """
        )
    assert (finished.code, finished.out, finished.err) == (0, ["interrupted"], "")


def test_ctrl_c_ends_asyncio(script: Script) -> None:
    with HttpServer(holding) as server:
        finished = script.interrupt(
            f"""
            async def main():
                async with penstock.AsyncClient({server.url!r}) as client:
                    asyncio.get_running_loop().call_later(0.2, lambda: print("ready", flush=True))
                    await client.get("/hold")
            try:
                asyncio.run(main())
            except KeyboardInterrupt:
                print("interrupted")
            """
        )
    assert (finished.code, finished.out, finished.err) == (0, ["interrupted"], "")


@pytest.mark.parametrize("held", ["", 'threading.Thread(target=client.get, args=("/hold",), daemon=True).start()'])
def test_a_process_ends_with_clients_open(script: Script, held: str) -> None:
    with HttpServer(holding) as server:
        finished = script.run(
            f"""
            client = penstock.Client({server.url!r})
            aclient = penstock.AsyncClient({server.url!r})
            print(client.get("/x").status_code)
            async def main():
                task = asyncio.create_task(aclient.get("/hold"))
                await asyncio.sleep(0.2)
            asyncio.run(main())
            threading.excepthook = lambda _: None   # the thread that waits is told that the client is closed
            {held}
            time.sleep(0.2)
            """
        )
    assert (finished.code, finished.out, finished.err) == (0, ["200"], "")


def test_importing_penstock_imports_no_client(script: Script) -> None:
    finished = script.run(
        """
        import subprocess
        code = "import sys, penstock; print(sorted(set(sys.modules) & {'penstock.client', 'asyncio', 'httpx', 'ssl'}))"
        print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip())
        code = "import sys, penstock; penstock.Client; penstock.transport; print('httpx' in sys.modules)"
        print(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip())
        """
    )
    assert finished.out == ["[]", "False"]
