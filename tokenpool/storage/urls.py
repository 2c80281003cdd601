"""Takes the URLs of data apart, and shows them without the secrets that they may hold."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from ..errors import BadInput

#: What a presigned URL proves itself with, and tokens that stand in a query.
_SECRET = re.compile(r"(?i)(signature|credential|token|sig|secret|password|key|auth|se|sp|sv)$")
_GLOB = re.compile(r"[*?\[]")


def scheme_of(url: str) -> str:
    """Return the scheme in small letters: ``file`` for a path.

    >>> scheme_of("S3://bucket/key"), scheme_of("/data/x")
    ('s3', 'file')
    """
    front, separator, _ = url.partition("://")
    return front.lower() if separator else "file"


def name_of(url: str) -> str:
    """Return the last name in a URL, decoded where the scheme encodes names; "" for a folder.

    >>> name_of("https://host/a%20b.txt?x=1"), name_of("s3://bucket/50%.txt"), name_of("s3://b/f/")
    ('a b.txt', '50%.txt', '')
    """
    return path_of(url).rpartition("/")[2]


def path_of(url: str) -> str:
    """Return the path in a URL, decoded where the scheme encodes names.

    >>> path_of("s3://bucket/a b?c"), path_of("http://h/a%20b?c"), path_of("file:///x")
    ('/a b?c', '/a b', '/x')
    """
    front, separator, rest = url.partition("://")
    if not separator:
        return url
    if front.lower() in ENCODED:
        return unquote(urlsplit(url).path)
    return "/" + rest.partition("/")[2]


#: Schemes whose URLs are encoded as the standard has it; in the others a name stands as it is.
ENCODED = frozenset({"http", "https", "ftp", "ftps", "dav", "davs", "webdav", "webdavs", "file", "sftp"})


def below(url: str, relative: str) -> str:
    """Return the URL of a file by its name below a folder's URL.

    >>> below("https://host/f?sig=1", "a b/c"), below("s3://b/f/", "a b")
    ('https://host/f/a%20b/c?sig=1', 's3://b/f/a b')
    """
    if scheme_of(url) in ENCODED and "://" in url:
        parts = urlsplit(url)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{quote(relative)}"))
    return f"{url.rstrip('/')}/{relative}"


def is_glob(url: str) -> bool:
    """Tell whether a URL's path holds ``* ? [``; a question mark that begins a query does not count."""
    path = urlsplit(url).path if scheme_of(url) in ENCODED and "://" in url else path_of(url)
    return bool(_GLOB.search(path))


def split_glob(url: str) -> tuple[str, str]:
    """Return the folder that holds all a glob may mean, and the rest, the pattern.

    >>> split_glob("s3://b/run*/x.fq")
    ('s3://b/', 'run*/x.fq')
    """
    found = _GLOB.search(url, url.find("://") + 3 if "://" in url else 0)
    cut = url.rfind("/", 0, found.start() if found else len(url)) + 1
    return url[:cut], url[cut:]


def shown(url: str) -> str:
    """Return a URL as people and logs may see it: without password, and without what signs it.

    >>> shown("https://ann:pw@host/x?X-Amz-Signature=abc&part=1")
    'https://host/x?X-Amz-Signature=***&part=1'
    """
    if "://" not in url:
        return url
    front, _, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    url = f"{front}://{place.rpartition('@')[2]}{slash}{path}"
    if scheme_of(url) not in ENCODED or "?" not in url:
        return url
    parts = urlsplit(url)
    query = [(name, "***" if _SECRET.search(name) else value) for name, value in parse_qsl(parts.query, True)]
    return urlunsplit(parts._replace(query=urlencode(query, safe="*")))


def refuse_password(url: str) -> None:
    """Raise BadInput where a URL holds a password: everybody who reads the pool would have it."""
    place = url.partition("://")[2].partition("/")[0]
    user, at, _ = place.rpartition("@")
    if at and ":" in user:
        raise BadInput(
            f"{shown(url)} holds a password", "leave it out, and name a secret of the worker: credentials: NAME"
        )
