"""Routes and their dependencies run on the event loop: FastAPI sends a plain function to another thread, at a hop per
request that a busy machine makes milliseconds of."""

from collections.abc import Callable, Iterator
from inspect import iscoroutinefunction
from types import SimpleNamespace
from typing import Any, cast

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from api.rest import app as rest
from api.services.services import Services


def called(dependant: Dependant) -> Iterator[Callable[..., Any]]:
    if dependant.call is not None:
        yield dependant.call
    for inner in dependant.dependencies:
        yield from called(inner)


def test_no_route_and_no_dependency_is_a_plain_function() -> None:
    services = cast(Services, SimpleNamespace(max_file_bytes=1))
    app = rest.build(services, new_request_id=lambda: "req_1")
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    assert len(routes) > 80
    plain = {
        call.__name__ for route in routes for call in called(route.dependant) if not iscoroutinefunction(call)
    }
    assert not plain
