"""The server of these tables: nginx, one worker, which answers out of its configuration.

As a program it writes that configuration and becomes nginx: `python nginx.py PORT FOLDER [CERTIFICATE KEY]`.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

ANSWER = (
    '{"model_name":"ranker","model_version":"3","id":"7f1c9a52-5b7e-4f0c-9a55-0f3a2c1d9e4b","outputs":['
    '{"name":"score","datatype":"FP32","shape":[1,16],"data":[0.4127,0.0931,0.7755,0.2018,0.6342,0.9180,0.1176,0.5521,'
    "0.3395,0.8804,0.0467,0.7113,0.2689,0.4950,0.6038,0.1542]}]}"
)
PATH = "/data"
SLOW_PATH = "/slow"
STATUS_PATH = "/status"

# A slow answer takes a second or so: the rate is far below its length. No request ends a connection here.
CONFIGURATION = """
daemon off;
worker_processes 1;
error_log stderr warn;
pid {folder}/nginx.pid;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    default_type application/json;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    keepalive_time 24h;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096{tls};
        location = /status {{ stub_status; }}
        location = /slow {{ limit_rate 200; return 200 '{answer}'; }}
        location / {{ return 200 '{answer}'; }}
    }}
}}
"""
TLS = """ ssl;
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_certificate {certificate};
        ssl_certificate_key {key}"""


def program() -> str | None:
    """Debian keeps it where not every user looks."""
    return shutil.which("nginx", path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")


def main() -> None:
    port, folder, *files = sys.argv[1:]
    found = program()
    if found is None:
        sys.exit("nginx is not installed")
    tls = TLS.format(certificate=files[0], key=files[1]) if files else ""
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    configuration = home / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(port=port, folder=folder, tls=tls, answer=ANSWER))
    os.execv(found, [found, "-p", folder, "-c", str(configuration), "-e", "stderr"])  # noqa: S606


if __name__ == "__main__":
    main()
