"""Where settings come from: which source is the strongest, what each value says of its own, and what is refused."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from penstock import Server, model
from penstock._settings_model import Resolved, setting, settings_of
from penstock.errors import ConfigError
from penstock.models import ModelCache
from penstock.settings import SECTIONS, CacheSettings, DoorSettings, ListenSettings, LoggingSettings, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENSTOCK_CONFIG", raising=False)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Writes `penstock.toml` into the working directory."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> Path:
        path = tmp_path / "penstock.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@model("double", inputs={"x": ("float32", [2])}, outputs={"y": ("float32", [2])})
def double(x: Any) -> Any:
    return x * 2


def test_every_source_is_stronger_than_the_one_before(write: Any) -> None:
    keywords, said, command = {"max_body": 1}, {"PENSTOCK_MAX_BODY": "3"}, {"max_body": "4"}
    assert DoorSettings.resolve({}, {}, {}).max_body == 64 << 20
    assert DoorSettings.resolve(keywords, {}, {}).max_body == 1
    write("[server]\nmax_body = 2\n")
    assert DoorSettings.resolve(keywords, {}, {}).max_body == 2
    assert DoorSettings.resolve(keywords, {}, said).max_body == 3
    assert DoorSettings.resolve(keywords, command, said).max_body == 4
    assert DoorSettings.resolve({}, command, {}).max_body == 4


def test_a_value_says_where_it_came_from_and_what_it_shadows(write: Any) -> None:
    write("# limits\n\n[server]\nmax_body = '2KiB'\n")
    settings = Settings.resolve(SECTIONS, {"max_body": 5}, {"max_body": "1MiB"}, {"PENSTOCK_MAX_BODY": "9"})
    found = settings["max_body"]
    assert (found.value, found.shown, found.default) == (1 << 20, "1 MiB", 64 << 20)
    assert (found.source.kind, str(found.source)) == ("command line", "--max-body")
    assert [(source.kind, str(source), value) for source, value in found.shadowed] == [
        ("environment", "PENSTOCK_MAX_BODY", 9),
        ("file", "penstock.toml:4 [server] max_body", 2048),
        ("keyword", "max_body", 5),
    ]
    assert (settings["max_head"].source.kind, settings["max_head"].shadowed) == ("default", ())
    assert settings.of(DoorSettings).max_body == 1 << 20


def test_settings_are_a_mapping_that_shows_what_was_said(write: Any) -> None:
    path = write("[server]\nmax_body = 1024\n")
    settings = Settings.resolve([DoorSettings], {})
    assert list(settings) == [each.name for each in settings_of(DoorSettings)]
    assert len(settings) == len(settings_of(DoorSettings))
    assert settings.file == path
    assert repr(settings) == "<penstock.Settings max_body=1 KiB (penstock.toml:2 [server] max_body)>"
    assert "penstock.toml:2 [server] max_body" in settings._repr_html_()
    assert repr(Settings.resolve([LoggingSettings], {}, {"config": ""})) == "<penstock.Settings all as by default>"
    with pytest.raises(KeyError):
        settings["no_such"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[server]\n\nmax_body = -1", "penstock.toml:3 [server] max_body must be a whole number of at least 1, not -1"),
        ("server.max_body = 'much'", "penstock.toml:1 [server] max_body must be a size"),
        ("server = { max_head = 9000, max_body = [] }", "penstock.toml:1 [server] max_body must be"),
        ("[server]\naccess_log = 1", "penstock.toml:2 [server] access_log must be true or false, not 1"),
        ("[server]\naccess_log = 2026-11-22", "penstock.toml:2 [server] access_log must be true or false"),
        ("[server]\nslow_reader = 'wait'", "penstock.toml:2 [server] slow_reader must be 'pause' or"),
        ("[listen]\nport = 70000", "penstock.toml:2 [listen] port must be a port between 0 and 65535, not 70000"),
        ("[logging]\nlog_level = 3", "penstock.toml:2 [logging] log_level must be 'debug' or"),
        ("[models]\npreload = [1]", "penstock.toml:2 [models] preload must be names of models"),
        ("[models]\nmodels = ''", "penstock.toml:2 [models] models must be the path of a directory"),
        ("[batch]\nmax_wait = nan", "penstock.toml:2 [batch] max_wait must be a positive number of seconds"),
    ],
)
def test_a_value_of_the_file_that_cannot_be_is_refused_with_its_line(write: Any, text: str, words: str) -> None:
    write(text)
    with pytest.raises(ConfigError, match=re.escape(words)):
        Settings.resolve(SECTIONS, {})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[sever]\nx = 1", "penstock.toml:1 sever: there is no section [sever]; did you mean [server]?"),
        (
            "[server]\nmax_boddy = 1",
            "penstock.toml:2 [server] max_boddy: there is no such setting; did you mean max_body?",
        ),
        (
            "[server]\nmax_loads = 1",
            "penstock.toml:2 [server] max_loads: this is a setting of [models], not of [server]",
        ),
        ("max_body = 1", "penstock.toml:1 max_body: this is a setting of [server]"),
        ("server = 1", "penstock.toml:1 server must be a section, [server], not 1"),
        ("[[server]]\nmax_body = 1", "must be a section"),
        ("[server]\nqqq = 1", "there is no such setting; there are access_log, "),
    ],
)
def test_a_name_of_the_file_that_there_is_not_is_refused(write: Any, text: str, words: str) -> None:
    write(text)
    # Whoever reads the file sees all of it: also who asks for other settings.
    with pytest.raises(ConfigError, match=re.escape(words)):
        LoggingSettings.resolve({})


@pytest.mark.parametrize("text", ["[server", "a = ", "[server]\nmax_body = 1\nmax_body = 2", "=", "\x00"])
def test_what_is_no_toml_is_refused(write: Any, text: str) -> None:
    write(text)
    with pytest.raises(ConfigError, match=r"penstock\.toml is not TOML"):
        LoggingSettings.resolve({})


def test_a_file_that_is_no_text_or_too_large_is_refused(write: Any) -> None:
    path = write("")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"penstock\.toml is not TOML"):
        LoggingSettings.resolve({})
    path.write_bytes(b"#" * (1 << 20) + b"##")
    with pytest.raises(ConfigError, match=r"penstock\.toml is larger than 1 MiB"):
        LoggingSettings.resolve({})


def test_the_line_is_right_behind_texts_of_several_lines_and_quoted_keys(write: Any) -> None:
    write("[logging]\nlog_format = '''\ntext\nlog_level = 1\n'''\n")
    with pytest.raises(ConfigError, match=r"penstock\.toml:2 \[logging\] log_format must be"):
        LoggingSettings.resolve({})
    write("[logging] # here\nlog_format = 'text' # log_level = 3\n\n  'log_level'   =   \"x\"\n")
    with pytest.raises(ConfigError, match=r"penstock\.toml:4 \[logging\] log_level must be"):
        LoggingSettings.resolve({})


def test_the_file_is_found_by_the_flag_then_the_variable_then_where_we_are(write: Any, tmp_path: Path) -> None:
    write("[listen]\nport = 1\n")
    (tmp_path / "other.toml").write_text("[listen]\nport = 2\n")
    (tmp_path / "told.toml").write_text("[listen]\nport = 3\n")
    assert ListenSettings.resolve({}, {}, {}).port == 1
    variable = {"PENSTOCK_CONFIG": str(tmp_path / "other.toml")}
    assert ListenSettings.resolve({}, {}, variable).port == 2
    assert ListenSettings.resolve({}, {"config": "told.toml"}, variable).port == 3
    assert ListenSettings.resolve({}, {}, {"PENSTOCK_CONFIG": ""}).port == 8000, "none"
    assert ListenSettings.resolve({}, {"config": ""}, variable).port == 8000, "none"
    for command, environment, words in (
        ({"config": "no.toml"}, {}, "--config: no.toml cannot be read: No such file"),
        ({}, {"PENSTOCK_CONFIG": "no.toml"}, "PENSTOCK_CONFIG: no.toml cannot be read: No such file"),
        ({"config": str(tmp_path)}, {}, "cannot be read: Is a directory"),
    ):
        with pytest.raises(ConfigError, match=re.escape(words)):
            ListenSettings.resolve({}, command, environment)


def test_a_file_that_has_changed_is_read_again(write: Any) -> None:
    for port in (1, 22, 333):
        write(f"[listen]\nport = {port}\n")
        assert ListenSettings.resolve({}, {}, {}).port == port


def test_paths_of_the_file_begin_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "penstock.toml").write_text("[models]\nmodels = 'zoo'\n")
    monkeypatch.chdir(tmp_path)
    settings = Settings.resolve(SECTIONS, {}, {"config": "etc/penstock.toml"}, {})
    assert settings["models"].value == str(tmp_path / "etc" / "zoo")
    assert Settings.resolve(SECTIONS, {}, {"models": "zoo"}, {})["models"].value == "zoo"


def test_kubernetes_may_call_a_service_penstock() -> None:
    links = {"PENSTOCK_PORT": "tcp://10.96.0.7:8000", "PENSTOCK_SERVICE_HOST": "10.96.0.7"}
    assert ListenSettings.resolve({}, {}, links).port == 8000
    with pytest.raises(ConfigError, match="PENSTOCK_PORT must be a port"):
        ListenSettings.resolve({}, {}, {"PENSTOCK_PORT": "http://10.96.0.7"})


def test_a_server_takes_the_settings_of_every_class_and_says_what_is_in_force(write: Any) -> None:
    write("[server]\nmax_streams = 7\n[models]\nmax_loads = 2\n")
    with Server(double, port=0, max_streams=9, memory="1GiB", max_body=4096) as server:
        assert server.settings["max_streams"].value == 7
        assert str(server.settings["max_streams"].source) == "penstock.toml:2 [server] max_streams"
        assert server.settings["max_body"].source.kind == "keyword"
        assert (server.settings.of(CacheSettings).max_loads, server.cache.memory) == (2, 1 << 30)
        assert repr(server).endswith(", settings of penstock.toml>")
    # Where it listens is said in code.
    write("[listen]\nport = 1\n")
    with Server(double, port=0) as server:
        assert not server.url.endswith(":1")
        assert "penstock.toml" not in repr(server)


def test_what_is_no_setting_of_a_server_is_refused_with_what_was_meant() -> None:
    with pytest.raises(ConfigError, match=r"max_boddy; did you mean max_body\? there are access_log"):
        Server(double, max_boddy=1)
    for name in ("models", "workers", "log_level", "client_connect_timeout"):
        with pytest.raises((ConfigError, TypeError)):
            Server(double, **{name: "1"})


def test_a_cache_of_ones_own_has_settings_of_its_own() -> None:
    with ModelCache() as cache, pytest.raises(ConfigError, match="cache and max_loads, memory exclude each other"):
        Server(double, cache=cache, memory="1GiB", max_loads=1)


def test_a_file_that_lies_there_is_told_of_once(write: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "penstock.settings")
    path = write("[server]\nmax_body = 4096\n")
    for _ in range(3):
        Server(double, port=0)
    assert [record.getMessage() for record in caplog.records] == [f"settings of {path} are in force"]
    caplog.clear()
    write("[listen]\nport = 4096\n")
    Server(double, port=0)
    assert not caplog.records, "nothing of it is"


@dataclass(frozen=True, kw_only=True)
class Secretive(Resolved, section="logging"):
    """For tests.

    Attributes:
        log_format: a secret.
        log_level: another, of another kind.
    """

    log_format: str | None = setting(None, "secret", "a secret")
    log_level: str | None = setting(None, "text", "another", secret=True)


def test_secrets_come_by_reference_and_are_never_shown(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("hunter2\nmore\n")
    monkeypatch.setenv("OF_MINE", "hunter3")
    write("[logging]\nlog_format = 'file:key'\nlog_level = 'hunter4'\n")
    settings = Settings.resolve([Secretive], {}, {"log_format": "env:OF_MINE"})
    assert (settings["log_format"].value, settings["log_level"].value) == ("hunter3", "hunter4")
    assert [value for _, value in settings["log_format"].shadowed] == ["hunter2"]
    shown = [repr(settings), settings._repr_html_(), repr(settings.of(Secretive)), *map(repr, settings.values())]
    assert not any("hunter" in text for text in shown)
    assert settings["log_format"].shown == "(secret)"
    assert Secretive.resolve({"log_format": "hunter5"}, {"config": ""}).log_format == "hunter5"
    assert Secretive.resolve({}, {"config": ""}, {"PENSTOCK_LOG_FORMAT": "hunter5"}).log_format == "hunter5"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("hunter2", "--log-format must be file:PATH or env:NAME: others may read what stands here"),
        ("file:no", "--log-format: no cannot be read: No such file or directory"),
        ("file:empty", "--log-format: there is nothing in empty"),
        ("file:binary", "--log-format: binary cannot be read: it is no text"),
        ("env:NO_SUCH_VARIABLE", "--log-format: there is nothing in the variable NO_SUCH_VARIABLE"),
        (7, "--log-format must be a secret, file:PATH or env:NAME, not int"),
    ],
)
def test_a_secret_that_cannot_be_is_refused_and_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Any, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch()
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError) as refused:
        Secretive.resolve({}, {"log_format": given})
    assert str(refused.value) == words


@dataclass(frozen=True, kw_only=True)
class EveryKind(Resolved, section="logging"):
    """For tests."""

    texts: tuple[str, ...] = setting((), "texts", "texts")
    share: float = setting(1.0, "share", "a share")
    path: str | None = setting(None, "file", "a file")
    text: str | None = setting(None, "text", "a text")
    port: int | None = setting(None, "port", "a port")
    own: int | None = setting(None, "text", "its own", check=lambda source, value: len(value))


def test_values_are_read_as_people_write_them() -> None:
    said = {"PENSTOCK_TEXTS": "a, b,,c", "PENSTOCK_SHARE": "0.25", "PENSTOCK_PORT": " 80 ", "PENSTOCK_OWN": "four"}
    found = EveryKind.resolve({}, {"config": ""}, said)
    assert (found.texts, found.share, found.port, found.own) == (("a", "b", "c"), 0.25, 80, 4)
    assert EveryKind.resolve({}, {"config": "", "texts": ["a,b", "c"]}, {}).texts == ("a", "b", "c")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("texts", [3, [3], {}]),
        ("share", [-0.1, 1.1, "x", "", True, float("nan"), [], None.__class__]),
        ("path", ["", 3, []]),
        ("text", ["", " ", 3, []]),
        ("port", [-1, 65536, "x", "", 1.5, True, [], "\uff11\uff12"]),
    ],
)
def test_values_that_cannot_be_are_refused(name: str, wrong: list[Any]) -> None:
    for value in wrong:
        with pytest.raises(ConfigError, match=rf"^{name} must be "):
            EveryKind.resolve({name: value}, {"config": ""}, {})
