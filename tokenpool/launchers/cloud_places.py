"""Opens clouds: finds credentials where each cloud's own tools find them, and gives one driver for each region."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import BadInput, NotFound, NotPermitted, ServerAway, TokenpoolError
from .base import LaunchFailed, QuotaReached
from .cloud_plan import Plan, pairs

Driver = Any
#: Seconds that a cloud gets for one answer.
PATIENCE = 60
_QUOTA = ("quota", "limitexceeded", "limit exceeded", "insufficientinstancecapacity", "too many", "no valid host")
_DENIED = ("authfailure", "unauthorized", "invalid credentials", "invalidclienttokenid", "signaturedoesnotmatch")
_DENIED_CODES = (401,)


def open_places(plan: Plan, environ: Mapping[str, str]) -> dict[str, Driver]:
    """Return a driver for each region of a plan, the preferred one first; nothing is asked yet.

    Raises BadInput where credentials are missing or make no sense, NotFound without the library.
    """
    try:
        from libcloud.compute.providers import get_driver
    except ImportError:
        raise NotFound("apache-libcloud is not installed", "pip install 'tokenpool[cloud]'") from None
    try:
        maker = get_driver(plan.provider)
    except (AttributeError, ImportError):
        raise BadInput(
            f"there is no cloud provider {plan.provider!r}", "openstack, ec2, or a name of libcloud"
        ) from None
    more: dict[str, Any] = dict(pairs(plan.options, "option", "="))
    make = _MAKERS.get(plan.provider, _other)
    found = {}
    for region, arguments in make(plan, environ):
        words, named = arguments
        try:
            found[region] = maker(*words, **{"timeout": PATIENCE, **named, **more})
        except (TypeError, ValueError, KeyError) as error:
            raise BadInput(f"the cloud cannot be opened: {error}", "check --region and --option") from None
    return found


Arguments = tuple[tuple[str, ...], dict[str, Any]]


def _openstack(plan: Plan, environ: Mapping[str, str]) -> Iterator[tuple[str, Arguments]]:
    auth = openstack_settings(plan.cloud or environ.get("OS_CLOUD", ""), environ)
    url = auth.get("auth_url", "")
    if not url:
        raise BadInput("nothing says where the OpenStack is", "source its openrc.sh (OS_AUTH_URL ...), or --cloud NAME")
    if auth.get("cacert"):
        import libcloud.security

        # The library knows one file of certificates for all of its connections.
        libcloud.security.CA_CERTS_PATH = auth["cacert"]
    parts = urlsplit(url)
    root = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    root = root[: -len("/v3")] if root.endswith("/v3") else root
    named: dict[str, Any] = {"ex_force_auth_url": root}
    if auth.get("application_credential_id"):
        words = (auth["application_credential_id"], auth.get("application_credential_secret", ""))
        named["ex_force_auth_version"] = "3.x_appcred"
    else:
        words = (auth.get("username", ""), auth.get("password", ""))
        project = auth.get("project_name") or auth.get("tenant_name") or ""
        missing = [
            word
            for word, there in zip(("OS_USERNAME", "OS_PASSWORD", "OS_PROJECT_NAME"), (*words, project))
            if not there
        ]
        if missing:
            raise BadInput(f"{missing[0]} is not set: the OpenStack will not let us in", "source its openrc.sh")
        named.update(ex_force_auth_version="3.x_password", ex_tenant_name=project)
        named["ex_domain_name"] = auth.get("user_domain_name") or auth.get("domain_name") or "Default"
        named["ex_tenant_domain_id"] = _project_domain(auth)
    for region in plan.regions or (auth.get("region_name", ""),):
        yield region, (words, {**named, **({"ex_force_service_region": region} if region else {})})


def _project_domain(auth: Mapping[str, str]) -> str:
    """Return the id of the project's domain; the library knows projects by that only."""
    name = auth.get("project_domain_name") or "Default"
    if auth.get("project_domain_id"):
        return auth["project_domain_id"]
    if name != "Default":
        raise BadInput(f"the id of the project's domain {name!r} is needed", "set OS_PROJECT_DOMAIN_ID")
    return "default"


