"""Writes a campaign as an RO-Crate of the profile Process Run Crate: its actions, its files, and the report itself."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from .. import changes
from ..backends.base import Backend
from ..errors import BadInput, NotFound
from ..selectors import Selector
from ..storage.urls import shown
from . import actions, words
from .bins import Groups
from .facts import Facts
from .page import About, page
from .runs import DONE, FAILED, KINDS, RUNNING, Run, runs_of

Json = dict[str, Any]

#: Runs that are written as an action each; of more, those of a batch with the same software are one.
MOST_ACTIONS = 1000
#: Pairs of a batch and its software that are told apart then.
MOST_TOGETHER = 500
RUNS, REPORT = "runs.jsonl.gz", "report.html"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
#: Terms beyond schema.org's: of containers, and of what a run used.
TERMS = "https://w3id.org/ro/terms/workflow-run/context"
NO_LICENSE = "No licence was given."


@dataclass(frozen=True)
class Written:
    """What a crate holds."""

    actions: int
    #: Files that are inside; others are only named.
    files: int


def check_place(place: Path) -> None:
    """Raise BadInput where a crate cannot be written there, or the library for it is missing."""
    try:
        import rocrate  # noqa: F401
    except ImportError:
        raise BadInput("an RO-Crate needs the library rocrate", "pip install 'tokenpool[crate]'") from None
    if place.suffix != ".zip" and place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise BadInput(f"{place} is there already", "name a folder that is not there, or FILE.zip")
    if not place.resolve().parent.is_dir():
        raise NotFound(f"there is no folder {place.parent}", f"mkdir -p {place.parent}")


def write(
    backend: Backend,
    selector: Selector,
    facts: Facts,
    about: About,
    place: Path,
    license: str = "",
    progress: Callable[[int], None] = lambda n: None,
) -> Written:
    """Write the crate; it gets its name only when it is whole."""
    check_place(place)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.resolve().parent) as folder:
        content = Path(folder, "content")
        content.mkdir()
        (content / REPORT).write_text(page(facts, about), "utf-8")
        crate = _Crate(backend, content, sum(facts.all.runs[kind] for kind in KINDS) <= MOST_ACTIONS)
        with _lines(content / RUNS) as file:
            for doc in changes.select(backend, selector):
                crate.add(doc, runs_of(doc, facts.now), file)
                progress(1)
        written = crate.finish(facts, about, license)
        if place.suffix == ".zip":
            crate.made.write_zip(Path(folder, "crate.zip"))
            os.replace(Path(folder, "crate.zip"), place)
        else:
            crate.made.write(Path(folder, "crate"))
            _fill(place, Path(folder, "crate"))
    return written


@contextmanager
def _lines(path: Path) -> Iterator[TextIO]:
    # Without a name and a time inside, the same runs make the same file.
    with open(path, "wb") as raw, gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
        with io.TextIOWrapper(packed, "utf-8", errors="replace") as file:
            yield file


def _fill(place: Path, made: Path) -> None:
    if place.is_dir():
        place.rmdir()
    shutil.move(str(made), str(place))


@dataclass
class _Together:
    """Runs of a batch with the same software, where they are too many to be told one by one."""

    example: Mapping[str, Any] = field(default_factory=dict)
    batch: str = ""
    runs: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    tokens: int = 0
    first: float | None = None
    last: float | None = None

    def add(self, doc: Mapping[str, Any], runs: list[Run]) -> None:
        """Count the runs of a token."""
        self.example, self.batch = self.example or doc, str(doc.get("batch") or "")
        self.tokens += 1
        for run in runs:
            self.runs[run.kind] += 1
            times = [time for time in (run.start, run.end) if time is not None]
            for time in times:
                self.first = time if self.first is None else min(self.first, time)
                self.last = time if self.last is None else max(self.last, time)


class _Crate:
    """The crate while it is made."""

    def __init__(self, backend: Backend, content: Path, each: bool) -> None:
        from rocrate.rocrate import ROCrate

        self.made = ROCrate(version="1.1")
        self.made.metadata.extra_contexts.append(TERMS)
        self._backend, self._content, self._each = backend, content, each
        self._actions: list[Json] = []
        self._together: Groups[_Together] = Groups(_Together, MOST_TOGETHER)
        self._files = 0

    # --- entities --------------------------------------------------------------------------------------------------

    def _context(self, entity: Json) -> Json:
        """Add what is no file, once; return how to name it."""
        from rocrate.model.contextentity import ContextEntity

        if entity["@id"] not in self.made:
            self.made.add(ContextEntity(self.made, entity["@id"], properties=_clean(entity)))
        return {"@id": entity["@id"]}

    def _data(self, entity: Json, source: Path | None = None) -> Json:
        """Add a file, inside or elsewhere, once; return how to name it."""
        from rocrate.model.data_entity import DataEntity

        if entity["@id"] not in self.made:
            if source is None:
                self.made.add(DataEntity(self.made, entity["@id"], properties=_clean(entity)))
            else:
                told = {name: value for name, value in _clean(entity).items() if not name.startswith("@")}
                self.made.add_file(source, entity["@id"], properties=told)
                self._files += 1
        return {"@id": entity["@id"]}

    # --- tokens ----------------------------------------------------------------------------------------------------

    def add(self, doc: Mapping[str, Any], runs: list[Run], file: TextIO) -> None:
        """Add the runs of a token."""
        ran = [run for run in runs if run.start is not None or run.last]
        for number, run in enumerate(ran, 1):
            file.write(json.dumps(line_of(doc, run, number), ensure_ascii=False) + "\n")
        if not ran:
            return
        if self._each:
            self._add_each(doc, ran)
        else:
            software = actions.instruments_of(doc)[0]["@id"]
            self._together[f"{doc.get('batch') or ''}\0{software}"].add(doc, ran)

    def _add_each(self, doc: Mapping[str, Any], runs: list[Run]) -> None:
        self._software(doc)
        taken = [self._item(doc, item) for item in actions.inputs_of(doc)]
        for number, run in enumerate(runs, 1):
            action = actions.action_of(doc, run, number)
            used = [self._context(usage) for usage in actions.usage_of(run, action)]
            made = [self._item(doc, item) for item in actions.outputs_of(doc)] if run.last else []
            more: dict[str, list[Json]] = {
                "object": [name for name in taken if name],
                "result": [name for name in made if name],
                "resourceUsage": used,
            }
            self._actions.append(
                self._context({**action, **{name: _one(value) for name, value in more.items() if value}})
            )

    def _software(self, doc: Mapping[str, Any]) -> None:
        for entity in (*actions.instruments_of(doc), actions.agent_of(doc), actions.image_of(doc)):
            if entity is not None:
                self._context(entity)

    def _item(self, doc: Mapping[str, Any], item: actions.Item) -> Json | None:
        """Add a file of a token; one that is attached to it, or written in it, is brought in."""
        if item.attachment is None and item.content is None:
            return self._data(item.entity)
        place = self._content / "files" / item.entity["@id"]
        place.parent.mkdir(parents=True, exist_ok=True)
        if item.content is not None:
            place.write_text(item.content, "utf-8", errors="replace")
        else:
            try:
                with open(place, "wb") as file:
                    for piece in self._backend.get_attachment(str(doc["_id"]), str(item.attachment)):
                        file.write(piece)
            except NotFound:
                return None  # it was removed: then the crate must not name it
        return self._data(item.entity, place)

    def _add_together(self, key: str, group: _Together) -> None:
        doc = group.example
        self._software(doc)
        number, failed = sum(group.runs.values()), group.runs[FAILED]
        name = actions.instruments_of(doc)[0]["name"]
        told = ", ".join(f"{count} {kind}" for kind, count in group.runs.items() if count)
        status = (
            actions.FAILED_STATUS
            if failed and not group.runs[DONE]
            else actions.STATUS[RUNNING if group.runs[RUNNING] else DONE]
        )
        action: Json = {
            "@id": f"#runs-{len(self._actions) + 1}", "@type": "CreateAction",
            "name": f"{number} runs of {name}" + (f" in batch {group.batch}" if group.batch else ""),
            "description": f"{group.tokens} tokens, {told}. Each run is a line of {RUNS}. One of the commands: {actions.command_of(doc)}",
            "instrument": {"@id": actions.instruments_of(doc)[0]["@id"]}, "agent": {"@id": actions.agent_of(doc)["@id"]},
            "actionStatus": status, "result": {"@id": RUNS},
        }  # fmt: skip
        if status == actions.FAILED_STATUS:
            action["error"] = f"{failed} of {number} runs failed"
        for field_name, time in (("startTime", group.first), ("endTime", group.last)):
            if time is not None:
                action[field_name] = actions.when(time)
        self._actions.append(self._context(action))

    # --- the whole -------------------------------------------------------------------------------------------------

    def finish(self, facts: Facts, about: About, license: str) -> Written:
        """Add what is said of the campaign as a whole."""
        report = {"name": f"Report: {about.title}", "encodingFormat": "text/html"}
        runs = {
            "name": "All runs, one a line", "encodingFormat": ["application/gzip", "application/jsonl"],
            "description": "Each run of each token as a JSON object: times in seconds since 1970, how it ended, what it used, its files.",
        }  # fmt: skip
        for name, told in ((REPORT, report), (RUNS, runs)):
            path = self._content / name
            self._data({"@id": name, "@type": "File", "contentSize": str(path.stat().st_size), **told}, path)
        for key, group in self._together:
            self._add_together(key, group)
        profile = {"@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
        root = self.made.root_dataset
        root["conformsTo"] = self._context({"@id": PROFILE, **profile})
        root["name"], root["description"] = about.title, self._description(facts, about)
        root["author"] = _one([self._context(actions.agent_of({"submitter": name})) for name, _ in facts.submitters])
        if self._actions:
            root["mentions"] = _one(self._actions)
        root["license"] = NO_LICENSE
        if license.startswith(("http://", "https://")):
            root["license"] = self._context({"@id": license, "@type": "CreativeWork", "name": license})
        elif license:
            root["license"] = license
        return Written(len(self._actions), self._files)

    def _description(self, facts: Facts, about: About) -> str:
        states = ", ".join(f"{number} {state}" for state, number in facts.all.states.items() if number)
        told = f"{facts.tokens} tokens of the pool {shown(about.pool)} ({about.selection}): {states}."
        if facts.all.last:
            told += f" They ran from {words.moment(facts.all.first)} to {words.moment(facts.all.last)} UTC."
        if not self._each:
            told += f" The runs of a batch with the same software are one action; each of them is a line of {RUNS}."
        return told


def _clean(entity: Json) -> Json:
    """Return an entity without halves of characters, which JSON may hold and files may not."""
    cleaned: Json = json.loads(json.dumps(entity, ensure_ascii=False).encode("utf-8", "replace"))
    return cleaned


def _one(names: list[Json]) -> Json | list[Json]:
    """Return several, or the only one: RO-Crate wants no list of one."""
    return names[0] if len(names) == 1 else names


def line_of(doc: Mapping[str, Any], run: Run, number: int) -> Json:
    """Return a run as a line of the list of all."""
    told = {
        "token": run.token, "run": number, "batch": doc.get("batch") or "", "submitter": doc.get("submitter") or "",
        "command": actions.command_of(doc), "kind": run.kind, "start": run.start, "end": run.end if run.ended else None,
        "host": run.host, "worker": run.worker, "exit_code": run.exit_code, "failure_class": run.failure or None,
        "message": run.message or None, "cpu_seconds": run.cpu, "max_rss_mb": run.rss_mb,
        "inputs": [item.entity["@id"] for item in actions.inputs_of(doc) if item.content is None],
    }  # fmt: skip
    if run.last:
        told["outputs"] = [
            {name: item.entity[key] for name, key in (("url", "@id"), ("size", "contentSize"), ("sha256", "sha256")) if key in item.entity}
            for item in actions.outputs_of(doc) if item.attachment is None
        ]  # fmt: skip
    return told
