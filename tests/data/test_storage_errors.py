"""What storages say when something is wrong, who they say they are, and what they never say."""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_servers import PASSWORD, USER, Server
from scripted_server import answer, scripted_server

from tokenpool.errors import BadInput, NotFound, NotPermitted, OutOfSpace, ServerAway
from tokenpool.storage import BUILTIN, Storages
from tokenpool.storage.base import CredentialsRefused, Stalled, Storage
from tokenpool.storage.fsspec_errors import told
from tokenpool.storage.urls import below
from tokenpool.testing.storage import read

Serve = Callable[[str], Server]
S3 = pytest.mark.skipif(sys.version_info < (3, 10), reason="botocore for Python 3.9 wants an urllib3 older than ours")
#: The schemes of the storages here.
OURS = {scheme for scheme, target in BUILTIN.items() if not target.partition(":")[0].endswith((".grid", ".fastq"))}


class Answer(Exception):
    """An error of botocore's kind: it keeps what S3 answered."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(code)
        self.response = {
            "Error": {"Code": code, "Message": "words"},
            "ResponseMetadata": {"HTTPStatusCode": status},
        }


class Status(Exception):
    """An error of the kind that knows its HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__("https://ann:pw@h/x?X-Amz-Signature=5e1f")
        self.status = status


def ftp_reply(text: str) -> Exception:
    from ftplib import error_perm

    return error_perm(text)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Answer("ExpiredToken", 400), CredentialsRefused),
        (Answer("InvalidAccessKeyId", 403), CredentialsRefused),
        (Answer("SignatureDoesNotMatch", 403), CredentialsRefused),
        (Answer("RequestTimeTooSkewed", 403), CredentialsRefused),
        (Answer("AccessDenied", 403), NotPermitted),
        (Answer("NoSuchBucket", 404), NotFound),
        (Answer("QuotaExceeded", 403), OutOfSpace),
        (Answer("SlowDown", 503), ServerAway),
        (Answer("WhatEver", 502), ServerAway),
        (Answer("InvalidBucketName", 400), BadInput),
        (Status(401), CredentialsRefused),
        (Status(403), NotPermitted),
        (Status(404), NotFound),
        (Status(429), ServerAway),
        (Status(507), OutOfSpace),
        (ftp_reply("530 Login incorrect."), CredentialsRefused),
        (ftp_reply("550 Permission denied."), NotPermitted),
        (ftp_reply("550 No such file."), NotFound),
        (ftp_reply("552 Quota exceeded."), OutOfSpace),
        (ftp_reply("421 Closing."), ServerAway),
        (socket.gaierror(-2, "Name or service not known"), ServerAway),
        (ConnectionResetError(104, "reset"), ServerAway),
        (TimeoutError("slow"), Stalled),
        (OSError(28, "No space left on device"), OutOfSpace),
        (EOFError(), ServerAway),
    ],
)
def test_each_error_is_one_of_ours(error: Exception, kind: type[Exception]) -> None:
    found = told(error, "s3://bucket/key", ["words"])
    assert type(found) is kind
    assert "s3://bucket/key" in found.message
    assert found.hint
    assert "words" not in found.message


def test_no_message_holds_what_signs_a_url() -> None:
    found = told(Status(500), "https://ann:pw@h/x?X-Amz-Signature=5e1f&part=1", [])
    assert found.message == "https://h/x?X-Amz-Signature=***&part=1 failed: 500"
    other = told(RuntimeError("GET https://ann:pw@h/x?X-Amz-Signature=5e1f broke; t0ken"), "https://h/x", ["t0ken"])
    assert other.message == "https://h/x failed: GET https://h/x?X-Amz-Signature=*** broke; ***"


@pytest.mark.parametrize(
    ("scheme", "library", "advice"),
    [
        ("s3", "s3fs", "tokenpool[s3]"),
        ("gs", "gcsfs", "tokenpool[gs]"),
        ("az", "adlfs", "tokenpool[az]"),
        ("http", "aiohttp", "tokenpool[http]"),
        ("sftp", "paramiko", "tokenpool[sftp]"),
        ("webdavs", "fsspec", "tokenpool[webdav]"),
    ],
)
def test_a_library_that_is_missing_comes_with_advice(scheme: str, library: str, advice: str) -> None:
    # Given a process for which a scheme's library is not installed
    code = f"""
import sys
sys.modules[{library!r}] = None
from tokenpool.errors import BadInput
from tokenpool.storage import Storages
try:
    Storages(environ={{}}).of("{scheme}://h/x").stat("{scheme}://h/x")
except BadInput as error:
    print(error, error.hint)
"""
    # When its first URL comes, then the error says what to do
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"{scheme}://" in done.stdout
    assert advice in done.stdout


def test_nothing_is_imported_before_the_first_url() -> None:
    code = f"from tokenpool.storage import Storages; [Storages().of(s + '://h/x') for s in {sorted(OURS)}]\n"
    code += "import sys; print(*sorted({'fsspec', 's3fs', 'aiohttp', 'paramiko', 'botocore'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# --- who we are --------------------------------------------------------------------------------------------------------


