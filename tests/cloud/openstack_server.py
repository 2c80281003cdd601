"""A real OpenStack on loopback for the tests: keystone, glance, placement, neutron, and nova whose machines are pretended."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import openstack_config
import urllib3
from couch_server import REAL_ENVIRONMENT, Unavailable
from namespaces import end_namespace
from openstack_config import PASSWORD
from openstack_venv import ensure_openstack

TABLES = Path(__file__).with_name("openstack_tables.py")
RABBIT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
SERVICES = ("keystone", "glance", "placement", "neutron", "nova")
#: Seconds for a service to come up.
PATIENCE = 150.0
REGION = "Here"
#: Types of services in the catalogue, and what follows the port in their addresses.
CATALOGUE = {
    "nova": ("compute", "/v2.1"),
    "placement": ("placement", ""),
    "glance": ("image", ""),
    "neutron": ("network", ""),
}
WSGI = {
    "keystone": ("keystone.wsgi.api", {"OS_KEYSTONE_CONFIG_FILES": "{etc}/keystone.conf"}),
    "placement": ("placement.wsgi.api", {"OS_PLACEMENT_CONFIG_DIR": "{etc}"}),
    "glance": ("glance.wsgi.api", {"OS_GLANCE_CONFIG_DIR": "{etc}", "OS_GLANCE_CONFIG_FILES": "glance-api.conf"}),
    "neutron": ("neutron.wsgi.api", {"OS_NEUTRON_CONFIG_DIR": "{etc}", "OS_NEUTRON_CONFIG_FILES": "neutron.conf"}),
    "nova": (
        "nova.wsgi.osapi_compute",
        {"OS_NOVA_CONFIG_DIR": "{etc}", "OS_NOVA_CONFIG_FILES": "{venv}/etc/nova/api-paste.ini;nova.conf"},
    ),
}


def until(what: str, found: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """Wait until `found()` is true and return it; raises AssertionError with what was waited for."""
    end = time.monotonic() + patience
    while not (value := found()):
        assert time.monotonic() < end, f"not within {patience:g} s: {what}"
        time.sleep(0.1)
    return value


class OpenStack:
    """The cloud of one region; a context manager. What it starts dies with it, also if this process is killed."""

    def __init__(self, folder: Path, free_ports: Callable[[int], list[int]]) -> None:
        if not RABBIT.exists() or not Path("/usr/sbin/mariadbd").exists() or os.getuid() != 0:
            raise Unavailable("OpenStack needs root, and (Debian:) apt install rabbitmq-server mariadb-server-core")
        self.folder, self.venv = folder, ensure_openstack()
        names = ("rabbit", "rabbit_peers", "epmd", "mariadb", *SERVICES)
        self.ports = dict(zip(names, free_ports(len(names))))
        self.auth_url = f"http://127.0.0.1:{self.ports['keystone']}/v3"
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._http = urllib3.PoolManager(retries=False, timeout=60)
        self._token: str | None = None
        for name in ("state", "log", "locks", "images/staging", "images/tasks", "instances", "fernet", "rabbit"):
            (folder / name).mkdir(parents=True, mode=0o700, exist_ok=True)

    # --- coming and going --------------------------------------------------------------------------------------------

    def __enter__(self) -> OpenStack:
        try:
            openstack_config.write_all(self.folder, self.venv, self.ports, REGION)
            self._start_rabbit()
            self._start_database()
            self._prepare_keystone()
            for name in SERVICES:
                self._start_api(name)
            self._register()
            for name in ("conductor", "scheduler", "compute"):
                self._start(f"nova-{name}", "--config-file", f"{self.folder}/etc/nova.conf")
            for name in SERVICES:
                self._answers(name)
            self._furnish()
            until("a host that takes machines", self._has_room)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in self._daemons.values():
            end_namespace(daemon)
        self._http.clear()

    def _start(self, program: str, *words: str, said: str = "", **environ: str) -> None:
        """Start a daemon as the first process of a namespace of its own: nothing of it outlives it, or us."""
        name = said or program
        with (self.folder / "log" / f"{name}.said").open("ab") as file:
            self._daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child=KILL", program, *words],
                env={**self._environ(), **environ}, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True,
            )  # fmt: skip

    def _environ(self) -> dict[str, str]:
        path = f"{self.venv}/bin:{REAL_ENVIRONMENT.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        return {"PATH": path, "HOME": str(self.folder), "LANG": "C.UTF-8", "PYTHONWARNINGS": "ignore"}

    def _start_rabbit(self) -> None:
        folder, ports = self.folder / "rabbit", self.ports
        self._start(
            str(RABBIT), said="rabbit", HOME=str(folder), RABBITMQ_CONFIG_FILE=f"{self.folder}/etc/rabbit.conf",
            RABBITMQ_MNESIA_BASE=f"{folder}/mnesia", RABBITMQ_LOG_BASE=f"{self.folder}/log",
            RABBITMQ_NODENAME=f"t{ports['rabbit']}@localhost", RABBITMQ_DIST_PORT=str(ports["rabbit_peers"]),
            RABBITMQ_ENABLED_PLUGINS_FILE=f"{folder}/plugins", RABBITMQ_PID_FILE=f"{folder}/pid",
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}",
            ERL_EPMD_ADDRESS="127.0.0.1", ERL_EPMD_PORT=str(ports["epmd"]),
        )  # fmt: skip

    def _start_api(self, name: str) -> None:
        module, told = WSGI[name]
        environ = {key: value.format(etc=self.folder / "etc", venv=self.venv) for key, value in told.items()}
        self._start(
            "uwsgi", "--http-socket", f"127.0.0.1:{self.ports[name]}", "--module", f"{module}:application", "--master",
            "--enable-threads", "--processes", "1", "--threads", "8", "--thunder-lock", "--lazy-apps",
            "--need-app", "--buffer-size", "65535", "--post-buffering", "65536", "--add-header", "Connection: close",
            said=name, **environ,
        )  # fmt: skip

    # --- databases ---------------------------------------------------------------------------------------------------

    def _start_database(self) -> None:
        """Start the databases; they are the same for every run, and are kept with the environment."""
        kept = self.venv.with_name("tables")
        if not (kept / "complete").exists() or (kept / "complete").read_text() != TABLES.read_text():
            shutil.rmtree(kept, ignore_errors=True)
            (kept / "mariadb").mkdir(parents=True)
            with (self.folder / "log" / "tables.said").open("wb") as said:
                words = ["setpriv", "--pdeathsig", "KILL", *self._mariadb(kept / "mariadb")]
                database = subprocess.Popen(words, stdout=said, stderr=said)
                try:
                    self._listens("mariadb")
                    for name in SERVICES:
                        self._run(f"{self.venv}/bin/python", str(TABLES), name, str(self.ports["mariadb"]))
                finally:
                    database.terminate()
                    database.wait(60)
            (kept / "complete").write_text(TABLES.read_text())
        shutil.copytree(kept / "mariadb", self.folder / "mariadb")
        self._start(*self._mariadb(self.folder / "mariadb"), said="mariadb")

    def _mariadb(self, data: Path) -> list[str]:
        """Return the command of a database that asks nobody who they are, on loopback."""
        options = [f"--datadir={data}", f"--socket={data}/socket", f"--pid-file={data}/pid"]
        small = ["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--performance-schema=OFF"]
        return [
            "mariadbd", "--no-defaults", "--user=root", "--bind-address=127.0.0.1", f"--port={self.ports['mariadb']}",
            "--skip-grant-tables", "--skip-log-bin", "--innodb-flush-log-at-trx-commit=0", "--skip-name-resolve",
            "--max-connections=400", *options, *small,
        ]  # fmt: skip

    def _listens(self, name: str) -> None:
        """Wait until something listens on a service's port."""

        def listens() -> bool:
            self._all_live()
            with socket.socket() as line:
                return line.connect_ex(("127.0.0.1", self.ports[name])) == 0

        until(f"somebody at the port of {name}", listens)

    def _prepare_keystone(self) -> None:
        """Give keystone its keys, its administrator and its own address."""
        for name in ("0", "1"):
            (self.folder / "fernet" / name).write_bytes(base64.urlsafe_b64encode(os.urandom(32)))
        self._listens("mariadb")
        words = ["--bootstrap-password", PASSWORD, "--bootstrap-region-id", REGION]
        for interface in ("public", "internal"):
            words += [f"--bootstrap-{interface}-url", self.auth_url]
        self._run("keystone-manage", "--config-file", f"{self.folder}/etc/keystone.conf", "bootstrap", *words)

    def _run(self, *words: str) -> None:
        done = subprocess.run(words, env=self._environ(), capture_output=True, text=True, timeout=PATIENCE)
        assert done.returncode == 0, (words, done.stdout[-2000:], done.stderr[-2000:])

    # --- what an administrator does ----------------------------------------------------------------------------------

    def call(self, service: str, method: str, path: str, body: Any = None, raw: bytes | None = None) -> Any:
        """Send one request as the administrator; returns the decoded answer. Raises AssertionError for a refusal."""
        headers = {"X-Auth-Token": self._token or "", "OpenStack-API-Version": "compute 2.90"}
        more: dict[str, Any] = {"json": body} if raw is None else {"body": raw}
        if raw is not None:
            headers["Content-Type"] = "application/octet-stream"
        url = f"http://127.0.0.1:{self.ports[service]}{path}"
        answer = self._http.request(method, url, headers=headers, **more)
        assert answer.status < 300, f"{method} {url}: {answer.status} {answer.data[:1000]!r}"
        return answer.json() if answer.data.strip() else None

    def _register(self) -> None:
        """Get a token, and tell keystone about the other services."""
        self._answers("keystone")
        user = {"name": "admin", "domain": {"id": "default"}, "password": PASSWORD}
        scope = {"project": {"name": "admin", "domain": {"id": "default"}}}
        body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        answer = self._http.request("POST", f"{self.auth_url}/auth/tokens", json=body)
        assert answer.status == 201, answer.data
        self._token, self.project = answer.headers["X-Subject-Token"], answer.json()["token"]["project"]["id"]
        ask = lambda method, path, body=None: self.call("keystone", method, f"/v3{path}", body)  # noqa: E731
        roles = {role["name"]: role["id"] for role in ask("GET", "/roles")["roles"]}
        project = ask("POST", "/projects", {"project": {"name": "service", "domain_id": "default"}})["project"]["id"]
        told = {"name": "service", "password": PASSWORD, "domain_id": "default"}
        service = ask("POST", "/users", {"user": told})["user"]["id"]
        for role in ("admin", "service"):
            ask("PUT", f"/projects/{project}/users/{service}/roles/{roles[role]}")
        for name, (kind, path) in CATALOGUE.items():
            made = ask("POST", "/services", {"service": {"name": name, "type": kind}})["service"]["id"]
            url = f"http://127.0.0.1:{self.ports[name]}{path}"
            for interface in ("public", "internal"):
                endpoint = {"service_id": made, "interface": interface, "url": url, "region_id": REGION}
                ask("POST", "/endpoints", {"endpoint": endpoint})

    def _furnish(self) -> None:
        """Give the cloud an image and two flavors."""
        told = {"name": "debian", "disk_format": "raw", "container_format": "bare", "visibility": "public"}
        image = self.call("glance", "POST", "/v2/images", told)["id"]
        self.call("glance", "PUT", f"/v2/images/{image}/file", raw=b"no machine ever looks into it")
        self.flavor("small", 512, 1)

    def machines(self) -> list[dict[str, Any]]:
        """Return all machines, as nova tells an administrator about them."""
        found: list[dict[str, Any]] = self.call("nova", "GET", "/v2.1/servers/detail")["servers"]
        return found

    def power_off(self, machine: str) -> None:
        """Switch a machine off, as its own poweroff does; one that is gone is fine."""
        try:
            self.call("nova", "POST", f"/v2.1/servers/{machine}/action", {"os-stop": None})
        except AssertionError as error:
            if not any(sign in str(error) for sign in (": 404", ": 409")):
                raise

    def clear(self) -> None:
        """Remove all machines, keys and limits: the next test finds an empty cloud."""
        for machine in self.machines():
            self.call("nova", "DELETE", f"/v2.1/servers/{machine['id']}")
        for pair in self.key_names():
            self.call("nova", "DELETE", f"/v2.1/os-keypairs/{pair}")
        self.quota(instances=20, ram=-1, cores=-1)
        until("an empty cloud", lambda: not self.machines())

    def flavor(self, name: str, ram: int, vcpus: int) -> None:
        """Make a flavor, unless it is there."""
        there = [each["name"] for each in self.call("nova", "GET", "/v2.1/flavors")["flavors"]]
        if name not in there:
            self.call(
                "nova", "POST", "/v2.1/flavors", {"flavor": {"name": name, "ram": ram, "vcpus": vcpus, "disk": 1}}
            )

    def make(self, name: str) -> None:
        """Make a machine by hand, as somebody else would."""
        image = self.call("glance", "GET", "/v2/images")["images"][0]["id"]
        flavor = self.call("nova", "GET", "/v2.1/flavors")["flavors"][0]["id"]
        server = {"name": name, "imageRef": image, "flavorRef": flavor, "networks": "none"}
        self.call("nova", "POST", "/v2.1/servers", {"server": server})

    def key_names(self) -> list[str]:
        """Return the names of the administrator's keys."""
        return [each["keypair"]["name"] for each in self.call("nova", "GET", "/v2.1/os-keypairs")["keypairs"]]

    def add_region(self, name: str, compute: str) -> None:
        """Tell of a second region whose machines are reached by another line; everything else is the same."""
        kinds = {"identity": self.auth_url, "compute": f"{compute}/v2.1"}
        kinds["image"], kinds["network"] = (f"http://127.0.0.1:{self.ports[each]}" for each in ("glance", "neutron"))
        self.call("keystone", "PUT", f"/v3/regions/{name}", {"region": {}})
        for service in self.call("keystone", "GET", "/v3/services")["services"]:
            if service["type"] in kinds:
                told = {"service_id": service["id"], "interface": "public", "region_id": name}
                endpoint = {"endpoint": {**told, "url": kinds[service["type"]]}}
                self.call("keystone", "POST", "/v3/endpoints", endpoint)

    def quota(self, **limits: int) -> None:
        """Set limits of the project: `instances`, `cores`, `ram`."""
        self.call("nova", "PUT", f"/v2.1/os-quota-sets/{self.project}", {"quota_set": limits})

    def _answers(self, name: str) -> None:
        """Wait until a service answers."""

        def answers() -> bool:
            self._all_live()
            try:
                return self._http.request("GET", f"http://127.0.0.1:{self.ports[name]}/", timeout=20).status < 500
            except urllib3.exceptions.HTTPError:
                return False

        until(f"an answer of {name}", answers)

    def _all_live(self) -> bool:
        for name, daemon in self._daemons.items():
            assert daemon.poll() is None, f"{name} ended with {daemon.poll()}:\n{self.words()}"
        return True

    def _has_room(self) -> bool:
        """Tell whether the scheduler knows the host: only then does a machine get somewhere."""
        self._all_live()
        return bool(self.call("nova", "GET", "/v2.1/os-hypervisors")["hypervisors"])

    def words(self) -> str:
        """Return what daemons have said, for a failure."""
        files = sorted((self.folder / "log").glob("*"))
        return "\n".join(f"--- {file.name}\n{file.read_text(errors='replace')[-2500:]}" for file in files)

    def environment(self) -> Mapping[str, str]:
        """Return what openrc.sh of a user would set."""
        return {
            "OS_AUTH_URL": self.auth_url, "OS_USERNAME": "admin", "OS_PASSWORD": PASSWORD, "OS_PROJECT_NAME": "admin",
            "OS_USER_DOMAIN_NAME": "Default", "OS_PROJECT_DOMAIN_NAME": "Default", "OS_REGION_NAME": REGION,
            "OS_IDENTITY_API_VERSION": "3",
        }  # fmt: skip
