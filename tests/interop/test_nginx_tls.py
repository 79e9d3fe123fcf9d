"""TLS against nginx, which uses OpenSSL: who is trusted, and who shows a certificate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import penstock
from penstock.errors import ConnectFailed
from tests.interop.support.certificates import ASKS_FOR_CERTIFICATES, TLS, write_certificates

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.interop.support.nginx import Nginx

WHO = 'location / { return 200 "$ssl_client_s_dn $ssl_protocol $server_protocol"; }'


@pytest.mark.parametrize("protocols", ["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("listen", ["ssl", "ssl http2"])
async def test_an_authority_of_ones_own(
    nginx: Callable[..., Nginx], tmp_path: Path, protocols: str, listen: str
) -> None:
    certificates = write_certificates(tmp_path / "secure")
    server = nginx(f"{TLS} ssl_protocols {protocols}; {WHO}", listen=listen, folder=tmp_path / "secure")
    version = "HTTP/2.0" if "http2" in listen else "HTTP/1.1"
    async with penstock.AsyncClient(server.secure_url, verify=str(certificates.authority)) as client:
        answer = await client.get("/")
        assert answer.text.split() == [protocols, version]
    with penstock.Client(server.secure_url, verify=str(certificates.authority)) as client:
        assert client.get("/").text.split() == [protocols, version]


async def test_an_authority_that_is_not_known(nginx: Callable[..., Nginx], tmp_path: Path) -> None:
    write_certificates(tmp_path / "secure")
    other = write_certificates(tmp_path / "other")
    server = nginx(TLS + WHO, listen="ssl", folder=tmp_path / "secure")
    for verify in (True, str(other.authority)):
        async with penstock.AsyncClient(server.secure_url, verify=verify) as client:
            with pytest.raises(ConnectFailed, match=r"certificate of localhost:\d+"):
                await client.get("/")
    async with penstock.AsyncClient(server.secure_url, verify=False) as client:
        assert (await client.get("/")).status_code == 200
    assert {exchange.status for exchange in await server.all_of(1)} == {200}


async def test_a_certificate_for_another_name(nginx: Callable[..., Nginx], tmp_path: Path) -> None:
    certificates = write_certificates(tmp_path / "secure", "elsewhere.invalid")
    server = nginx(TLS + WHO, listen="ssl", folder=tmp_path / "secure")
    async with penstock.AsyncClient(server.secure_url, verify=str(certificates.authority)) as client:
        with pytest.raises(ConnectFailed, match="certificate"):
            await client.get("/")


@pytest.mark.parametrize("listen", ["ssl", "ssl http2"])
async def test_client_certificates(nginx: Callable[..., Nginx], tmp_path: Path, listen: str) -> None:
    certificates = write_certificates(tmp_path / "secure")
    other = write_certificates(tmp_path / "other")
    server = nginx(ASKS_FOR_CERTIFICATES + WHO, listen=listen, folder=tmp_path / "secure")
    authority = str(certificates.authority)
    shown = (str(certificates.client), str(certificates.client_key))
    async with penstock.AsyncClient(server.secure_url, verify=authority, cert=shown) as client:
        answer = await client.get("/")
        assert answer.status_code == 200
        assert "CN=penstock-client" in answer.text
    # nginx lets the connection be made and then says what is missing.
    async with penstock.AsyncClient(server.secure_url, verify=authority) as client:
        answer = await client.get("/")
        assert (answer.status_code, "No required SSL certificate was sent" in answer.text) == (400, True)
    shown = (str(other.client), str(other.client_key))
    async with penstock.AsyncClient(server.secure_url, verify=authority, cert=shown) as client:
        answer = await client.get("/")
        assert (answer.status_code, "SSL certificate error" in answer.text) == (400, True)


async def test_plain_http_where_tls_is_spoken_and_the_other_way_round(
    nginx: Callable[..., Nginx], tmp_path: Path
) -> None:
    write_certificates(tmp_path / "secure")
    secure = nginx(TLS + WHO, listen="ssl", folder=tmp_path / "secure")
    plain = nginx(WHO)
    async with penstock.AsyncClient() as client:
        answer = await client.get(secure.url + "/")
        assert (answer.status_code, "plain HTTP request was sent to HTTPS port" in answer.text) == (400, True)
        with pytest.raises(ConnectFailed):
            await client.get(plain.secure_url + "/")
