"""What a run's spec may ask of this base model, before any of its data is read."""

from engine.contract.spec import Reinforcement, RunSpec
from engine.data.errors import DataError
from engine.models.grammar import grammar, schema_of
from engine.models.resident import ResidentModel


def check_modules(spec: RunSpec, *, base: ResidentModel) -> None:
    """Raises DataError."""
    unknown = sorted(set(spec.lora.target_modules) - base.linear_modules)
    if unknown:
        known = ", ".join(sorted(base.linear_modules))
        raise DataError(
            f"{base.name} has no module named {', '.join(unknown)}; it has {known}.", param="lora"
        )


def check_schema(spec: RunSpec, *, base: ResidentModel) -> None:
    """Compiled once: what samples are bound by is the same grammar. Raises DataError."""
    schema = schema_of(spec.method.response_format) if isinstance(spec.method, Reinforcement) else None
    if schema is None:
        return
    try:
        grammar(base, schema)
    except RuntimeError as error:
        raise DataError(
            "The response_format's schema cannot be used to bind answers: simplify it.",
            param="method.reinforcement.response_format",
        ) from error
