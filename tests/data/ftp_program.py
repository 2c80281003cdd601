"""The FTP server of the tests, a program of its own: ``ftp_program.py USER PASSWORD PORT PASSIVE,PORTS FOLDER [CERTIFICATE]``.

Each connection gets a process. Its server with threads shares timers between them without a lock, and hangs up at times.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import MultiprocessFTPServer


def main(user: str, password: str, port: str, passive: str, folder: str, certificate: str = "") -> None:
    """Serve `folder`, whose folder `forbidden` may be looked at, and nothing else."""
    signal.signal(signal.SIGTERM, _leave)
    authorizer = DummyAuthorizer()
    authorizer.add_user(user, password, folder, perm="elradfmwMT")
    authorizer.override_perm(user, f"{folder}/forbidden", "el", recursive=True)
    settings = {
        "authorizer": authorizer,
        "passive_ports": [int(each) for each in passive.split(",")],
        "use_sendfile": False,
        "auth_failed_timeout": 0,
    }
    if certificate:
        settings |= {"certfile": certificate, "tls_control_required": True, "tls_data_required": True}
    handler = type("Handler", (TLS_FTPHandler if certificate else FTPHandler,), settings)
    MultiprocessFTPServer(("127.0.0.1", int(port)), handler).serve_forever()


def _leave(signum: int, frame: FrameType | None) -> None:
    raise SystemExit


if __name__ == "__main__":
    main(*sys.argv[1:])
