"""A real Chromium, without a window, that asks nobody but whom a test names."""

from __future__ import annotations

import asyncio
import inspect
import shutil
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from playwright.async_api import async_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

FLAGS = [
    "--no-sandbox",  # tests run as root, in a container of their own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 30.0


class Sync:
    """Playwright's asynchronous interface, called from a thread without a loop.

    Its own synchronous interface switches stacks under the interpreter's feet, after which Python 3.11 cannot print
    what failed in a test.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, thing: Any) -> None:
        self.loop = loop
        self.thing = thing

    def wait_for(self, awaitable: Any) -> Any:
        async def awaited() -> Any:
            return await awaitable

        return asyncio.run_coroutine_threadsafe(awaited(), self.loop).result(PATIENCE + 30)

    def _wrapped(self, value: Any) -> Any:
        return Sync(self.loop, value) if type(value).__module__.startswith("playwright.") else value

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.thing, name)
        if not callable(value):
            return self._wrapped(value)

        def call(*arguments: Any, **keywords: Any) -> Any:
            keywords = {name: each.thing if isinstance(each, Sync) else each for name, each in keywords.items()}

            async def called() -> Any:
                # Also what does not wait may send something, and only the loop's own thread may.
                found = value(*arguments, **keywords)
                return await found if inspect.isawaitable(found) else found

            return self._wrapped(self.wait_for(called()))

        return call


@contextmanager
def chromium() -> Iterator[Sync]:
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    assert path, "there is no chromium: tools/bootstrap interop installs it"
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="chromium")
    thread.start()
    start = Sync(loop, None)
    try:
        playwright = start.wait_for(async_playwright().start())
        try:
            browser = start.wait_for(playwright.chromium.launch(executable_path=path, args=FLAGS))
            yield Sync(loop, browser)
            start.wait_for(browser.close())
        finally:
            start.wait_for(playwright.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Visit:
    """A page in a window of its own: what it said on the console, and whom it asked."""

    def __init__(self, browser: Sync, url: str, **options: Any) -> None:
        width, height = options.pop("size", (1440, 900))
        self.context = browser.new_context(viewport={"width": width, "height": height}, **options)
        self.context.set_default_timeout(PATIENCE * 1000)
        self.page: Any = self.context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._heard)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)

    def _heard(self, message: Any) -> None:
        # That a server does not answer, or refuses, is what some tests are about: the browser says it by itself.
        if message.type in {"error", "warning"} and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def wait(self, condition: str) -> None:
        """Waits until an expression of the page is true; its policy forbids what Playwright has for this."""
        end = time.monotonic() + PATIENCE
        while not self.page.evaluate(condition):
            assert time.monotonic() < end, f"it never happened that {condition}"
            time.sleep(0.05)

    def hosts(self) -> set[str]:
        return {urlsplit(url).netloc for url in self.asked if not url.startswith("data:")}

    def close(self) -> None:
        self.context.close()
