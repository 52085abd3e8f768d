"""The simulated GPU: contexts, streams whose work runs when somebody waits for it, and what was done wrong."""

import gc
import threading
from typing import Callable, Dict, List, NoReturn, Optional, Sequence, Tuple

from tests.doubles.board import Board
from tests.doubles.memory import Block, Memory, Misuse
from tests.doubles.streams import CudaContext, CudaEvent, CudaStream, Range, Work, overlap


class Gpu:
    """One device in host memory.

    Every misuse is raised where it happens and kept in `misuses`, so that code that swallows it is still caught by
    `assert_clean`.

    Args:
        board: which.
        checks: False switches every check off, to show that a test of a check fails without it.
    """

    def __init__(self, board: Board, *, checks: bool = True) -> None:
        self.board = board
        self.checks = checks
        self.lock = threading.RLock()
        self.memory = Memory(board.memory_bytes)
        self.misuses: List[str] = []
        self.leaks: List[str] = []
        self.initialised = False
        self.primary = CudaContext(primary=True)
        self.streams: Dict[int, CudaStream] = {}
        self.events: Dict[int, CudaEvent] = {}
        self._stacks: Dict[int, List[CudaContext]] = {}
        self._numbers = 0
        self._handles = 0x5000

    # What was done wrong.

    def misuse(self, text: str) -> None:
        """Note a misuse and raise it."""
        if self.checks:
            self.misuses.append(text)
            raise Misuse(text)

    def fault(self, text: str) -> NoReturn:
        """A misuse that nothing could go on after, checked or not."""
        self.misuses.append(text)
        raise Misuse(text)

    def note(self, text: str) -> None:
        """Note a misuse where nothing may be raised: in a destructor."""
        if self.checks:
            self.misuses.append(text)

    def assert_clean(self) -> None:
        """Raise unless everything was freed, nothing waits and nothing was misused."""
        gc.collect()
        complaints = list(self.misuses) + self.leaks
        complaints += [f"not freed: {one.owner}, {one.size} bytes ({one.kind})" for one in self.memory.live]
        for stream in self.streams.values():
            if stream.handle and not stream.destroyed:
                complaints.append(f"not destroyed: stream {stream.handle:#x}")
            complaints += [f"never waited for: {work.what}" for work in stream.queue]
        complaints += [
            f"a context is still current on thread {ident}" for ident, stack in self._stacks.items() if stack
        ]
        if complaints:
            raise Misuse("; ".join(complaints))

    # Contexts.

    @property
    def stack(self) -> List[CudaContext]:
        """The calling thread's contexts, the current one last."""
        return self._stacks.setdefault(threading.get_ident(), [])

    @property
    def current(self) -> Optional[CudaContext]:
        """The calling thread's context, if it has a valid one."""
        return self.stack[-1] if self.stack and self.stack[-1].valid else None

    def runtime_context(self) -> CudaContext:
        """What CUDA's runtime, which TensorRT uses, works in: the current context, else the primary one."""
        return self.current or self.primary

    def destroy_context(self, context: CudaContext) -> None:
        """What still lies in it goes with it, and is a leak."""
        context.valid = False
        for block in self.memory.live:
            if block.context is context:
                self.leaks.append(f"not freed before its context: {block.owner}, {block.size} bytes")
                block.freed = True
        for stream in self.streams.values():
            if stream.context is context:
                if stream.handle and not stream.destroyed:
                    self.leaks.append(f"not destroyed before its context: stream {stream.handle:#x}")
                stream.destroyed = True

    def renew_primary(self) -> None:
        """Nobody retains the primary context any more: what lies in it goes, and the next is a fresh one."""
        self.destroy_context(self.primary)
        self.primary = CudaContext(primary=True)

    # Memory.

    def resolve(self, address: int, size: int, what: str, context: CudaContext) -> Tuple[Block, int]:
        """The block and offset of a range that is about to be used."""
        with self.lock:
            block = self.memory.find(address)
            if block is None or block.kind == "pinned":
                self.fault(f"{what}: {address:#x} is no device memory")
            if block.freed:
                self.misuse(f"{what}: {address:#x} was freed ({block.owner})")
            offset = address - block.address
            if offset + size > block.size:
                self.misuse(
                    f"{what}: {size} bytes at {address:#x} run past the end of {block.size} bytes ({block.owner})"
                )
            if block.context is not context:
                self.misuse(f"{what}: {address:#x} belongs to another context")
            return block, offset

    def free(self, block: Block) -> None:
        """Free a block that nothing queued still needs."""
        with self.lock:
            if block.freed:
                self.misuse(f"freed twice: {block.owner}, {block.size} bytes")
            inside = [(block.address, block.address + block.size)]
            for work in self.pending():
                if overlap(inside, [*work.reads, *work.writes]):
                    self.misuse(f"freed while in use by {work.what!r}: {block.owner}, {block.size} bytes")
            block.freed = True
            if block._bytes is not None:
                block._bytes[:] = 0xFF

    # Streams.

    def handle(self) -> int:
        self._handles += 0x10
        return self._handles

    def new_stream(self, context: CudaContext, *, blocking: bool = True) -> CudaStream:
        with self.lock:
            stream = CudaStream(self.handle(), context, blocking)
            self.streams[stream.handle] = stream
            return stream

    def destroy_stream(self, stream: CudaStream) -> None:
        stream.destroyed = True

    def stream(self, handle: int, what: str, context: CudaContext) -> CudaStream:
        """The stream of a handle; 0 is the context's default stream."""
        with self.lock:
            key = -id(context) if handle == 0 else handle
            if handle == 0 and key not in self.streams:
                self.streams[key] = CudaStream(0, context)
            stream = self.streams.get(key)
            if stream is None:
                self.fault(f"{what}: {handle:#x} is no stream")
            if stream.destroyed:
                self.misuse(f"{what}: stream {handle:#x} was destroyed")
            if stream.context is not context:
                self.misuse(f"{what}: stream {handle:#x} belongs to another context")
            return stream

    def pending(self) -> List[Work]:
        return sorted((work for stream in self.streams.values() for work in stream.queue), key=lambda one: one.number)

    def enqueue(
        self,
        stream: CudaStream,
        what: str,
        run: Callable[[], None],
        *,
        reads: Sequence[Range] = (),
        writes: Sequence[Range] = (),
    ) -> None:
        """Queue work that reads and writes device memory; refuses what races with another stream's."""
        with self.lock:
            self._numbers += 1
            work = Work(what, run, stream, self._numbers, tuple(reads), tuple(writes))
            for one in self.streams.values():  # the default stream and those made to wait for it wait for each other
                if one is not stream and (
                    (stream.handle == 0 and one.blocking) or (one.handle == 0 and stream.blocking)
                ):
                    stream.seen[id(one)] = self._numbers
            for other in self.pending():
                if other.stream is stream or other.number <= stream.seen.get(id(other.stream), 0):
                    continue
                if overlap(work.writes, [*other.reads, *other.writes]) or overlap(work.reads, other.writes):
                    self.misuse(f"{what!r} races with {other.what!r} on another stream")
            stream.queue.append(work)

    def new_event(self, context: CudaContext) -> CudaEvent:
        event = CudaEvent(self.handle(), context)
        self.events[event.handle] = event
        return event

    def is_reached(self, event: CudaEvent) -> bool:
        return not any(work.number <= event.seen.get(id(work.stream), 0) for work in self.pending())

    def synchronise_event(self, event: CudaEvent) -> None:
        self.drain([one for one in self.streams.values() if id(one) in event.seen], event.seen)

    def record(self, event: CudaEvent, stream: CudaStream) -> None:
        event.seen = dict(stream.seen)
        event.seen[id(stream)] = self._numbers
        event.recorded = True

    def wait(self, stream: CudaStream, event: CudaEvent) -> None:
        for key, number in event.seen.items():
            stream.seen[key] = max(number, stream.seen.get(key, 0))

    def drain(self, streams: Sequence[CudaStream], up_to: Optional[Dict[int, int]] = None) -> None:
        """Run the queued work of some streams, and before each what it waits for, in the order it was queued."""
        with self.lock:
            chosen = {id(one) for one in streams}
            limits = {} if up_to is None else up_to
            for work in self.pending():
                key = id(work.stream)
                wanted = key in chosen and work.number <= limits.get(key, work.number)
                wanted = wanted or any(work.number <= one.seen.get(key, 0) for one in streams)
                if wanted and work in work.stream.queue:
                    work.stream.queue.remove(work)
                    work.run()

    def synchronise(self, stream: CudaStream) -> None:
        """Wait for a stream, and for what it waits for."""
        others = [one for one in self.streams.values() if one.blocking] if stream.handle == 0 else []
        self.drain([stream, *others])

    def synchronise_all(self) -> None:
        self.drain(list(self.streams.values()))
