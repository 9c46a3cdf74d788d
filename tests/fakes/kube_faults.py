"""What an in-memory API server can be told to do wrong to single requests."""

from collections.abc import Callable
from dataclasses import dataclass

from .kube_http import Dropped, Request
from .kube_objects import ApiError


@dataclass(kw_only=True)
class Fault:
    """What happens to some requests; `fired` counts them."""

    error: Callable[[], Exception]
    selected: dict[str, str | None]
    times: float
    after: int
    handled: bool
    fired: int = 0

    def strikes(self, request: Request) -> bool:
        """Whether this request, counted if it is one of those selected, is struck."""
        if self.fired >= self.times or any(
            want not in (None, getattr(request, k)) for k, want in self.selected.items()
        ):
            return False
        self.after -= 1
        self.fired += self.after < 0
        return self.after < 0


class Faults:
    """To be mixed into the server; a test asserts that its fault has `fired`."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def fail(
        self,
        times: float = 1,
        *,
        verb: str | None = None,
        resource: str | None = None,
        name: str | None = None,
        after: int = 0,
        status: int = 500,
        headers: dict[str, str] | None = None,
        reason: str = "",
        message: str = "as the test asked for",
        handled: bool = False,
    ) -> Fault:
        """Answer `times` requests with an error, before they take effect or, `handled`, after.

        The first `after` requests that match are spared."""
        # A server that is too busy answers in plain text.
        told = {"reason": reason, "headers": headers, "plain": status == 429}
        selected = {"verb": verb, "resource": resource, "name": name}
        return self._add(lambda: ApiError(status, message, **told), selected, times, after, handled)

    def drop(
        self,
        times: float = 1,
        *,
        verb: str | None = None,
        resource: str | None = None,
        name: str | None = None,
        after: int = 0,
        handled: bool = False,
    ) -> Fault:
        """Close the connection without an answer, before the request takes effect or, `handled`, after."""
        return self._add(
            Dropped, {"verb": verb, "resource": resource, "name": name}, times, after, handled
        )

    def fault_for(self, request: Request) -> Fault | None:
        return next((fault for fault in self._faults if fault.strikes(request)), None)

    def _add(
        self,
        error: Callable[[], Exception],
        selected: dict,
        times: float,
        after: int,
        handled: bool,
    ) -> Fault:
        fault = Fault(error=error, selected=selected, times=times, after=after, handled=handled)
        self._faults.append(fault)
        return fault
