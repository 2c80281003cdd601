"""Files of S3 and of stores that speak like it: streamed both ways, large ones sent in parts, each checked by its MD5."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

from ..errors import BadInput, NotFound, ServerAway
from .base import PIECE, Entry
from .fsspec_errors import told
from .fsspec_storage import FsspecStorage, arrived, opened
from .looped import Body, Watched, whole
from .s3_wire import Elsewhere, Line, line_of
from .urls import below, shown

T = TypeVar("T")

#: Bytes of one part of a large file: at least and, where it is not held in memory, at most. How many are on their way at once.
PART, LARGEST_PART, AT_ONCE = 16 << 20, 64 << 20, 4
#: Seconds between the tries of a part or of a page of a list; whole files are tried again by those who ask for them.
PAUSES = (0.5, 2.0, None)
#: S3 takes 10 000 parts at most.
_PARTS = 9_000
_MD5 = re.compile(r"[0-9a-f]{32}")
#: What AWS's own tools read in the environment, and how s3fs calls it.
_ENVIRON = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_SESSION_TOKEN": "token",
    "AWS_ENDPOINT_URL": "endpoint_url",
    "AWS_ENDPOINT_URL_S3": "endpoint_url",
    "AWS_PROFILE": "profile",
}


class S3Storage(FsspecStorage):
    """Objects of buckets. A key stands in the URL as it is, with whatever signs it holds."""

    ours = frozenset({"stall", "region"})
    #: The store answers HEAD as HTTP has it.
    _heads = True

    def __init__(self, options: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        super().__init__(options, environ)
        self._lines: dict[str, Line | None] = {}

    def stat(self, url: str) -> Entry:
        """Return what HEAD says of an object."""
        with self.told(url):
            found = self._head(url) if self._heads else None
            if found is None:
                found = self._first_byte(url)
            tag = str(found.get("ETag", "")).strip('"')
            encrypted = (
                str(found.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in found
            )
            checksum = f"md5:{tag}" if _MD5.fullmatch(tag) and not encrypted else ""
            return Entry(url, found["ContentLength"], checksum, str(found.get("VersionId") or tag))

    def list(self, url: str) -> Iterator[Entry]:
        """Yield the objects whose keys begin with a folder's."""
        bucket, _, key = url.partition("://")[2].partition("/")
        front = f"{key.rstrip('/')}/" if key.strip("/") else ""
        more: dict[str, str] = {}
        count = 0
        with self.told(url):
            while True:
                page = self._page(url, Bucket=bucket, Prefix=front, **more)
                for each in page.get("Contents", ()):
                    count += 1
                    name, tag = each["Key"][len(front) :], str(each.get("ETag", "")).strip('"')
                    if name and not name.endswith("/"):
                        yield Entry(below(url, name), each["Size"], version=tag)
                if not page.get("IsTruncated"):
                    break
                more = {"ContinuationToken": page["NextContinuationToken"]}
            if not count and front:
                raise NotFound(f"{shown(url)} is not there", "look at the URL: nothing's name begins so")

    def read(self, url: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield an object's bytes from one answer, as they come."""
        if end is not None and end <= start:
            return
        with self.told(url):
            if (line := self._line(url)) is not None:
                try:
                    yield from line.read(_place(url), start, end)
                    return
                except Elsewhere:  # before the first byte
                    self._lines[""] = None
            part = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if start or end is not None else {}
            try:
                answer = self._call(url, "get_object", **_place(url), **part)
            except OSError as error:
                if _is_beyond(error):
                    return
                raise
            body, left, watched = answer["Body"], int(answer["ContentLength"]), self._watched(url)
            try:
                while left:
                    piece = watched.run(whole(body.read, min(PIECE, left)))
                    if not piece:
                        raise ServerAway(f"{shown(url)} ended {left} bytes too early", "try again later")
                    left -= len(piece)
                    yield piece
            finally:
                self.system(url).loop.call_soon_threadsafe(body.close)

    def write(self, url: str, path: str, tell: Callable[[int], None] = lambda sent: None) -> Entry:
        """Put a file there: a small one at once, a large one in parts that only their end makes an object."""
        with opened(path) as source, self.told(url):
            watched, size = self._watched(url, tell), os.fstat(source.fileno()).st_size
            if size < 2 * PART and (line := self._line(url)) is not None:
                try:
                    there = line.put(url, _place(url), source.fileno(), (0, size), moves=tell)
                    return there if there.checksum else arrived(self.stat(url), source)
                except Elsewhere:
                    self._lines[""] = None
                    source.seek(0)
            upload = _Upload(self.system(url), _place(url), watched, self._line(url))
            if size < 2 * PART:
                watched.run(upload.at_once(source.read()))
            else:
                self._write_parts(url, upload, source, size)
            return arrived(self.stat(url), source)

    def remove(self, url: str) -> None:
        """Remove an object."""
        with self.told(url):
            self._call(url, "delete_object", **_place(url))

    def _write_parts(self, url: str, upload: _Upload, source: BinaryIO, size: int) -> None:
        upload.begin(self._call(url, "create_multipart_upload", **_place(url))["UploadId"])
        try:
            parts = upload.parts(source, size)
            self._call(url, "complete_multipart_upload", **upload.place, MultipartUpload={"Parts": parts})
        except BaseException:
            with contextlib.suppress(Exception):
                self._call(url, "abort_multipart_upload", **upload.place)
            raise

    def defaults(self, url: str) -> dict[str, Any]:
        """Return s3fs' options: time limits for a silent server, and the customs of AWS's environment."""
        found = {own: self.environ[name] for name, own in _ENVIRON.items() if self.environ.get(name)}
        if self.options.keys() & {"anon", "key", "secret", "profile"}:
            found.pop("token", None)
            found.pop("profile", None)
        found = {
            name: value for name, value in found.items() if name not in self.options and not self.options.get("anon")
        }
        region = self.options.get("region") or self.environ.get("AWS_REGION") or self.environ.get("AWS_DEFAULT_REGION")
        endpoint = self.options.get("endpoint_url") or found.get("endpoint_url") or ""
        config: dict[str, Any] = {
            "connect_timeout": min(10.0, self.stall),
            "read_timeout": self.stall,
            "retries": {"total_max_attempts": 1},
            "max_pool_connections": 64,
        }
        if endpoint and "amazonaws.com" not in endpoint:
            # Other stores know neither buckets as hosts nor the newest checksums.
            config["s3"] = {"addressing_style": "path"}
            config["request_checksum_calculation"] = config["response_checksum_validation"] = "when_required"
        client = {"region_name": region} if region else {}
        return {
            **found,
            "use_listings_cache": False,
            "client_kwargs": {**client, **self.options.get("client_kwargs", {})},
            "config_kwargs": {**config, **self.options.get("config_kwargs", {})},
        }

    def made(self, url: str) -> Any:
        """Return s3fs' file system, which does not try again by itself."""
        system = super().made(url)
        system.retries = 1
        return system

    def _head(self, url: str) -> Any:
        """Return what HEAD says; None: no, without a reason: such an answer has no body that could tell it."""
        try:
            return self._call(url, "head_object", **_place(url))
        except FileNotFoundError:
            raise
        except PermissionError:
            return None
        except Exception as error:
            # Swift's 404 to a HEAD has a body, which HTTP forbids.
            if getattr(error.__context__, "status", 0) != 400:
                raise
            self._heads = False
            return None

    def _first_byte(self, url: str) -> Any:
        """Return what GET says of an object, as HEAD would; its refusals say why."""
        try:
            found = self._call(url, "get_object", **_place(url), Range="bytes=0-0")
        except OSError as error:
            if not _is_beyond(error):
                raise
            return self._call(url, "head_object", **_place(url))  # it is there, and empty
        self.system(url).loop.call_soon_threadsafe(found["Body"].close)
        return {**found, "ContentLength": int(found["ContentRange"].rpartition("/")[2])}

    def _call(self, url: str, method: str, **arguments: Any) -> Any:
        # The client's own time limits come first, and say more.
        system = self.system(url)
        return Watched(system.loop, 1.5 * self.stall).run(system._call_s3(method, **arguments))

    def _page(self, url: str, **arguments: str) -> Any:
        """Return one page of a list, tried again by itself: those before it need not come again for it."""
        for pause in PAUSES:
            try:
                return self._call(url, "list_objects_v2", **arguments)
            except Exception as error:
                if pause is None or not isinstance(told(error, ""), ServerAway):
                    raise
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _line(self, url: str) -> Line | None:
        """Return the short way for what is done very often; None: the client does it."""
        bucket = url.partition("://")[2].partition("/")[0]
        if ":" in bucket or bucket.endswith("--x-s3"):  # access points and such have ways of their own
            return None
        if "" not in self._lines:
            system = self.system(url)
            with self._lock:
                if "" not in self._lines:
                    self._lines[""] = line_of(system, self.options, self.stall, self.environ)
        return self._lines[""]

    def _watched(self, url: str, tell: Callable[[int], None] | None = None) -> Watched:
        return Watched(self.system(url).loop, self.stall, tell)


class _Upload:
    """One object on its way."""

    def __init__(self, system: Any, place: dict[str, str], watched: Watched, line: Line | None) -> None:
        self.place, self.watched, self._system, self._line = place, watched, system, line
        self._crew: ThreadPoolExecutor | None = None

    def begin(self, upload: str) -> None:
        """Remember what the store calls it: an object in parts."""
        self.place = {**self.place, "UploadId": upload}

    async def at_once(self, data: bytes) -> None:
        """Send a small file."""
        body = Body(data, self.watched)
        await self._system._call_s3("put_object", **self.place, Body=body, ContentMD5=_md5(data))
        self.watched.went(len(data))

    def parts(self, source: BinaryIO, size: int) -> list[dict[str, Any]]:
        """Send a large file, several parts at once; return what the store has to hear at the end."""
        # Threads of its own: one that waited behind other files would look as if nothing moved.
        self._crew = ThreadPoolExecutor(AT_ONCE, "tokenpool-parts")
        try:
            return self.watched.run(self._parts(source, size))
        finally:
            self._crew.shutdown(wait=False)

    async def _parts(self, source: BinaryIO, size: int) -> list[dict[str, Any]]:
        largest = LARGEST_PART if self._line is not None else PART
        step = max(PART, min(largest, -(-size // AT_ONCE)), -(-size // _PARTS))
        narrow = asyncio.Semaphore(AT_ONCE)

        async def send(number: int) -> dict[str, Any]:
            async with narrow:
                start = (number - 1) * step
                tag = await self._part(number, source, start, min(start + step, size))
                self.watched.went(min(step, size - start))
                return {"PartNumber": number, "ETag": tag}

        return list(await asyncio.gather(*(send(number) for number in range(1, -(-size // step) + 1))))

    def _moves(self, sent: int) -> None:
        self.watched.moves()

    def _beside(self, deed: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._crew, deed)

    async def _part(self, number: int, source: BinaryIO, start: int, end: int) -> str:
        """Send one part, and once more where that failed: the others need not go again for it."""
        for pause in PAUSES:
            try:
                if self._line is not None:
                    query = f"partNumber={number}&uploadId={quote(self.place['UploadId'], safe='~')}"
                    put = partial(self._line.put, "", self.place, source.fileno(), (start, end), query, self._moves)
                    return f'"{(await self._beside(put)).version}"'
                data, md5 = await self._beside(partial(_read, source, end - start, start))
                body = Body(data, self.watched)
                call = self._system._call_s3
                answer = await call("upload_part", **self.place, PartNumber=number, Body=body, ContentMD5=md5)
                return str(answer["ETag"])
            except Elsewhere:
                self._line = None
            except Exception as error:
                if pause is None or not isinstance(told(error, ""), ServerAway):
                    raise
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")


def _is_beyond(error: OSError) -> bool:
    """Tell whether an answer says that a range begins behind the end."""
    return bool(re.search(r"InvalidRange|\(416\)", str(error.__cause__)))


def _read(source: BinaryIO, size: int, start: int) -> tuple[bytes, str]:
    data = os.pread(source.fileno(), size, start)
    return data, _md5(data)


def _md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def _place(url: str) -> dict[str, str]:
    bucket, _, key = url.partition("://")[2].partition("/")
    if not bucket:
        raise BadInput(f"{shown(url)} names no bucket", "s3://BUCKET/KEY")
    if not key or key.endswith("/"):
        raise NotFound(f"{shown(url)} is a folder, not a file", "a folder is meant by a / at the end")
    return {"Bucket": bucket, "Key": key}
