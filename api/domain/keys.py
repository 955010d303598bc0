"""Who is calling. A key's secret is never stored: only its HMAC is."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Caller:
    key_id: str
    project_id: str
    organization_id: str
    organization_slug: str
