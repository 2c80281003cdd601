"""Tells the errors of fsspec and of the libraries below it in our words, without what is secret."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Iterable, Iterator

from ..errors import BadInput, NotFound, NotPermitted, OutOfSpace, ServerAway, TokenpoolError
from .base import CredentialsRefused, Stalled
from .urls import shown

_RENEW = "renew the credentials of this machine for it, or name others: credentials: NAME"
_RIGHTS = "ask the owner of the place for the right, or name another place"
_LOOK = "look at the URL"
_ROOM = "make room there, or raise the quota"
_AGAIN = "try again later; look at the server"

#: What S3, and those that speak like it, call their refusals.
_REFUSED = re.compile(
    r"ExpiredToken|InvalidAccessKeyId|SignatureDoesNotMatch|InvalidToken|TokenRefresh|InvalidClientTokenId|AuthFailure"
    r"|RequestTimeTooSkewed|RequestExpired|Unauthorized|CredentialsNotSupported|NotSignedUp|MissingSecurity"
    r"|AuthorizationHeaderMalformed|AuthorizationQueryParametersError"
)
_FORBIDDEN = re.compile(r"AccessDenied|AllAccessDisabled|AccountProblem|InvalidObjectState|MethodNotAllowed|Forbidden")
_MISSING = re.compile(r"NoSuch(Key|Bucket|Upload|Version)|NotFound")
_FULL = re.compile(r"QuotaExceeded|StorageFull|InsufficientStorage|EntityTooLarge|TooManyBytes")
_BUSY = re.compile(
    r"SlowDown|InternalError|ServiceUnavailable|RequestTimeout$|OperationAborted|IncompleteBody|BadDigest"
)
#: Classes of errors by their names: the libraries are imported only where their URLs come.
_NO_CREDENTIALS = {
    "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError",
    "UnauthorizedSSOTokenError", "ProfileNotFound", "AuthenticationException", "BadAuthenticationType",
    "PasswordRequiredException", "DefaultCredentialsError", "RefreshError", "ClientAuthenticationError",
    "PartialAuthentication", "SSOTokenLoadError", "NoAuthTokenError",
}  # fmt: skip
_TIMEOUTS = {"timeout", "TimeoutError", "FSTimeoutError", "ReadTimeout", "WriteTimeout", "ReadTimeoutError",
             "ServerTimeoutError", "SocketTimeoutError"}  # fmt: skip
_OS = {
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), NotFound),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), NotPermitted),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), OutOfSpace),
    **dict.fromkeys((errno.EISDIR, errno.ENAMETOOLONG, errno.EEXIST), BadInput),
    errno.ETIMEDOUT: Stalled,
}
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\"<>]+", re.IGNORECASE)
_PATIENCE = 200


@contextlib.contextmanager
def errors_of(url: str, hidden: Iterable[str] = ()) -> Iterator[None]:
    """Raise our error for whatever a library raises about a URL; none of the `hidden` words stands in it."""
    try:
        yield
    except Exception as error:
        found = told(error, url, hidden)
        if found is error:
            raise
        # Not `from error`: a printed chain would show the library's text with the secrets in it.
        raise found from None


def told(error: BaseException, url: str, hidden: Iterable[str] = ()) -> TokenpoolError:
    """Return our error for one of a library's."""
    if isinstance(error, TokenpoolError):
        return error
    chain = _chain(error)
    ours = next((each for each in chain if isinstance(each, TokenpoolError)), None)
    if ours is not None:
        return ours
    kind = next((kind for kind in map(_kind, chain) if kind is not None), ServerAway)
    return made(kind, url, _why(chain, hidden))


def made(kind: type[TokenpoolError], url: str, why: str = "") -> TokenpoolError:
    """Return an error of a kind about a URL, with the hint that belongs to the kind."""
    name = shown(url)
    tail = f": {why}" if why else ""
    if issubclass(kind, CredentialsRefused):
        return kind(f"{name} does not accept our credentials{tail}", _RENEW)
    if issubclass(kind, NotPermitted):
        return kind(f"{name} may not be used so{tail}", _RIGHTS)
    if issubclass(kind, NotFound):
        return kind(f"{name} is not there", _LOOK)
    if issubclass(kind, OutOfSpace):
        return kind(f"{name} has no room{tail}", _ROOM)
    if issubclass(kind, BadInput):
        return kind(f"{name} makes no sense to its server{tail}", _LOOK)
    if issubclass(kind, Stalled):
        return kind(f"{name} sends nothing any more{tail}", _AGAIN)
    return kind(f"{name} failed{tail}", _AGAIN)


