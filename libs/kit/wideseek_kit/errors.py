"""Errors that carry facts, and their one way onto the wire.

Invariant: a caller sees google.rpc.Status with exactly one ErrorInfo; the text of an unknown exception never
leaves the process, it is logged once with its traceback.
"""

from __future__ import annotations  # grpc's generics exist for type checkers only

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, ClassVar

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc import aio
from grpc_status import rpc_status

DOMAIN = "wideseek"
_MESSAGE_BYTES = 1_000  # may travel as three times as many, beside a copy in the details
_FACTS_BYTES = 2_000
_log = logging.getLogger(__name__)


class ServiceError(Exception):
    """Base of all errors that a caller may see.

    Attributes:
        code: the gRPC status.
        reason: UPPER_SNAKE, for machines.
        facts: the variables of the message (field, figure, limit), repeated in ErrorInfo.metadata.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: str = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None, **facts: object) -> None:
        """Make an error; `reason` overrides the class's."""
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).reason
        self.facts = {name: str(value) for name, value in facts.items()}

    def to_status(self) -> status_pb2.Status:
        """The error as google.rpc.Status with one ErrorInfo."""
        detail = any_pb2.Any()
        detail.Pack(error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.facts))
        return status_pb2.Status(code=self.code.value[0], message=self.message, details=[detail])


class InvalidArgument(ServiceError):
    """A field of the request cannot be used. `field` is its path in the request."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"

    def __init__(self, field: str, message: str, *, reason: str | None = None, **facts: object) -> None:
        """Make an error about `field`; the message is prefixed with it."""
        super().__init__(f"{field}: {message}", reason=reason, field=field, **facts)


class NotFound(ServiceError):
    """What the request names does not exist."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "NOT_FOUND"


class AlreadyExists(ServiceError):
    """What the request would create exists with other contents."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"


class FailedPrecondition(ServiceError):
    """The state of the service does not allow the request now; trying again does not help by itself."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"


class Aborted(ServiceError):
    """Another operation is in the way; the caller may try again."""

    code = grpc.StatusCode.ABORTED
    reason = "ABORTED"


class OutOfRange(ServiceError):
    """A position lies past the end."""

    code = grpc.StatusCode.OUT_OF_RANGE
    reason = "OUT_OF_RANGE"


class ResourceExhausted(ServiceError):
    """A bound of the service is reached."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "RESOURCE_EXHAUSTED"


class Unavailable(ServiceError):
    """A part that the request needs is out of reach; the caller may try again."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "UNAVAILABLE"


