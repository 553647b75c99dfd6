"""What the core's exceptions are on the wire."""

import contextlib
from collections.abc import Iterator

from wideseek_kit.errors import Aborted, Internal, InvalidArgument, Unavailable

from wideseek_inference.core.layout import WeightsRejectedError
from wideseek_inference.core.swap import SwapFailedError, SwapRunningError, WeightsUnreachableError
from wideseek_inference.core.turns import RequestError


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn an exception of the core into the `ServiceError` that it stands for."""
    try:
        yield
    except RequestError as error:
        raise InvalidArgument(error.field, str(error), reason=error.reason, **error.facts) from error
    except WeightsRejectedError as error:
        raise InvalidArgument("uri", str(error), reason="WEIGHTS_REJECTED") from error
    except WeightsUnreachableError as error:
        raise Unavailable(str(error), reason="WEIGHTS_UNREACHABLE") from error
    except SwapRunningError as error:
        raise Aborted(str(error), reason="UPDATE_RUNNING") from error
    except SwapFailedError as error:
        raise Internal(str(error), reason="SWAP_FAILED") from error
