"""What `ops/deploy/` says, done with the real server: the unit's commands, the probes of the manifests, nginx's block.

`tools/deploy-check` has the files read by systemd, hadolint and Kubernetes' own schemas.
"""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import signal
import sys
import threading
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

import penstock
from tests.interop.support.certificates import write_certificates
from tests.interop.support.nginx import Nginx
from tests.interop.support.processes import Process, answers, free_port
from tests.python.support.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPLOY = Path(__file__).resolve().parents[2] / "ops" / "deploy"
PROGRAM = "/opt/penstock/current/bin/penstock"
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def unit() -> configparser.SectionProxy:
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "systemd" / "penstock.service")
    return parser["Service"]


def manifests() -> dict[tuple[str, str], Any]:
    files = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["resources"]
    found = [each for file in files for each in yaml.safe_load_all((DEPLOY / "kubernetes" / file).read_text())]
    assert {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} == {*files, "kustomization.yaml"}
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def pod() -> Any:
    return manifests()[("Deployment", "penstock")]["spec"]["template"]["spec"]


class Served:
    """The image's app under a command of the files here, with a port of its own."""

    def __init__(self, arguments: list[str], folder: Path, **environment: str) -> None:
        shutil.copy(DEPLOY / "container" / "app.py", folder)
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        command = [sys.executable, "-m", "penstock", "serve", *arguments, "--port", str(port), "--host", "127.0.0.1"]
        self.process = Process(command, folder / "penstock.log", folder=folder, environment=environment)
        self.process.wait_until(lambda: answers(self.url + "/v2/health/ready"))

    def workers(self) -> set[int]:
        """The numbers of its worker processes."""
        number = self.process.number
        return set(map(int, Path(f"/proc/{number}/task/{number}/children").read_text().split()))


@pytest.fixture
def of_the_unit(tmp_path: Path) -> Iterator[Served]:
    """`ExecStart`, with the files where the test has them."""
    shutil.copy(DEPLOY / "systemd" / "penstock.toml", tmp_path)
    program, command, *arguments = shlex.split(unit()["ExecStart"])
    assert (program, command) == (PROGRAM, "serve")
    arguments = [each.replace("/etc/penstock/", f"{tmp_path}/") for each in arguments]
    served = Served(arguments, tmp_path)
    yield served
    served.process.stop()


def test_the_unit_starts_reloads_without_a_lost_request_and_drains(of_the_unit: Served) -> None:
    assert shlex.split(unit()["ExecReload"])[1:] == ["-HUP", "$MAINPID"]
    x = {"name": "x", "datatype": "FP32", "shape": X.shape, "data": X.flatten().tolist()}
    question = {"inputs": [x]}
    before, done, failures = of_the_unit.workers(), threading.Event(), []

    def ask() -> None:
        with penstock.Client(of_the_unit.url) as client:
            while not done.is_set():
                try:
                    # A connection without a request may be closed in the moment in which one is sent: it is sent again.
                    answer = client.post("/v2/models/double/infer", json=question, retry=True)
                    assert answer.raise_for_status().json()["outputs"][0]["data"] == (X * 2).flatten().tolist()
                except Exception as error:  # noqa: BLE001  whatever it is, it is counted
                    failures.append(error)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for each in asking:
        each.start()
    of_the_unit.process.send(signal.SIGHUP)
    until(lambda: len(of_the_unit.workers() - before) == 2 and not of_the_unit.workers() & before)
    done.set()
    for each in asking:
        each.join()
    assert not failures
    of_the_unit.process.send(signal.SIGTERM)
    assert of_the_unit.process.wait() == 0


def test_a_mistake_in_the_settings_is_the_status_that_is_not_tried_again(tmp_path: Path) -> None:
    (tmp_path / "penstock.toml").write_text('[server]\nmax_body = "much"\n')
    shutil.copy(DEPLOY / "container" / "app.py", tmp_path)
    command = [sys.executable, "-m", "penstock", "serve", "app.py", "--config", "penstock.toml"]
    process = Process(command, tmp_path / "log", folder=tmp_path)
    assert process.wait() == int(unit()["RestartPreventExitStatus"])
    assert "max_body" in (tmp_path / "log").read_text()


