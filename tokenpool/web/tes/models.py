"""What GA4GH TES 1.1 sends and receives, as classes; their names are those of the standard's schemas.

What is received is described more exactly than the standard's schemas do: what its prose demands, a path that is
absolute for example, is part of the schema here. `null` counts as not given.
"""

from enum import Enum
from typing import Annotated, Any, Optional

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ...checks import MOST_RESOURCES
from ...data_checks import LONGEST_CONTENT
from .words import Absolute, FolderPath, Image, Path, Text, Url, whole


class tesState(str, Enum):
    """Where a task is on its way."""

    UNKNOWN = "UNKNOWN"
    QUEUED = "QUEUED"
    INITIALIZING = "INITIALIZING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETE = "COMPLETE"
    EXECUTOR_ERROR = "EXECUTOR_ERROR"
    SYSTEM_ERROR = "SYSTEM_ERROR"
    CANCELED = "CANCELED"
    PREEMPTED = "PREEMPTED"
    CANCELING = "CANCELING"


class View(str, Enum):
    """How much of a task is told."""

    MINIMAL = "MINIMAL"
    BASIC = "BASIC"
    FULL = "FULL"


class tesFileType(str, Enum):
    """What an input or output is."""

    FILE = "FILE"
    DIRECTORY = "DIRECTORY"


# --- received --------------------------------------------------------------------------------------------------------


class _Received(BaseModel):
    """Numbers are numbers and texts are texts; what the standard does not know is left aside."""

    model_config = ConfigDict(strict=True, extra="ignore")


def _one_of(*needs: dict[str, Any]) -> ConfigDict:
    return ConfigDict(strict=True, extra="ignore", json_schema_extra={"anyOf": list(needs)})


class tesNewExecutor(_Received):
    """A command, and the container that it runs in."""

    image: Image
    command: list[Text] = Field(
        min_length=1, description="The program and its arguments.", examples=[["/bin/md5", "/data/file1"]]
    )
    workdir: Optional[Absolute] = Field(default=None, description="Where it starts; by default where the image says.")
    stdin: Optional[Path] = None
    stdout: Optional[Path] = Field(default=None, description="A file for its standard output, which is in the log too.")
    stderr: Optional[Path] = None
    env: Optional[dict[str, Text]] = None
    ignore_error: Optional[bool] = Field(default=None, description="The next executor runs even if this one fails.")


class tesNewInput(_Received):
    """A file or folder that is brought before the first executor starts."""

    model_config = _one_of(
        {"required": ["url"], "properties": {"url": {"type": "string"}}},
        {"required": ["content"], "properties": {"content": {"type": "string"}}},
    )

    name: Optional[Text] = None
    description: Optional[Text] = None
    url: Optional[Url] = None
    path: Path
    type: Annotated[Optional[tesFileType], Field(strict=False)] = None
    content: Optional[Annotated[Text, Field(max_length=LONGEST_CONTENT)]] = Field(
        default=None, description="What is in the file; the url is ignored then."
    )
    streamable: Optional[bool] = None

    @model_validator(mode="after")
    def _has_a_source(self) -> "tesNewInput":
        if self.url is None and self.content is None:
            raise ValueError("an input has a url or a content")
        return self


class tesNewOutput(_Received):
    """Files that are taken away after the last executor; of a task that fails, those that are there."""

    name: Optional[Text] = None
    description: Optional[Text] = None
    url: Url
    path: Path
    path_prefix: Optional[Absolute] = Field(
        default=None,
        description="With wildcards: taken off the names; by default the folder before the first wildcard.",
    )
    type: Annotated[Optional[tesFileType], Field(strict=False)] = None