def openstack_settings(cloud: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what OS_* variables say, or the entry `cloud` of clouds.yaml and secure.yaml."""
    if not cloud:
        return {name[3:].lower(): value for name, value in environ.items() if name.startswith("OS_") and value}
    found: dict[str, str] = {}
    for file in ("clouds", "secure"):
        entry = _entry(cloud, file, environ)
        auth = entry.get("auth")
        for source in (auth if isinstance(auth, dict) else {}, entry):
            found.update({str(k): str(v) for k, v in source.items() if isinstance(v, (str, int))})
    if not found:
        raise BadInput(
            f"there is no cloud {cloud!r} in clouds.yaml", "it is looked for here, in ~/.config/openstack, in /etc"
        )
    return found


def _entry(cloud: str, file: str, environ: Mapping[str, str]) -> dict[str, Any]:
    import yaml

    named = environ.get("OS_CLIENT_CONFIG_FILE") if file == "clouds" else environ.get("OS_CLIENT_SECURE_FILE")
    home = Path(environ.get("HOME", "/"))
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    places = [Path(named)] if named else []
    places += [folder / f"{file}.yaml" for folder in (Path(), config / "openstack", Path("/etc/openstack"))]
    for path in places:
        try:
            told = yaml.safe_load(path.read_text("utf-8"))
        except OSError:
            continue
        except (yaml.YAMLError, UnicodeDecodeError):
            raise BadInput(f"{path} is no YAML", "see what openstack --os-cloud says to it") from None
        clouds = told.get("clouds") if isinstance(told, dict) else None
        entry = clouds.get(cloud) if isinstance(clouds, dict) else None
        return entry if isinstance(entry, dict) else {}
    return {}


def _ec2(plan: Plan, environ: Mapping[str, str]) -> Iterator[tuple[str, Arguments]]:
    words = (environ.get("AWS_ACCESS_KEY_ID", ""), environ.get("AWS_SECRET_ACCESS_KEY", ""))
    if not all(words):
        raise BadInput("AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY is not set", "set both, as for the aws command")
    named: dict[str, Any] = {}
    if environ.get("AWS_SESSION_TOKEN"):
        named["token"] = environ["AWS_SESSION_TOKEN"]
    endpoint = plan.endpoint or environ.get("AWS_ENDPOINT_URL_EC2") or environ.get("AWS_ENDPOINT_URL") or ""
    if endpoint:
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise BadInput(f"{endpoint} is no address of a service", "for example --endpoint https://ec2.example.org")
        secure = parts.scheme == "https"
        named.update(host=parts.hostname, port=parts.port or (443 if secure else 80), secure=secure)
    first = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    for region in plan.regions or (first,):
        yield region, (words, {**named, "region": region})


def _other(plan: Plan, environ: Mapping[str, str]) -> Iterator[tuple[str, Arguments]]:
    words = tuple(filter(None, (environ.get("TOKENPOOL_CLOUD_KEY"), environ.get("TOKENPOOL_CLOUD_SECRET"))))
    if not words:
        hint = "set TOKENPOOL_CLOUD_KEY and TOKENPOOL_CLOUD_SECRET as libcloud's driver wants them"
        raise BadInput(f"nothing says who we are for {plan.provider}", hint)
    for region in plan.regions or ("",):
        yield region, (words, {"region": region} if region else {})


_MAKERS: Mapping[str, Callable[[Plan, Mapping[str, str]], Iterator[tuple[str, Arguments]]]] = {
    "openstack": _openstack,
    "ec2": _ec2,
}


def identity(plan: Plan, environ: Mapping[str, str]) -> str:
    """Return who we are to a cloud and where it is, without secrets: what was made as somebody else is not seen."""
    if plan.provider == "openstack":
        auth = openstack_settings(plan.cloud or environ.get("OS_CLOUD", ""), environ)
        who = auth.get("application_credential_id") or auth.get("username", "")
        project = auth.get("project_name") or auth.get("tenant_name") or ""
        return " ".join(filter(None, (who, project and f"of {project}", auth.get("auth_url", "").rstrip("/"))))
    if plan.provider == "ec2":
        return environ.get("AWS_ACCESS_KEY_ID", "")
    key = environ.get("TOKENPOOL_CLOUD_KEY", "")  # with some clouds it is the secret itself
    return hashlib.sha256(key.encode()).hexdigest()[:8] if key else ""


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn what a cloud refuses into our errors: QuotaReached, NotPermitted, LaunchFailed, ServerAway."""
    from libcloud.common.exceptions import BaseHTTPError
    from libcloud.common.types import InvalidCredsError, LibcloudError

    try:
        yield
    except TokenpoolError:
        raise
    except InvalidCredsError:
        raise _denied() from None
    except (LibcloudError, BaseHTTPError, OSError) as error:
        if isinstance(error, OSError) or "ConnectionError" in type(error).__mro__[0].__name__:
            raise ServerAway(
                f"the cloud does not answer: {_line(error)}", "is its address right, and the network up?"
            ) from None
        raise _refusal(what, error) from None
    except Exception as error:  # the library raises plain exceptions for much of what a cloud says
        raise _refusal(what, error) from None


def _refusal(what: str, error: Exception) -> Exception:
    text, code = _line(error), getattr(error, "code", None)
    low = text.lower()
    if code in _DENIED_CODES or any(sign in low for sign in _DENIED):
        return _denied()
    if "could not find specified endpoint" in low:
        return BadInput("the cloud has no machines there, or no such region", "check --region and OS_REGION_NAME")
    if code in (413, 429) or any(sign in low for sign in _QUOTA):
        return QuotaReached(f"{what}: {text}", "wait until machines have ended, launch fewer, or name another --region")
    return LaunchFailed(f"{what}: {text}", "see what the cloud's own command says")


def _denied() -> NotPermitted:
    return NotPermitted("the cloud does not know these credentials", "check OS_* or AWS_*, clouds.yaml and the project")


def _line(error: BaseException) -> str:
    text = str(getattr(error, "value", "") or error) or type(error).__name__
    text = text[max(text.rfind("[Errno"), 0) :].rstrip("')\"")  # what the network said is in the innermost brackets
    return "".join(letter for letter in " ".join(text.split()) if letter.isprintable())[:300]


def account() -> str:
    """Return who we are, for the tag of the owner."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())
