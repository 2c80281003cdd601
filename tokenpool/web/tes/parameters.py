"""The `backend_parameters` of a task: which of a token's fields they are, and what is to be said of the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...checks import CHECKS, moment
from ...errors import BadInput


def _number(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() else number


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


#: The one parameter that is no field of a token.
OUTPUTS = "outputs_when"
#: How the text of each parameter is read; the field of the token has its name.
READ: Mapping[str, Callable[[str], Any]] = {
    "batch": str,
    "priority": _number,
    "gpus": _number,
    "timeout": _number,
    "max_retries": _number,
    "retry_delay": _number,
    "retry_backoff": _number,
    "not_before": moment,
    "depends_on": _names,
    "container_options": str.split,
    "registry_secret": str,
    "secrets": _names,
    OUTPUTS: str,
}


@dataclass(frozen=True)
class Parameters:
    """What is known of some parameters: the fields that they are, their own words, and warnings about the rest."""

    fields: dict[str, Any] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def outputs(self) -> str:
        """When outputs are taken away: always, or after success only."""
        return str(self.fields.get(OUTPUTS, "always"))


def read_parameters(given: Mapping[str, str]) -> Parameters:
    """Read parameters, whose keys may be written large or small; what is not supported is a warning.

    >>> read_parameters({"Priority": "5", "VmSize": "D64"})
    Parameters(fields={'priority': 5}, kept={'Priority': '5'}, warnings=["backend parameter 'VmSize' is not supported"])
    """
    found = Parameters()
    for key, text in given.items():
        name = key.lower()
        if name not in READ:
            found.warnings.append(f"backend parameter {key!r} is not supported")
            continue
        try:
            value = _checked(name, READ[name](text))
        except (ValueError, OverflowError) as error:  # BadInput is a ValueError
            told = error.message if isinstance(error, BadInput) else f"{text!r} is no value for it"
            found.warnings.append(f"backend parameter {key!r}: {told}")
            continue
        found.fields[name] = value
        found.kept[key] = text
    return found


def _checked(name: str, value: Any) -> Any:
    if name == "gpus":
        CHECKS["resources"]({"gpus": value}, {})
    elif name == OUTPUTS:
        CHECKS["outputs"]([{"when": value}], {})
    else:
        CHECKS[name](value, {})
    return value