class tesNewResources(_Received):
    """What a task needs; 0 counts as not given."""

    cpu_cores: Optional[Annotated[int, Field(ge=0, le=MOST_RESOURCES), BeforeValidator(whole)]] = None
    preemptible: Optional[bool] = None
    ram_gb: Optional[Annotated[float, Field(ge=0, le=MOST_RESOURCES)]] = None
    disk_gb: Optional[Annotated[float, Field(ge=0, le=MOST_RESOURCES)]] = None
    zones: Optional[list[Text]] = None
    backend_parameters: Optional[dict[str, str]] = Field(default=None, description="See service-info for the keys.")
    backend_parameters_strict: Optional[bool] = Field(
        default=None, description="A task with a key or value that is not supported fails at once."
    )


class tesNewTask(_Received):
    """A task to be made."""

    name: Optional[Text] = None
    description: Optional[Text] = None
    inputs: Optional[list[tesNewInput]] = None
    outputs: Optional[list[tesNewOutput]] = None
    resources: Optional[tesNewResources] = None
    executors: list[tesNewExecutor] = Field(min_length=1)
    volumes: Optional[list[FolderPath]] = None
    tags: Optional[dict[str, Text]] = None


# --- sent --------------------------------------------------------------------------------------------------------------


class tesExecutor(BaseModel):
    """A command, and the container that it runs in; no image: it runs without one."""

    image: str
    command: list[str]
    workdir: str = ""
    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
    env: dict[str, str] = {}
    ignore_error: bool = False


class tesInput(BaseModel):
    """What is brought before the first executor starts."""

    name: str = ""
    description: str = ""
    url: str = ""
    path: str
    type: tesFileType = tesFileType.FILE
    content: str = ""
    streamable: bool = False


class tesOutput(BaseModel):
    """What is taken away after the last executor."""

    name: str = ""
    description: str = ""
    url: str
    path: str
    path_prefix: str = ""
    type: tesFileType = tesFileType.FILE


class tesResources(BaseModel):
    """What a task needs."""

    cpu_cores: int = 0
    preemptible: bool = False
    ram_gb: float = 0
    disk_gb: float = 0
    zones: list[str] = []
    backend_parameters: dict[str, str] = {}
    backend_parameters_strict: bool = False


class tesExecutorLog(BaseModel):
    """How one executor went; the ends of what it printed."""

    start_time: str = ""
    end_time: str = ""
    stdout: str = ""
    stderr: str = ""
    exit_code: int


class tesOutputFileLog(BaseModel):
    """One file that was taken away."""

    url: str
    path: str
    size_bytes: str


class tesTaskLog(BaseModel):
    """How one attempt went."""

    logs: list[tesExecutorLog]
    metadata: dict[str, str] = {}
    start_time: str = ""
    end_time: str = ""
    outputs: list[tesOutputFileLog]
    system_logs: list[str] = []


class tesTask(BaseModel):
    """A task as it stands; of a minimal view only id and state."""

    id: str
    state: tesState = tesState.UNKNOWN
    name: str = ""
    description: str = ""
    inputs: list[tesInput] = []
    outputs: list[tesOutput] = []
    resources: tesResources = tesResources()
    executors: list[tesExecutor] = []
    volumes: list[str] = []
    tags: dict[str, str] = {}
    logs: list[tesTaskLog] = []
    creation_time: str = ""


class tesListTasksResponse(BaseModel):
    """One page of tasks; there may be more as long as there is a next_page_token, even where a page is empty."""

    tasks: list[tesTask]
    next_page_token: str = ""


class tesCreateTaskResponse(BaseModel):
    """The id of a new task."""

    id: str


class tesCancelTaskResponse(BaseModel):
    """The task is asked to stop, or was over."""


class tesOrganization(BaseModel):
    """Who runs the service."""

    name: str
    url: str


class tesServiceType(BaseModel):
    """Which standard it speaks."""

    group: str
    artifact: str
    version: str


class tesServiceInfo(BaseModel):
    """What the service is, and what it knows beyond the standard."""

    id: str
    name: str
    type: tesServiceType
    description: str = ""
    organization: tesOrganization
    documentationUrl: str = ""
    version: str
    storage: list[str] = []
    tesResources_backend_parameters: list[str] = []


class tesError(BaseModel):
    """Why a request was refused."""

    status_code: int
    msg: str
