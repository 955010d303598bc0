"""`/readyz`, as a balancer reads it and as people do."""

import secrets
from functools import partial

import httpx

from api.domain.ids import make_id
from api.rest import app as rest
from serving.gateway.replicas import Replicas
from tests.support.app import services_over
from tests.support.stores import World


async def test_a_part_that_all_control_planes_lack_takes_none_of_them_out(world: World) -> None:
    services = services_over(world, Replicas([]))
    app = rest.build(services, new_request_id=partial(make_id, "req_", secrets.randbelow))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://control-plane"
    ) as http:
        reply = await http.get("/readyz")
        assert reply.status_code == 200 and reply.json()["ready"]
        assert reply.json()["components"] == {
            "database": True,
            "object_store": True,
            "serving": True,
            "engine": False,
        }
        services.health.draining = True
        reply = await http.get("/readyz")
        assert (reply.status_code, reply.json()["ready"], reply.json()["draining"]) == (503, False, True)
        services.health.draining = False
        await world.database.close()
        reply = await http.get("/readyz")
        assert (reply.status_code, reply.json()["ready"]) == (503, False) and reply.headers["retry-after"]
