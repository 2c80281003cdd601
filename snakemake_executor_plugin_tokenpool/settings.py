"""What can be set: ``--tokenpool-pool`` and so on, in a profile ``tokenpool-pool: ...``."""

# Snakemake makes options of the annotations as they are: they must not become texts.

from dataclasses import dataclass, field
from typing import Any, Optional

from snakemake_interface_executor_plugins.settings import ExecutorSettingsBase


def _setting(told: str, default: Any = None, **more: Any) -> Any:
    return field(default=default, metadata={"help": told, "env_var": False, "required": False, **more})


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """The pool, the batch of its tokens, and the workers that run them."""

    pool: Optional[str] = _setting("The pool's URL, without a password; else that of tokenpool's settings.")
    batch: Optional[str] = _setting("The batch of the tokens; else one by the name of the working directory.")
    workers: int = _setting(
        "Start a worker here that runs so many jobs at a time, and end it with the workflow. 0: the pool's own run them.",
        0,
    )
    warm: bool = _setting(
        "Let jobs run in processes that have Snakemake loaded already. Workers started by --tokenpool-workers do so "
        "anyway; others must have been started with --allow-module snakemake_executor_plugin_tokenpool.",
        False,
    )
    priority: int = _setting("The priority of the tokens, added to that of the job.", 0)
    poll: float = _setting("The longest pause between two looks at the pool, in seconds.", 5.0)