def test_pods_answer_their_probes_and_have_time_to_drain(tmp_path: Path) -> None:
    config = tomllib.loads(manifests()[("ConfigMap", "penstock")]["data"]["penstock.toml"])
    (tmp_path / "penstock.toml").write_text(manifests()[("ConfigMap", "penstock")]["data"]["penstock.toml"])
    (container,) = pod()["containers"]
    arguments = [each.replace("/etc/penstock/", f"{tmp_path}/") for each in container["args"]]
    environment = {each["name"]: each["value"] for each in container["env"]}
    served = Served(arguments, tmp_path, **environment)
    try:
        probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
        assert len({probe["path"] for probe in probes.values()}) == 3
        for probe in probes.values():
            assert answers(served.url + probe["path"]), probe
        (port,) = container["ports"]
        assert port["containerPort"] == config["listen"]["port"]
        assert all(probe["port"] == port["name"] for probe in probes.values())
    finally:
        served.process.stop()
    drains = config["server"]["drain_delay"] + config["server"]["drain_timeout"]
    assert pod()["terminationGracePeriodSeconds"] > drains


def test_services_and_policies_mean_the_pods() -> None:
    found = manifests()
    labels = found[("Deployment", "penstock")]["spec"]["template"]["metadata"]["labels"]
    for name in ("penstock", "penstock-pods"):
        service = found[("Service", name)]["spec"]
        assert service["selector"].items() <= labels.items()
        assert all(port["targetPort"] == "http" for port in service["ports"])
    assert found[("PodDisruptionBudget", "penstock")]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert found[("NetworkPolicy", "penstock")]["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert found[("HorizontalPodAutoscaler", "penstock")]["spec"]["scaleTargetRef"]["name"] == "penstock"


def test_the_command_of_the_container_file_serves(tmp_path: Path) -> None:
    text = (DEPLOY / "container" / "Containerfile").read_text()
    said = {name: json.loads(words) for name, words in re.findall(r"^(ENTRYPOINT|CMD) (\[.*\])$", text, re.MULTILINE)}
    variables = dict(re.findall(r"^(?:ENV|   ) (\w+)=([^ \\]+)", text, re.MULTILINE))
    assert said["ENTRYPOINT"] == ["penstock", "serve"]
    assert variables.pop("PATH") == "/opt/penstock/bin:$PATH"
    served = Served(said["CMD"], tmp_path, **variables)
    try:
        with penstock.Client(served.url) as client:
            np.testing.assert_array_equal(client.infer("double", {"x": X})["y"], X * 2)
    finally:
        served.process.stop()


@pytest.fixture
def proxied(tmp_path: Path) -> Iterator[tuple[Served, str]]:
    """nginx with the block of `penstock.conf`, and certificates and ports of the test's own."""
    served = Served(["app.py"], tmp_path)
    write_certificates(tmp_path / "tls", "models.example", "localhost")
    port = free_port()
    block = (DEPLOY / "nginx" / "penstock.conf").read_text()
    for old, new in (
        ("listen 443 ", f"listen 127.0.0.1:{port} "),
        ("127.0.0.1:8000", served.url.removeprefix("http://")),
        ("/etc/nginx/tls/models.example.crt", str(tmp_path / "tls" / "server.pem")),
        ("/etc/nginx/tls/models.example.key", str(tmp_path / "tls" / "server.key")),
    ):
        assert old in block
        block = block.replace(old, new)
    (tmp_path / "penstock.conf").write_text(block)
    # The frame has a server of its own, which nobody asks: the block stands beside it.
    between = f"return 200; }} include {tmp_path}/penstock.conf; server {{ listen unix:{tmp_path}/idle.sock;"
    nginx = Nginx(tmp_path / "nginx", between)
    nginx.start()
    yield served, f"https://localhost:{port}"
    nginx.stop()
    served.process.stop()


def test_requests_pass_through_nginx_over_kept_connections(proxied: tuple[Served, str], tmp_path: Path) -> None:
    _, url = proxied
    with penstock.Client(url, verify=str(tmp_path / "tls" / "authority.pem")) as client:
        for _ in range(20):
            np.testing.assert_array_equal(client.infer("double", {"x": X})["y"], X * 2)
        metrics = client.get("/metrics")
    assert metrics.status_code == 200, "127.0.0.1 may read them"
    opened = re.search(r"^penstock_http_connections (\d+)$", metrics.text, re.MULTILINE)
    assert opened
    assert int(opened[1]) <= 3, "one connection serves one request after another"


def test_calls_of_grpc_pass_through_nginx(proxied: tuple[Served, str], tmp_path: Path) -> None:
    _, url = proxied
    address = url.replace("https://", "grpcs://")
    with penstock.Client(address, verify=str(tmp_path / "tls" / "authority.pem")) as client:
        np.testing.assert_array_equal(client.infer("double", {"x": X})["y"], X * 2)