def of_status(status: int) -> type[TokenpoolError]:
    """Return the error that an HTTP status means.

    >>> of_status(401).__name__, of_status(404).__name__, of_status(503).__name__
    ('CredentialsRefused', 'NotFound', 'ServerAway')
    """
    if status in (401, 407):
        return CredentialsRefused
    if status in (403, 405, 451, 501):
        return NotPermitted
    if status in (404, 410):
        return NotFound
    if status in (413, 507):
        return OutOfSpace
    if status in (408, 409, 412, 423, 425, 429) or status >= 500 or status < 400:
        return ServerAway
    return BadInput


def _chain(error: BaseException | None) -> list[BaseException]:
    """Return an error and those it came from, the innermost first: they know most."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.insert(0, error)
        error = error.__cause__ or error.__context__
    return chain


def _kind(error: BaseException) -> type[TokenpoolError] | None:
    name = type(error).__name__
    if name in _NO_CREDENTIALS:
        return CredentialsRefused
    if name == "BadHostKeyException" or (name == "SSHException" and "known_hosts" in str(error)):
        return NotPermitted
    if "CertVerif" in name or name == "ClientConnectorCertificateError":
        return NotPermitted
    if type(error).__module__.startswith("aiohttp.http_"):  # their `code` is no server's answer
        return ServerAway
    if name.startswith("error_") or type(error).__module__ == "ftplib":
        return _of_reply(str(error))
    if (code := _code(error)) is not None:
        return code
    if (status := _status(error)) is not None:
        return of_status(status)
    if "Connect" in name or isinstance(error, (ConnectionError, EOFError)):
        return ServerAway
    if name in _TIMEOUTS or isinstance(error, TimeoutError):
        return Stalled
    return _of_system(error)


def _of_system(error: BaseException) -> type[TokenpoolError] | None:
    if isinstance(error, OSError) and error.errno in _OS:
        return _OS[error.errno]
    if isinstance(error, FileNotFoundError):
        return NotFound
    if isinstance(error, PermissionError):
        return NotPermitted
    if isinstance(error, (FileExistsError, IsADirectoryError, NotADirectoryError)):
        return BadInput
    return None


def _code(error: BaseException) -> type[TokenpoolError] | None:
    """Read the answer that botocore keeps of S3."""
    answer = getattr(error, "response", None)
    if not isinstance(answer, dict) or "Error" not in answer:
        return None
    code = str(answer["Error"].get("Code", ""))
    kinds = ((_REFUSED, CredentialsRefused), (_MISSING, NotFound), (_FULL, OutOfSpace), (_BUSY, ServerAway))
    for pattern, kind in (*kinds, (_FORBIDDEN, NotPermitted)):
        if pattern.search(code):
            return kind
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", code)
    return of_status(int(status)) if str(status).isdigit() else ServerAway


def _status(error: BaseException) -> int | None:
    if type(error).__module__.startswith("aiohttp.http_"):
        return None
    found = getattr(error, "status", None) or getattr(error, "status_code", None)
    if found is None:
        found = getattr(getattr(error, "response", None), "status_code", None) or getattr(error, "code", None)
    return found if isinstance(found, int) and 100 <= found < 600 else None


def _of_reply(reply: str) -> type[TokenpoolError]:
    """Return the error that a reply of an FTP server means; 550 stands for two things, told by the text alone."""
    code = reply[:3]
    if code in ("530", "331", "332", "532"):
        return CredentialsRefused
    if code in ("552", "452"):
        return OutOfSpace
    if code in ("550", "553", "521"):
        if re.search(r"(?i)space|quota", reply):
            return OutOfSpace
        return NotPermitted if re.search(r"(?i)denied|permi|privilege|read-only", reply) else NotFound
    return BadInput if code in ("500", "501", "502", "503", "504") else ServerAway


def _why(chain: list[BaseException], hidden: Iterable[str]) -> str:
    """Return what an error says, with its secrets struck out."""
    error = chain[0]
    answer = getattr(error, "response", None)
    if isinstance(answer, dict) and "Error" in answer:
        text = " ".join(str(answer["Error"].get(part, "")) for part in ("Code", "Message"))
    elif (status := _status(error)) is not None:
        reason = getattr(error, "message", "") or getattr(getattr(error, "response", None), "reason_phrase", "")
        text = f"{status} {reason}"
    else:
        text = str(error) or type(error).__name__
    text = _URL.sub(lambda found: shown(found[0]), text)
    for secret in sorted((word for word in hidden if len(word) > 2), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = " ".join(text.split())
    return text if len(text) <= _PATIENCE else f"{text[:_PATIENCE]}..."