class DeadlineExceeded(ServiceError):
    """The time ran out."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class Cancelled(ServiceError):
    """A caller stopped it."""

    code = grpc.StatusCode.CANCELLED
    reason = "CANCELLED"


class Unauthenticated(ServiceError):
    """The caller did not say who it is, or not convincingly."""

    code = grpc.StatusCode.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class PermissionDenied(ServiceError):
    """The caller is known and may not do this."""

    code = grpc.StatusCode.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class Unimplemented(ServiceError):
    """The service does not know the method, or not this use of it."""

    code = grpc.StatusCode.UNIMPLEMENTED
    reason = "UNIMPLEMENTED"


class DataLoss(ServiceError):
    """What was stored is damaged or gone."""

    code = grpc.StatusCode.DATA_LOSS
    reason = "DATA_LOSS"


class Unknown(ServiceError):
    """A server that is not ours failed without saying how."""

    code = grpc.StatusCode.UNKNOWN
    reason = "UNKNOWN"


class Internal(ServiceError):
    """A fault of the service."""


_BY_CODE: dict[grpc.StatusCode, type[ServiceError]] = {
    kind.code: kind
    for kind in (
        InvalidArgument,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        Aborted,
        OutOfRange,
        ResourceExhausted,
        Unavailable,
        DeadlineExceeded,
        Cancelled,
        Unauthenticated,
        PermissionDenied,
        Unimplemented,
        DataLoss,
        Unknown,
    )
}


_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def error_info(status: status_pb2.Status | None) -> error_details_pb2.ErrorInfo | None:
    """The ErrorInfo of a status, if it carries one."""
    for detail in status.details if status is not None else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info
    return None


def from_status(status: status_pb2.Status) -> ServiceError:
    """The error that a google.rpc.Status stands for; the inverse of `ServiceError.to_status`."""
    info = error_info(status)
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    kind = _BY_CODE.get(code, Internal)
    error = kind.__new__(kind)  # the message is whole already, and the facts are another process's words
    ServiceError.__init__(error, status.message, reason=info.reason if info else code.name)
    error.facts = dict(info.metadata) if info else {}
    return error


def from_rpc_error(error: aio.AioRpcError) -> ServiceError:
    """The error that a failed call stands for, whether or not the server sent an ErrorInfo."""
    status = None
    with contextlib.suppress(ValueError):  # details of another error than the call's own are no details
        status = rpc_status.from_call(error)
    if status is None:
        status = status_pb2.Status(code=error.code().value[0], message=error.details() or error.code().name)
    return from_status(status)


def _fitting(status: status_pb2.Status) -> status_pb2.Status:
    """The status with message and facts cut so that it surely fits into 8 KiB of trailers, which gRPC lets through."""
    info = error_info(status) or error_details_pb2.ErrorInfo()
    left = _FACTS_BYTES
    for name, value in sorted(info.metadata.items(), key=lambda fact: len(fact[1])):
        info.metadata[name] = _cut(value, left)
        left = max(0, left - len(info.metadata[name].encode()))
    fitting = status_pb2.Status(code=status.code, message=_cut(status.message, _MESSAGE_BYTES))
    fitting.details.add().Pack(info)
    return fitting


def _cut(text: str, limit: int) -> str:
    data = text.encode()
    return text if len(data) <= limit else data[:limit].decode(errors="ignore") + "…"


async def _abort(context: aio.ServicerContext[Any, Any], error: Exception) -> None:
    if isinstance(error, ServiceError):
        known = error
    elif isinstance(error, aio.AioRpcError):
        known = from_rpc_error(error)  # a fault of a service further down keeps its reason
    else:
        _log.error("unhandled error in a servicer", exc_info=error)
        known = Internal("internal error; the service's log has the details")
    status = rpc_status.to_status(_fitting(known.to_status()))
    await context.abort(status.code, status.details, status.trailing_metadata)


class ErrorInterceptor(aio.ServerInterceptor):
    """Turns exceptions of all four handler kinds into google.rpc.Status. Goes inside the telemetry interceptor."""

    def __init__(self) -> None:
        """Know of no call yet."""
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no handler runs: a server that has stopped has cancelled its handlers, but not waited for them."""
        await self._idle.wait()

    @contextlib.contextmanager
    def _call(self) -> Iterator[None]:
        self._calls += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of the method."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return None  # unknown method: grpc answers UNIMPLEMENTED
        inner = handler.unary_unary or handler.stream_unary or handler.unary_stream or handler.stream_stream

        async def one(request: Any, context: Any) -> Any:
            with self._call():
                try:
                    return await inner(request, context)
                except (asyncio.CancelledError, aio.AbortError):
                    raise
                except Exception as error:  # the one place where every error becomes a status
                    await _abort(context, error)

        async def many(request: Any, context: Any) -> AsyncIterator[Any]:
            with self._call():
                try:
                    async with contextlib.aclosing(inner(request, context)) as responses:
                        async for response in responses:
                            yield response
                except (asyncio.CancelledError, aio.AbortError):
                    raise
                except Exception as error:  # as above
                    await _abort(context, error)

        make, wrapped = {
            (False, False): (grpc.unary_unary_rpc_method_handler, one),
            (True, False): (grpc.stream_unary_rpc_method_handler, one),
            (False, True): (grpc.unary_stream_rpc_method_handler, many),
            (True, True): (grpc.stream_stream_rpc_method_handler, many),
        }[(handler.request_streaming, handler.response_streaming)]
        made: grpc.RpcMethodHandler[Any, Any] = make(
            wrapped,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
        return made
