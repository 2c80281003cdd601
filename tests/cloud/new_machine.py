"""Boots user-data as a new machine would: by the real cloud-init, in a root of its own over this machine's files."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

from couch_server import REAL_ENVIRONMENT, Unavailable
from namespaces import end_namespace

NEEDED = ("cloud-init", "unshare", "chroot", "mount", "losetup", "mkfs.ext4", "runuser")
#: Of all that cloud-init can do, what our user-data asks for, and the name.
CONFIGURATION = """
users: []
disable_root: true
datasource_list: [NoCloud]
datasource: {NoCloud: {fs_label: null}}
network: {config: disabled}
cloud_init_modules: [set_hostname, write_files, users_groups]
cloud_config_modules: [runcmd]
cloud_final_modules: [scripts_user]
system_info:
  distro: debian
  default_user: {name: debian, lock_passwd: true}
  paths: {cloud_dir: /var/lib/cloud/, templates_dir: /etc/cloud/templates/}
"""
#: What would change this machine is only noted; so is the end.
NOTED = ("poweroff", "swapon", "sysctl", "iptables", "ip6tables", "udevadm")
RECORDER = """#!/bin/sh
echo "$(basename "$0") $*" >>/log/noted
"""
BOOT = """
set -e
cd {folder}
mount -t tmpfs -o size=1g tmpfs ram
mkdir ram/upper ram/work ram/root
mount -t overlay overlay -o lowerdir=/,upperdir=ram/upper,workdir=ram/work ram/root
root=$PWD/ram/root
mount --rbind /dev $root/dev
mount --bind console $root/dev/console
mount -t proc proc $root/proc
mount -t tmpfs tmpfs $root/run
mount -t tmpfs tmpfs $root/tmp
mkdir -p $root/log $root/opt/tokenpool $root/var/lib/cloud
mount --bind log $root/log
mount --bind log $root/var/log
mount -t tmpfs tmpfs $root/var/lib/cloud
mkdir -p $root/var/lib/cloud/seed/nocloud $root/etc/cloud/cloud.cfg.d
rm -f $root/etc/cloud/cloud.cfg.d/*
cp cloud.cfg $root/etc/cloud/cloud.cfg
cp user-data meta-data $root/var/lib/cloud/seed/nocloud/
cp -r image/. $root/
for each in {noted}; do cp recorder $root/usr/local/sbin/$each; done
for step in "init --local" init "modules --mode=config" "modules --mode=final"; do
  chroot $root env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    cloud-init $step || echo "cloud-init $step: $?" >>log/noted
done
cp -a $root/run/tokenpool log/run-tokenpool 2>/dev/null || true
"""


def missing() -> str:
    """Return what keeps this machine from playing another one; empty if nothing does."""
    if os.geteuid() != 0:
        return "only root can make a root of its own"
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    absent = [name for name in NEEDED if shutil.which(name, path=path) is None]
    return f"{', '.join(absent)} is not installed (Debian: apt install cloud-init)" if absent else ""


class NewMachine:
    """One machine that has not booted yet, with a blank disk; a context manager."""

    def __init__(self, folder: Path, name: str) -> None:
        if missing():
            raise Unavailable(missing())
        self.folder, self.name = folder, name
        for each in ("ram", "log", "image"):
            (folder / each).mkdir(parents=True)
        (folder / "console").touch()
        (folder / "meta-data").write_text(json.dumps({"instance-id": f"i-{name}", "local-hostname": name}))
        (folder / "cloud.cfg").write_text(CONFIGURATION)
        (folder / "recorder").write_text(RECORDER)
        (folder / "recorder").chmod(0o755)
        self.disk = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> NewMachine:
        with (self.folder / "disk").open("wb") as file:
            file.truncate(256 << 20)
        self.disk = self._run("losetup", "--find", "--show", str(self.folder / "disk")).strip()
        return self

    def __exit__(self, *_: object) -> None:
        self._run("losetup", "--detach", self.disk)

    def boot(self, user_data: bytes, patience: float = 240.0) -> None:
        """Boot it with this, and wait until it has nothing more to do."""
        (self.folder / "user-data").write_bytes(user_data)
        text = BOOT.format(folder=shlex.quote(str(self.folder)), noted=" ".join(NOTED))
        unshare = ["unshare", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child=KILL"]
        with (self.folder / "log" / "boot").open("wb") as said:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *unshare, "sh", "-c", text], env=_environ(),
                stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip
        try:
            self._process.wait(patience)
        finally:
            self.kill()

    def kill(self) -> None:
        """Cut its power."""
        if self._process is not None:
            end_namespace(self._process)

    def noted(self) -> list[str]:
        """Return the commands that would have changed the machine, and those of cloud-init that failed."""
        return self.said("noted").splitlines()

    def said(self, log: str) -> str:
        """Return a file of /var/log."""
        path = self.folder / "log" / log
        return path.read_text(errors="replace") if path.exists() else ""

    def console(self) -> str:
        """Return what was on its console."""
        return (self.folder / "console").read_text(errors="replace")

    def _run(self, *words: str) -> str:
        done = subprocess.run(words, env=_environ(), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout


def _environ() -> dict[str, str]:
    return {"PATH": f"{REAL_ENVIRONMENT.get('PATH', os.defpath)}:/usr/sbin:/sbin", "LANG": "C.UTF-8"}
