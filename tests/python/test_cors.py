"""Pages of other origins, asking as browsers do."""

from __future__ import annotations

import httpx
import pytest

import penstock
from penstock.errors import ConfigError
from tests.python.support.security import HASH, double

APP = {"origin": "https://app.example"}
EVIL = {"origin": "https://evil.example"}
ASKED = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}


def test_pages_of_a_named_origin_may_and_no_others() -> None:
    settings = {"cors_origins": "https://app.example, http://localhost:3000", "cors_max_age": 60}
    with (
        penstock.Server(double, port=0, api_keys={"a": HASH}, **settings) as server,
        httpx.Client(base_url=server.url) as browser,
    ):
        path = "/v2/models/double/infer"
        answer = browser.options(path, headers=APP | ASKED)
        assert (answer.status_code, answer.headers["access-control-max-age"]) == (204, "60")
        assert answer.headers["access-control-allow-headers"] == "authorization"
        assert browser.options(path, headers=EVIL | ASKED).status_code == 403
        answer = browser.post(path, headers=APP, json={})
        assert answer.status_code == 401
        assert answer.headers["access-control-allow-origin"] == APP["origin"]
        answer = browser.post(path, headers=EVIL, json={})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
        own = {"origin": server.url}
        assert browser.post(path, headers=own, json={}).status_code == 401


def test_no_page_touches_the_models_of_a_server_that_names_no_origins() -> None:
    with penstock.Server(double, port=0) as server, httpx.Client(base_url=server.url) as browser:
        assert browser.post("/v2/repository/models/double/unload", headers=EVIL).status_code == 403
        assert browser.post("/v2/repository/index").status_code == 200
        assert browser.post("/v2/repository/index", headers={"origin": server.url}).status_code == 200
        assert browser.get("/v2", headers=EVIL).status_code == 200


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "null", "https://a/b", "https://u:p@a"])
def test_what_is_no_origin_is_refused_by_name(origin: str) -> None:
    with pytest.raises(ConfigError, match="cors_origins"):
        penstock.Server(double, port=0, cors_origins=[origin]).start()
