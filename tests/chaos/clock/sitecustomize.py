"""Makes a Python process believe in another time: CLOCK_SHIFT seconds from now, in `time` and `datetime`.

Python imports this by its name at every start, if its folder is on PYTHONPATH. The monotonic clock stays as it is, as
it does on a machine whose date is wrong.
"""

from __future__ import annotations

import datetime
import os
import time
from typing import Any

SHIFT = float(os.environ.get("CLOCK_SHIFT", "0"))

_time, _time_ns, _gmtime, _localtime = time.time, time.time_ns, time.gmtime, time.localtime
_real = datetime.datetime


class _Meta(type):
    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, _real)


class _Shifted(_real, metaclass=_Meta):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return _real.now(tz) + datetime.timedelta(seconds=SHIFT)

    @classmethod
    def utcnow(cls) -> Any:
        return _real.utcnow() + datetime.timedelta(seconds=SHIFT)

    @classmethod
    def today(cls) -> Any:
        return _real.today() + datetime.timedelta(seconds=SHIFT)


if SHIFT:
    time.time = lambda: _time() + SHIFT
    time.time_ns = lambda: _time_ns() + int(SHIFT * 1e9)
    time.gmtime = lambda seconds=None: _gmtime(time.time() if seconds is None else seconds)
    time.localtime = lambda seconds=None: _localtime(time.time() if seconds is None else seconds)
    datetime.datetime = _Shifted  # type: ignore[misc]
