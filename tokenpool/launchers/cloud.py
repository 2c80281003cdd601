"""Starts workers on machines of a cloud, each made for one worker and gone after it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..errors import BadInput, NotPermitted, ServerAway, TokenpoolError
from . import cloud_machines as those
from .base import ENDED, RUNNING, UNKNOWN, Job, Launcher, LaunchFailed, Order, QuotaReached, Seen
from .cloud_init import PASSWORD, script_of, with_password
from .cloud_machines import Kind, Machine
from .cloud_places import account, identity, open_places
from .cloud_plan import Plan, parse, plan_at
from .commands import NoAnswer

#: Under which account a machine was made, in its note.
ACCOUNT = "account"
Open = Callable[[Plan, Mapping[str, str]], dict[str, Any]]


class CloudLauncher(Launcher):
    """Machines by libcloud. The words behind ``--`` say which cloud, and what its machines are (`cloud_plan`)."""

    def __init__(self, opened: Open = open_places) -> None:
        self._opened = opened

    def script(self, order: Order) -> str:
        return script_of(order, parse(order.extra))

    def place(self, order: Order) -> dict[str, str]:
        plan = parse(order.extra)
        return {**plan.place(""), ACCOUNT: identity(plan, os.environ)}

    def submit(self, order: Order, script: str) -> list[Job]:
        plan = parse(order.extra)
        data = with_password(script, _password(order)) if PASSWORD in script else script
        making = _Making(order, plan, self._opened(plan, os.environ), data)
        for number in range(1, order.jobs + 1):
            try:
                making.one(order.name if order.jobs == 1 else f"{order.name}-{number}")
            except NoAnswer:
                raise
            except TokenpoolError as error:
                raise making.stopped(error, number) from None
        return making.made

    def status(self, jobs: Sequence[Job]) -> list[Job]:
        known: dict[str, Job] = {}
        for here in _by_cloud(jobs):
            try:
                _check_account(here)
                known.update(self._now(plan_at(here[0].place), here))
            except TokenpoolError as error:
                known.update({job.id: _in_doubt(job, error.message) for job in here})
        return [known[job.id] for job in jobs]

    def _now(self, plan: Plan, jobs: Sequence[Job]) -> dict[str, Job]:
        """Return the jobs of one cloud as they are now, by their ids; it is asked once for each region."""
        found: dict[str, Job] = {}
        for region, driver in self._opened(plan, os.environ).items():
            here = [job for job in jobs if job.id not in found and job.place.get("region", "") in ("", region)]
            if not here:
                continue
            try:
                there = {machine.id: machine for machine in those.machines(driver, {})}
            except TokenpoolError as error:
                found.update({job.id: _in_doubt(job, error.message) for job in here})
                continue
            found.update({job.id: _as_now(job, there.get(job.id)) for job in here})
        rest = [job for job in jobs if job.id not in found]
        return {**found, **{job.id: _in_doubt(job, "nobody knows its region") for job in rest}}

    def cancel(self, jobs: Sequence[Job], only_waiting: bool = False) -> None:
        jobs = self._not_started(jobs) if only_waiting else jobs
        failed: list[tuple[Job, TokenpoolError]] = []
        for here in _by_cloud(jobs):
            _check_account(here)
            for region, driver in self._opened(plan_at(here[0].place), os.environ).items():
                wanted = {job.id: job for job in here if job.place.get("region", "") in ("", region)}
                for machine in those.machines(driver, {}) if wanted else []:
                    if machine.id in wanted:
                        try:
                            those.remove(driver, machine)
                        except TokenpoolError as error:
                            failed.append((wanted[machine.id], error))
        if failed:
            raise LaunchFailed(failed[0][1].message, "try again: these machines cost money", [job for job, _ in failed])

    def look_for(self, job: Job) -> list[Job]:
        _check_account([job])
        plan = plan_at(job.place)
        found = []
        for region, driver in self._opened(plan, os.environ).items():
            for machine in those.machines(driver, {those.ORDER: job.name}):
                found.append(_as_now(_job(machine, job.name, plan, region), machine))
        return found

    def sweep(self, order: Order, workers: Iterable[Seen], prefix: str = "", dry_run: bool = False) -> list[str]:
        plan, seen, now = parse(order.extra), list(workers), time.time()
        lines: list[str] = []
        if plan.keep:
            return lines
        for driver in self._opened(plan, os.environ).values():
            ours = those.machines(driver, those.tags_of(order.pool, account()))
            for machine in ours:
                why = over(
                    machine, [each for each in ours if each.order == machine.order], seen, plan.boot_timeout, now
                )
                if not why or not machine.order.startswith(prefix):
                    continue
                if not dry_run:
                    try:
                        those.remove(driver, machine)
                    except TokenpoolError as error:
                        lines.append(f"not removed: {error.message}")
                        continue
                lines.append(f"{'would remove' if dry_run else 'removed'} machine {machine.name}: {why}")
        return lines

    def would_make(self, order: Order) -> list[Offer]:
        """Return what an order would be made of in each region, as they are tried; raises as `submit` does."""
        plan, found = parse(order.extra), []
        making = _Making(order, plan, self._opened(plan, os.environ), "")
        for region, driver in making.places.items():
            kind = those.look_up(driver, plan, account(), bring_key=False)
            ours = those.machines(driver, those.tags_of(order.pool, account()))
            flavor, image = kind.size.name or kind.size.id, kind.image.name or kind.image.id
            found.append(Offer(region, str(flavor), int(kind.size.ram or 0), str(image), kind.price, len(ours)))
        for number in range(1, order.jobs + 1):
            try:
                making.within(kind)
            except LaunchFailed as error:
                raise making.stopped(error, number) from None
            making.count(Machine("", "", UNKNOWN, price=kind.price))
        return found


@dataclass(frozen=True)
class Offer:
    """What a region has for an order, and how many machines of ours are there; a price of 0 is not known."""

    region: str
    flavor: str
    ram_mb: int
    image: str
    price: float
    there: int

    def told(self) -> dict[str, Any]:
        """Return it as --json prints it."""
        return {**asdict(self), "price": self.price or None}


# --- making ----------------------------------------------------------------------------------------------------------


@dataclass
class _Making:
    """The machines of one order, made one by one; a region that is full is left for the next one."""

    order: Order
    plan: Plan
    places: dict[str, Any]
    user_data: str
    made: list[Job] = field(default_factory=list)
    _kinds: dict[str, Kind] = field(default_factory=dict)
    _there: list[Machine] | None = None

    def one(self, name: str) -> None:
        """Make one machine in the first region that has room; raises QuotaReached when none has."""
        full: QuotaReached | None = None
        for region, driver in list(self.places.items()):
            kind = self._kinds.get(region) or those.look_up(driver, self.plan, account())
            self._kinds[region] = kind
            self.within(kind)
            tags = those.tags_of(self.order.pool, account(), self.order.name)
            try:
                machine = those.make(driver, kind, self.plan, name, tags, self.user_data)
            except QuotaReached as error:
                full = error
                del self.places[region]
                continue
            except ServerAway as error:  # it may have been made: it is looked up by its order
                raise NoAnswer(error.message, "tokenpool launch list tells later what was made", self.made) from None
            self.count(replace(machine, price=kind.price))
            self.made.append(_job(machine, self.order.name, self.plan, region))
            if self.plan.floating_ip_pool:
                self._address(driver, machine)
            return
        raise full or QuotaReached("no region has room for a machine", "wait, or name another --region")

    def _address(self, driver: Any, machine: Machine) -> None:
        """Give a machine its address; one that gets none is removed again: it was asked for with one."""
        try:
            those.give_address(driver, machine, self.plan)
        except TokenpoolError:
            those.remove(driver, machine)
            self.made.pop()
            raise

    def count(self, machine: Machine) -> None:
        """Count one more machine towards the ceilings."""
        self._there = [*(self._there or []), machine]

    def within(self, kind: Kind) -> None:
        """Raise QuotaReached where one more would be above the ceilings."""
        plan = self.plan
        if not plan.max_machines and not plan.max_price:
            return
        if self._there is None:
            tags = those.tags_of(self.order.pool, account())
            everywhere = [machine for driver in self.places.values() for machine in those.machines(driver, tags)]
            self._there = [replace(machine, price=machine.price or kind.price) for machine in everywhere]
        count, cost = len(self._there), sum(machine.price for machine in self._there)
        if plan.max_machines and count >= plan.max_machines:
            raise QuotaReached(f"{count} machines are there, and --max-machines is {plan.max_machines}", _LATER)
        if plan.max_price and not kind.price:
            raise LaunchFailed("the cloud does not tell what this flavor costs", "say it: --price AMOUNT, an hour")
        if plan.max_price and cost + kind.price > plan.max_price + 1e-9:
            raise QuotaReached(
                f"one more costs {cost + kind.price:g} an hour, above --max-price {plan.max_price:g}", _LATER
            )

    def stopped(self, error: TokenpoolError, number: int) -> TokenpoolError:
        """Return the error with what was made before it."""
        if not isinstance(error, LaunchFailed):
            return LaunchFailed(error.message, error.hint, self.made) if self.made else error
        what = error.message if self.order.jobs == 1 else f"machine {number} of {self.order.jobs}: {error.message}"
        return type(error)(what, error.hint, self.made)


_LATER = "wait until machines have ended, or raise it"


def _password(order: Order) -> str:
    try:
        return Path(order.password_file).read_text("utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise NotPermitted(
            f"the password file {order.password_file} cannot be read: {error}", "check password_file"
        ) from None


def _job(machine: Machine, name: str, plan: Plan, region: str) -> Job:
    place = {**plan.place(region), ACCOUNT: identity(plan, os.environ), "machine": machine.name}
    return Job("cloud", machine.id, name, machine.state, place=place)


def _by_cloud(jobs: Sequence[Job]) -> list[list[Job]]:
    """Return jobs in groups that are reached in the same way."""
    found: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        found.setdefault((job.place.get("cloud", ""), job.place.get(ACCOUNT, "")), []).append(job)
    return list(found.values())


def _check_account(jobs: Sequence[Job]) -> None:
    """Raise BadInput where these belong to another account: there, they would only seem to be gone."""
    theirs = jobs[0].place.get(ACCOUNT, "")
    now = identity(plan_at(jobs[0].place), os.environ)
    if theirs and theirs != now:
        raise BadInput(f"it was made as {theirs}, not as {now or 'nobody'}", "set the credentials that made it")


def _in_doubt(job: Job, why: str) -> Job:
    return replace(job, state=UNKNOWN, running=0, reason=why)


def _as_now(job: Job, machine: Machine | None) -> Job:
    if machine is None:
        return replace(job, state=ENDED, running=0, reason="the machine is gone")
    return replace(job, state=machine.state, running=int(machine.state == RUNNING), reason=machine.reason)


# --- whose time is over ----------------------------------------------------------------------------------------------


def over(machine: Machine, same: Sequence[Machine], workers: Sequence[Seen], boot_timeout: float, now: float) -> str:
    """Return why a machine is to be removed; "" where it is not: only what certainly has no worker is.

    `same` are the machines of its order, `workers` those of the pool.
    """
    if machine.state == ENDED:
        return machine.reason or "it has ended"
    if not machine.order:
        return ""
    names = {each.name for each in same}
    mine = [each for each in workers if each.job == machine.order]
    if len(same) > 1:
        # A worker on a host that no machine is called may be on any of them.
        mine = [each for each in mine if _host(each) == machine.name or _host(each) not in names]
    # One that is only silent may have a clock that is wrong.
    if any(each.state != "fenced" for each in mine):
        return ""
    if mine:
        return "its worker's lease has ended"
    age = now - machine.made
    if machine.made and age > boot_timeout:
        return f"no worker is there after {age / 60:.0f} min"
    return ""


def _host(worker: Seen) -> str:
    return worker.hostname.partition(".")[0]
