"""How long what is over is kept. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Retention:
    """None keeps it for ever. `orphan_hours`: bytes without a row are left alone for so long, since bytes are written
    before their row."""

    checkpoint_days: int | None = None
    event_days: int | None = None
    usage_days: int | None = None
    delivery_days: int | None = 30
    upload_days: int | None = 30
    deletion_days: int | None = 90
    orphan_hours: float = 24
