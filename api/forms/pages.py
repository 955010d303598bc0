"""What a list may be asked for, where no web framework checks it first."""

from typing import Annotated

from pydantic import Field

from api.domain.checkpoints import PermissionOrder
from api.domain.pages import Order
from api.forms.checks import Strict


class FilesPage(Strict):
    purpose: str | None = None
    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 10_000
    order: Order = "desc"


class JobsPage(Strict):
    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 20
    metadata: dict[str, str] | None = None


class EventsPage(Strict):
    job_id: str
    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 20


class CheckpointsPage(EventsPage):
    limit: Annotated[int, Field(ge=1, le=1000)] = 10


class PermissionsPage(Strict):
    model: str
    project_id: str | None = None
    after: str | None = None
    limit: Annotated[int, Field(ge=1, le=100)] = 10
    order: PermissionOrder = "descending"
