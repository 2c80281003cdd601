"""The texts that a TES request may hold: what they have to look like, and in which words one that does not is refused."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

#: One part of a path: any name but . and ..
_NAME = r"([^/.\u0000]|\.[^/.\u0000]|\.\.[^/\u0000])[^/\u0000]*"
_SOME = r"[^\u0000]"


def _matching(pattern: str, wrong: str, **described: Any) -> Any:
    """Return the type of texts that match a pattern; `wrong` says of one that does not what is expected."""
    # Python's $ would let a line end pass behind it.
    known = re.compile(pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern)

    def check(value: str) -> str:
        if known.match(value):
            return value
        shown = value if len(value) <= 60 else f"{value[:50]}..."
        raise ValueError(f"{shown!r} {wrong}")

    schema = {"type": "string", "pattern": pattern, **described}
    return Annotated[str, AfterValidator(check), WithJsonSchema(schema)]


def whole(value: Any) -> Any:
    """JSON has one kind of number: 4.0 is whole."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Text = _matching(f"^{_SOME}*$", "holds a NUL character")
#: A file or folder inside a container that comes from outside, or goes there.
Path = _matching(
    f"^(/+{_NAME})+/*$", "is no absolute path without . and ..: for example /data/file1", examples=["/data/file1"]
)
FolderPath = _matching(
    f"^(/{_NAME})+/?$", "is no absolute path of a folder, without . and ..: for example /vol/a", examples=["/vol/a"]
)
#: One that need not be mounted.
Absolute = _matching(f"^/{_SOME}*$", "is no absolute path", examples=["/data"])
Image = _matching("^[!-,.-~][!-~]*$", "is no name of an image: for example alpine:3", examples=["ubuntu:24.04"])
Url = _matching(r"^[^\u0000\r\n]+$", "is no URL: for example s3://bucket/key", examples=["s3://my-object-store/file1"])
