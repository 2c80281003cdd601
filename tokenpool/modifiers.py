"""The picas face of the transitions: verbs that change a token, or a token nested in a document, in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, Union

from . import transitions
from .transitions import Doc

T = TypeVar("T", bound=Doc)
Ref = Union[str, list[Any]]


class TokenModifier:
    """What a modifier can do; every verb is to be written by a subclass."""

    def __init__(self, timeout: int = 86400) -> None:
        self.timeout = timeout

    def _missing(self, verb: str) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no {verb}")

    def lock(self, *args: Any, **kwargs: Any) -> Any:
        """Claim the token."""
        return self._missing("lock")

    def unlock(self, *args: Any, **kwargs: Any) -> Any:
        """Give the token back."""
        return self._missing("unlock")

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """Finish the token."""
        return self._missing("close")

    def unclose(self, *args: Any, **kwargs: Any) -> Any:
        """Open the token again."""
        return self._missing("unclose")

    def add_output(self, *args: Any, **kwargs: Any) -> Any:
        """Write results into the token."""
        return self._missing("add_output")

    def scrub(self, *args: Any, **kwargs: Any) -> Any:
        """Put the token back to todo, counted."""
        return self._missing("scrub")

    def set_error(self, *args: Any, **kwargs: Any) -> Any:
        """Mark the token failed."""
        return self._missing("set_error")


class BasicTokenModifier(TokenModifier):
    """Changes a token (a `Task` or a plain dict) and returns it."""

    def __init__(self, timeout: int = 86400) -> None:
        super().__init__(timeout)

    def lock(self, token: T) -> T:
        transitions.lock(token)
        return token

    def unlock(self, token: T) -> T:
        transitions.unlock(token)
        return token

    def close(self, token: T) -> T:
        transitions.close(token)
        return token

    def unclose(self, token: T) -> T:
        transitions.unclose(token)
        return token

    def add_output(self, token: T, output: Mapping[str, Any]) -> T:
        token.update(output)
        return token

    def scrub(self, token: T) -> T:
        transitions.scrub(token)
        return token

    def set_error(self, token: T) -> T:
        transitions.mark_error(token)
        return token


class NestedTokenModifier(TokenModifier):
    """The same verbs for a token inside a document: `ref` is a key, or ``[document id, key, key …]``."""

    def __init__(self, timeout: int = 86400) -> None:
        super().__init__(timeout)
        self.tokenmodifier = BasicTokenModifier()

    def get_token(self, ref: Ref, record: Any) -> Any:
        """Return the token that `ref` names."""
        if not isinstance(ref, list):
            return record[ref]
        token = record
        for key in ref[1:]:
            token = token[key]
        return token

    def _change(self, verb: str, ref: Ref, record: Any, output: Mapping[str, Any] | None = None) -> Any:
        # Every basic verb works in place, so the record around the token needs no second write.
        arguments = () if output is None else (output,)
        getattr(self.tokenmodifier, verb)(self.get_token(ref, record), *arguments)
        return record

    def lock(self, ref: Ref, record: Any) -> Any:
        return self._change("lock", ref, record)

    def unlock(self, ref: Ref, record: Any) -> Any:
        return self._change("unlock", ref, record)

    def close(self, ref: Ref, record: Any) -> Any:
        return self._change("close", ref, record)

    def unclose(self, ref: Ref, record: Any) -> Any:
        return self._change("unclose", ref, record)

    def add_output(self, ref: Ref, record: Any, output: Mapping[str, Any]) -> Any:
        return self._change("add_output", ref, record, output)

    def scrub(self, ref: Ref, record: Any) -> Any:
        return self._change("scrub", ref, record)

    def set_error(self, ref: Ref, record: Any) -> Any:
        return self._change("set_error", ref, record)