@pytest.fixture
def secret_url(serve: Serve) -> str:
    """A file of a web server that asks for a password."""
    server = serve("http_files")
    (server.folder.parent / "secret").write_bytes(b"the secret")
    return f"http://127.0.0.1:{server.port}/secret"


def test_a_password_of_the_options(secret_url: str) -> None:
    login = {"username": USER, "password": PASSWORD}
    assert read(Storages({"http://127.0.0.1": login}).of(secret_url), secret_url) == b"the secret"


def test_a_password_of_netrc(secret_url: str, tmp_path: Path) -> None:
    path = tmp_path / "netrc"
    path.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    path.chmod(0o600)
    storage = Storages(environ={"NETRC": str(path)}).of(secret_url)
    assert read(storage, secret_url) == b"the secret"


def test_a_header_of_the_options(secret_url: str) -> None:
    ticket = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    options = {"headers": {"Authorization": f"Basic {ticket}"}}
    assert read(Storages({"http://127.0.0.1": options}).of(secret_url), secret_url) == b"the secret"


def test_no_password_and_a_wrong_one(secret_url: str) -> None:
    for options in ({}, {"username": USER, "password": "wrong-one"}, {"token": "wrong-one"}):
        with pytest.raises(CredentialsRefused) as error:
            read(Storages({"http://127.0.0.1": options}).of(secret_url), secret_url)
        assert "wrong-one" not in str(error.value)


@S3
def test_aws_own_environment(serve: Serve, tmp_path: Path) -> None:
    # Given what a batch system's site sets for all tools of AWS
    server = serve("s3_swift")
    storage = Storages(environ=server.environ).of(server.url)
    (tmp_path / "x").write_bytes(b"x")
    url = below(server.url, "by-environment")
    assert storage.write(url, f"{tmp_path}/x").size == 1
    assert read(storage, url) == b"x"


@S3
def test_signed_urls_of_a_store(serve: Serve, tmp_path: Path) -> None:
    # Given URLs that are good for one GET and one PUT each, as stores hand them out
    server = serve("s3_swift")
    (tmp_path / "x").write_bytes(b"signed")
    storage = Storages(environ={}).of("http://x")
    put, get, wrong = (_signed(server, method) for method in ("put_object", "get_object", "get_object"))
    # When they are used as any other URL is
    assert storage.write(put, f"{tmp_path}/x").size == 6
    assert storage.stat(get).size == 6
    assert b"".join(storage.read(get, 1, 4)) == b"ign"
    # Then a signature that is not good is an error that does not show it
    wrong = wrong.replace("Signature=", "Signature=0")
    with pytest.raises(NotPermitted) as error:
        read(storage, wrong)
    assert wrong.rpartition("Signature=")[2] not in str(error.value)


def _signed(server: Server, method: str) -> str:
    from botocore.config import Config
    from botocore.session import get_session

    config = Config(signature_version="s3v4", s3={"addressing_style": "path"})
    client: Any = get_session().create_client(
        "s3",
        "us-east-1",
        endpoint_url=server.options["endpoint_url"],
        aws_access_key_id=server.options["key"],
        aws_secret_access_key=server.options["secret"],
        config=config,
    )
    url: str = client.generate_presigned_url(method, Params={"Bucket": "pail", "Key": "signed"})
    client.close()
    return url


def test_a_server_whose_key_changed_is_refused(serve: Serve, tmp_path: Path) -> None:
    # Given an SSH server, and a home whose known_hosts says that its key is another one
    server = serve("sftp_files")
    (server.folder / "f").write_bytes(b"f")
    host_key = (Path(str(server.options["key_filename"])).parent / "host.pub").read_text().split()[:2]
    other_key = (Path(str(server.options["key_filename"])).parent / "own.pub").read_text().split()[:2]
    known = tmp_path / ".ssh" / "known_hosts"
    known.parent.mkdir()

    def storage(**options: str) -> Storage:
        return Storages({"sftp://": {**server.options, **options}}, environ={"HOME": str(tmp_path)}).of(server.url)

    # Then it is refused; with the right key it is used; and one that nobody knows only where that is allowed
    known.write_text(f"[127.0.0.1]:{server.port} {' '.join(other_key)}\n")
    with pytest.raises(NotPermitted, match="another key"):
        read(storage(), below(server.url, "f"))
    known.write_text(f"[127.0.0.1]:{server.port} {' '.join(host_key)}\n")
    assert read(storage(host_key_policy="reject"), below(server.url, "f")) == b"f"
    known.write_text("")
    assert read(storage(), below(server.url, "f")) == b"f"
    with pytest.raises(NotPermitted, match="known_hosts"):
        read(storage(host_key_policy="reject"), below(server.url, "f"))


def test_a_server_that_did_not_hear_the_whole_request_is_asked_again() -> None:
    # Given a server that gives up waiting for a request, once
    with scripted_server() as server:
        server.script = [answer(408), answer(200, b"all of it")]
        # When a file is looked at
        entry = Storages().of(server.url).stat(f"{server.url}/file")
    # Then it was asked a second time, and says what there is
    assert entry.size == len(b"all of it")
    assert len(server.seen) == 2
