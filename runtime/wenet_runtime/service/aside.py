"""Work that may take minutes, beside the event loop, on a thread that the end of the process does not wait for."""

import asyncio
import threading
from concurrent.futures import Future
from typing import Callable, Optional, TypeVar

Done = TypeVar("Done")


class Aside:
    """One piece of work at a time, begun on the event loop.

    Args:
        name: of its threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: Optional[threading.Thread] = None

    async def run(self, work: Callable[[], Done], discard: Callable[[Done], None] = lambda done: None) -> Done:
        """What the work returns, or raises.

        Args:
            work: goes on to its end also when this is cancelled.
            discard: is given what it returns then.
        """
        future: Future[Done] = Future()
        future.set_running_or_notify_cancel()  # from here on nothing cancels it: whoever waits is only let go
        thread = self._thread = threading.Thread(target=_do, args=(work, future), name=self._name, daemon=True)
        thread.start()
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(lambda done: None if done.exception() is not None else discard(done.result()))
            raise
        finally:
            if future.done():
                thread.join()  # it has nothing left to do

    def join(self, timeout_s: float) -> bool:
        """Wait for work that was cancelled; False if it takes longer: end the process by `os._exit` then.

        A thread that comes back from an engine's code while the interpreter ends would abort the process.
        """
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()


def _do(work: Callable[[], Done], future: "Future[Done]") -> None:
    try:
        done = work()
    except BaseException as error:  # noqa: BLE001 - whoever waits raises it
        future.set_exception(error)
    else:
        future.set_result(done)
