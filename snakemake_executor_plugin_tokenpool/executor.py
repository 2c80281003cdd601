"""The executor: all jobs that are ready become tokens in one push; one look tells which of them have ended."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import AsyncGenerator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.jobs import JobExecutorInterface
from snakemake_interface_executor_plugins.settings import SharedFSUsage

from tokenpool.errors import ServerAway, TokenpoolError
from tokenpool.pool import Pool, connect
from tokenpool.pushes import NotAllSaved
from tokenpool.transitions import DONE, ERROR, HELD, LOCKED, TODO, state_of

from .settings import ExecutorSettings
from .tokens import KEY, Work, key_of, token_of
from .workers import LocalWorker

#: Seconds of the first pause between two looks; each look without news makes the next one longer.
SOON, SLOWER = 0.1, 1.3
OPEN = (TODO, HELD, LOCKED)


class Executor(RemoteExecutor):
    """Snakemake's jobs as tokens."""

    _pool: Pool | None = None
    _worker: LocalWorker | None = None
    #: Seconds until the next look. It begins before this object is complete.
    _pause = SOON

    def __post_init__(self) -> None:
        """Open the pool, and start the workflow's own worker if there is to be one."""
        settings = self.workflow.executor_settings or ExecutorSettings()
        self._settings: ExecutorSettings = settings
        here = str(Path.cwd())
        # Without it, the job's Snakefile lies where its worker is.
        self._folder = here if SharedFSUsage.SOURCES in self.workflow.storage_settings.shared_fs_usage else ""
        self._logs = Path(here, ".snakemake", "tokenpool_logs")
        # The same for each run in this folder: what an interrupted one left is run, and found again, by the next.
        self._batch = settings.batch or f"snakemake-{hashlib.sha256(here.encode()).hexdigest()[:12]}"
        self._seen = -1
        self._asked: frozenset[str | None] = frozenset()
        #: Tokens that have not ended, as far as we know. Snakemake's list is empty while they are looked at.
        self._open: set[str] = set()
        try:
            self._pool = connect(settings.pool, create=True)
        except TokenpoolError as error:
            raise WorkflowError(f"{error.message}; {error.hint}") from error
        if settings.workers > 0:
            cwd = "" if self._folder else here
            url = settings.pool or self._pool.url
            self._worker = LocalWorker(url, settings.workers, self._batch, self._logs / "worker.log", cwd)

    @property
    def pool(self) -> Pool:
        """The pool of the tokens."""
        assert self._pool is not None
        return self._pool

    # --- submit ------------------------------------------------------------------------------------------------------

    def run_jobs(self, jobs: Sequence[JobExecutorInterface]) -> None:
        """Push all jobs that are ready at once; those that an interrupted run has pushed are only waited for."""
        infos, fresh = [], []
        for job in jobs:
            self.run_job_pre(job)
            key = key_of(self._rules(job), map(str, job.output), str(job.jobid))
            token_id = self._left_behind.pop(key, "")
            if not token_id:
                token_id = f"snakemake-{uuid.uuid4().hex}"
                fresh.append(token_of(self._work(job, key), token_id, self._batch, self._warm))
            infos.append(SubmittedJobInfo(job=job, external_jobid=token_id))
        refused = self._push(fresh)
        self._pause = SOON
        for info in infos:
            why = refused.get(info.external_jobid)
            if why is None:
                self._open.add(str(info.external_jobid))
                self.report_job_submission(info)
            else:
                self.workflow.scheduler.submit_callback(info.job)
                self.report_job_error(info, msg=f"The pool refuses it: {why}. ")

    def run_job(self, job: JobExecutorInterface) -> None:
        """Push one job."""
        self.run_jobs([job])

    def _push(self, tokens: list[dict[str, Any]]) -> dict[str | None, str]:
        """Push tokens in one go; return those that were refused, with the reason."""
        if not tokens:
            return {}
        try:
            self.pool.push(tokens)
        except NotAllSaved as error:
            return {each.id: each.reason for each in error.refused}
        except TokenpoolError as error:
            return {each["_id"]: error.message for each in tokens}
        return {}

    @property
    def _warm(self) -> bool:
        return self._settings.warm or self._settings.workers > 0

    @staticmethod
    def _rules(job: JobExecutorInterface) -> str:
        return ",".join(sorted(map(str, job.rules)))

    def _work(self, job: JobExecutorInterface, key: str) -> Work:
        return Work(
            name=f"{job.name} {dict(job.wildcards)}" if getattr(job, "wildcards", None) else str(job.name),
            line=self.format_job_exec(job),
            folder=self._folder,
            threads=int(job.resources.get("_cores", job.threads)),
            resources=job.resources,
            priority=self._settings.priority + int(getattr(job, "priority", 0) or 0),
            tags={"rule": self._rules(job)[:200], KEY: key},
        )

    @cached_property
    def _left_behind(self) -> dict[str, str]:
        """The tokens of an interrupted run of this workflow that still wait or run, by the keys of their jobs.

        Snakemake's own marks do not tell: the job that runs writes over them.
        """
        found = {}
        for state in OPEN:
            for token in self.pool.tokens([f"batch:{self._batch}", f"state:{state}"]):
                key = (token.doc.get("tags") or {}).get(KEY)
                if key and not token.doc.get("cancel"):
                    found[key] = token.id
        if found:
            self.logger.info(f"{len(found)} jobs of an earlier run are still in the pool and are not pushed again")
        return found

    # --- look --------------------------------------------------------------------------------------------------------

    async def check_active_jobs(self, active_jobs: list[SubmittedJobInfo]) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Report the jobs that have ended, yield the others: one count, and one read of all where that has changed."""
        if not active_jobs:
            return  # the first look comes before this object is complete
        async with self.status_rate_limiter:
            docs = self._news(active_jobs)
        if docs is None:
            for info in active_jobs:
                yield info
            return
        for info, doc in zip(active_jobs, docs):
            state = state_of(doc) if doc is not None else None
            if state in OPEN:
                yield info
                continue
            self._open.discard(str(info.external_jobid))
            if state == DONE:
                self.report_job_success(info)
            else:
                self.report_job_error(info, msg=self._why(info, doc, state), aux_logs=self._keep_logs(info))

    def _news(self, active_jobs: Sequence[SubmittedJobInfo]) -> list[Any] | None:
        """Return the tokens of these jobs as they are now; None while nothing has ended."""
        try:
            counts = self.pool.counts(self._batch)
            ended = counts[DONE] + counts[ERROR] + (sum(counts[state] for state in OPEN) << 32)
            # A job may have ended before it was reported as submitted, and was counted already.
            asked = frozenset(info.external_jobid for info in active_jobs)
            if ended == self._seen and asked <= self._asked:
                self._slow_down()
                return None
            docs = self.pool.backend.get_many([str(info.external_jobid) for info in active_jobs])
        except ServerAway as error:
            self.logger.warning(f"the pool is away, trying again: {error.message}")
            self._slow_down()
            return None
        self._seen, self._asked = ended, asked
        self._pause = SOON
        return docs

    async def sleep(self) -> None:
        """Wait until the next look; Snakemake's own pause would be ten seconds before the first."""
        await asyncio.sleep(self._pause)

    def _slow_down(self) -> None:
        self._pause = min(max(SOON, self._settings.poll), self._pause * SLOWER)
        lost = self._worker.keep() if self._worker else ""
        if lost:
            raise WorkflowError(lost)

    def _why(self, info: SubmittedJobInfo, doc: Any, state: str | None) -> str:
        if doc is None:
            return f"Token {info.external_jobid} was removed from the pool. "
        if doc.get("cancel"):
            return f"Token {info.external_jobid} was cancelled. "
        return f"Token {info.external_jobid} ended with exit code {doc.get('exit_code')} on {doc.get('hostname')}. "

    def _keep_logs(self, info: SubmittedJobInfo) -> list[str]:
        """Write what a failed job said where Snakemake shows it."""
        try:
            logs = self.pool.logs(str(info.external_jobid))
            self._logs.mkdir(parents=True, exist_ok=True)
            path = self._logs / f"{info.external_jobid}.log"
            path.write_bytes(logs.out + logs.err)
        except (TokenpoolError, OSError):
            return []
        return [str(path)]

    # --- end ---------------------------------------------------------------------------------------------------------

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Take back what waits, and stop what runs."""
        ids = sorted(self._open)
        if not ids or self._pool is None:
            return
        try:
            self._pool.cancel(ids)
        except TokenpoolError as error:
            self.logger.warning(f"not cancelled: {error.message}; tokenpool cancel batch:{self._batch}")

    def shutdown(self) -> None:
        """Let go of the pool, and of the worker that was started for this workflow."""
        super().shutdown()
        if self._worker is not None:
            self._worker.close()
        if self._pool is not None:
            self._pool.close_connections()
            self._pool = None
