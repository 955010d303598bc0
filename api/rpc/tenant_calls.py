"""What every call of a tenant passes: its key, its scope, an id, a deadline, `idempotency-key`, and errors in words."""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc

from api.domain.errors import ErrorKind, ServiceError
from api.domain.keys import Scope
from api.domain.request_id import request_id
from api.rpc.calls import SCOPES, Call, current, reply_type
from api.rpc.errors import abort, told
from api.services.idempotency import Answer
from api.services.services import Services

PREFIX: Final = "/tuningfork.v1."
LONGEST_SECONDS: Final = 600.0  # of a call with one answer, whatever deadline its caller has set
KIND: Final = "application/grpc+proto"

log = logging.getLogger("tuningfork.rpc")


class TenantCalls(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    def __init__(self, services: Services, *, new_request_id: Callable[[], str]) -> None:
        self.services, self.new_request_id = services, new_request_id

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or not details.method.startswith(PREFIX):
            return handler
        service, _, name = details.method.removeprefix(PREFIX).partition("/")
        served = Served(self, details, scope=SCOPES[service][name], handler=handler)
        make: Any = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
        }[handler.request_streaming, handler.response_streaming]
        behaviour = served.stream if handler.response_streaming else served.answer
        return make(
            behaviour,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


class Served:
    """One call, from its key to its last word."""

    def __init__(self, calls: TenantCalls, details: Any, *, scope: Scope, handler: Any) -> None:
        self._calls, self._handler, self._scope, self._method = calls, handler, scope, details.method
        self._metadata = dict(details.invocation_metadata or ())

    async def answer(self, request: Any, context: Any) -> Any:
        inner = self._handler.stream_unary if self._handler.request_streaming else self._handler.unary_unary
        with Told(self._calls.new_request_id(), self._method) as line:
            try:
                await context.send_initial_metadata((("x-request-id", line.request_id),))
                async with asyncio.timeout(LONGEST_SECONDS):
                    await self._admit()
                    return await self._once(inner, request, context)
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                await line.fail(context, error)

    async def stream(self, request: Any, context: Any) -> AsyncIterator[Any]:
        with Told(self._calls.new_request_id(), self._method) as line:
            try:
                await context.send_initial_metadata((("x-request-id", line.request_id),))
                await self._admit()
                async for message in self._handler.unary_stream(request, context):
                    yield message
            except grpc.aio.AbortError:
                raise
            except Exception as error:
                await line.fail(context, error)

    async def _admit(self) -> None:
        scheme, _, token = str(self._metadata.get("authorization", "")).partition(" ")
        caller = await self._calls.services.keys.authenticate(
            token.strip() if scheme.lower() == "bearer" else None
        )
        caller.require(self._scope)
        current.set(Call(caller=caller, once=self._metadata.get("idempotency-key")))

    async def _once(self, inner: Any, request: Any, context: Any) -> Any:
        """A change with an idempotency key is made once; a twin has the same answer. A dry run leaves its key unused."""
        call = current.get()
        makes = self._scope is not Scope.READ and not getattr(request, "dry_run", False)
        if call.once is None or not makes or self._handler.request_streaming:
            return await inner(request, context)
        keys = self._calls.services.idempotency
        fingerprint = hashlib.sha256(
            self._method.encode() + b"\n" + request.SerializeToString(deterministic=True)
        )
        kept = await keys.begin(call.caller, key=call.once, fingerprint=fingerprint.digest())
        if kept is not None:
            return reply_type(self._method).FromString(kept.body)
        answer = None
        try:
            reply = await inner(request, context)
            answer = Answer(status=200, content_type=KIND, body=self._handler.response_serializer(reply))
            return reply
        finally:
            await keys.end(call.caller, key=call.once, answer=answer)


class Told:
    """The log lines of a call, under its id."""

    def __init__(self, id: str, method: str) -> None:
        self.request_id, self._method = id, method
        self._started, self._status = time.monotonic(), "OK"

    def __enter__(self) -> "Told":
        request_id.set(self.request_id)  # each call is served in a context of its own
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        milliseconds = (time.monotonic() - self._started) * 1000
        if kind is not None and self._status == "OK":
            self._status = kind.__name__
        log.info("%s %s %.0f ms", self._method, self._status, milliseconds)

    async def fail(self, context: Any, error: Exception) -> None:
        if isinstance(error, TimeoutError):
            error = ServiceError(ErrorKind.UNAVAILABLE, "The call took too long. Please try again.")
        self._status = error.kind if isinstance(error, ServiceError) else type(error).__name__
        if told(error)[0] is grpc.StatusCode.INTERNAL:
            log.exception("%s failed", self._method)
        await abort(context, error, request_id=self.request_id)
