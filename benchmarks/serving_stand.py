"""All servers of one question, up at the same time, each checked to answer what the session answers."""

import io
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.base import JPEG, TENSOR, Format, Peer, Place, Request, Served
from benchmarks.peers.environments import interpreter, why_not
from benchmarks.peers.process import Server, free_port
from benchmarks.serving_client import Connection, Reply
from benchmarks.serving_models import Subject
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.service.images import decode_image

SMALL_BYTES = 64 << 10
TRIES = 10
OK, REFUSED = 200, (503, 504)
TOLERANCE = 1e-3  # of the largest number: engines round differently where they merge operators


@dataclass(frozen=True)
class Way:
    """A server that is up, and one format that it is asked in.

    Attributes:
        name: in the results.
        request: as it goes over the wire, by kind of content.
    """

    name: str
    peer: Peer
    format: Format
    server: Server
    request: Mapping[str, bytes]


@dataclass
class Stand:
    """Starts the servers. A context manager: leaving it stops them all.

    Attributes:
        skipped: why servers are not there, by name.
        orphans: processes that were left once servers had ended, by name; known once they are stopped.
        ways: of those that are.
    """

    subject: Subject
    served: Served
    peers: Sequence[Peer]
    environments: Path
    folder: Path
    cores: Sequence[int]
    flags: tuple[str, ...] = ()
    kinds: tuple[str, ...] = (TENSOR,)
    skipped: dict[str, str] = field(default_factory=dict)
    orphans: dict[str, int] = field(default_factory=dict)
    ways: list[Way] = field(default_factory=list)
    servers: dict[str, Server] = field(default_factory=dict)
    _opened: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "Stand":
        try:
            self._start()
        except BaseException:
            self._opened.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def way(self, name: str) -> Way | None:
        """By its name."""
        return next((one for one in self.ways if one.name == name), None)

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        served_path = self.folder / "served.json"
        self.served.write(served_path)
        for peer in self.peers:
            reason = why_not(peer, self.environments)
            if reason:
                self._skip(peer, reason)
                continue
            self.servers[peer.name] = server = self._server(peer, served_path)
            self._opened.callback(self._stop, peer, server)
            if peer.environment is None:  # ours measures its modes at its first start, and wants the machine for it
                server.wait()
        for peer in [one for one in self.peers if one.name in self.servers]:
            try:
                self.servers[peer.name].wait()
            except RuntimeError as error:
                self._skip(peer, f"did not start: {error}")
                del self.servers[peer.name]
                continue
            self._check(peer, self.servers[peer.name])

    def _server(self, peer: Peer, served_path: Path) -> Server:
        folder = self.folder / peer.name.replace(" ", "-")
        folder.mkdir(exist_ok=True)
        place = Place(
            served=self.served,
            served_path=served_path,
            folder=folder,
            python=interpreter(peer, self.environments),
            port=free_port(),
            bundle=self.subject.bundle.path,
            flags=("--cache-dir", str(self.subject.cache), *self.flags),
        )
        command = peer.command(place)
        return Server(
            command, served=served_path, port=place.port, ready=peer.ready, log=folder / "log", cores=self.cores
        )

    def _stop(self, peer: Peer, server: Server) -> None:
        server.stop()
        self.orphans[peer.name] = server.orphans

    def _skip(self, peer: Peer, reason: str) -> None:
        self.skipped[peer.name] = reason
        print(f"SKIPPED: {peer.name}: {reason[-600:]}", file=sys.stderr)

    def _check(self, peer: Peer, server: Server) -> None:
        """Ask in every format; a format whose numbers are wrong is left out, with the reason."""
        contents = {TENSOR: self.subject.content, **({JPEG: photograph()} if JPEG in self.kinds else {})}
        expected = {kind: answer_of(self.subject, self.served, kind, content) for kind, content in contents.items()}
        for form in peer.formats:
            name = f"{peer.name}, {form.name}"
            if form.small_only and len(self.subject.content) > SMALL_BYTES:
                continue
            requests: dict[str, bytes] = {}
            for kind in (one for one in self.kinds if one in form.kinds):
                request = form.encode(contents[kind], kind, self.served)
                try:
                    reply = _first_answer(server, self._pinned(peer, request).to_bytes())
                    check_numbers(form.decode(reply.headers, reply.body), expected[kind])
                except (RuntimeError, OSError, ValueError, KeyError) as error:
                    self.skipped[f"{name}, {kind}"] = f"{type(error).__name__}: {error}"
                    print(f"SKIPPED: {name}, {kind}: {error}", file=sys.stderr)
                    continue
                requests[kind] = request.to_bytes()
            if requests:
                self.ways.append(Way(name, peer, form, server, requests))

    def _pinned(self, peer: Peer, request: Request) -> Request:
        """Ours answers in the mode that the others have, if it has several."""
        mode = Path(self.served.models[0]).stem
        if peer.environment is not None or len(self.subject.bundle.modes) == 1:
            return request
        return Request(request.path, {**request.headers, "WeNet-Mode": mode}, request.body)


def _first_answer(server: Server, request: bytes) -> Reply:
    """The first answer that is no refusal: a server's first run may take longer than its limit."""
    for _ in range(TRIES):
        connection = Connection(server.port)
        try:
            reply = connection.ask(request)
        finally:
            connection.close()
        if reply.status == OK:
            return reply
        if reply.status not in REFUSED:
            break
    raise RuntimeError(f"{reply.status}: {reply.body[:300]!r}")


def check_numbers(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Raises `ValueError` where an answer is another than the session's."""
    if found.size != expected.size:
        raise ValueError(f"{found.size} numbers, the session answers {expected.size}")
    off = float(np.abs(found.ravel() - expected.ravel()).max())
    if not off <= TOLERANCE * float(np.abs(expected).max()):
        raise ValueError(f"numbers differ by {off:g} from the session's")


def answer_of(subject: Subject, served: Served, kind: str, content: bytes) -> NDArray[np.float32]:
    """What the session itself answers."""
    if kind == JPEG:
        assert subject.bundle.manifest.preprocess is not None
        values = decode_image(content, subject.bundle.manifest.preprocess)
    else:
        values = np.frombuffer(content, np.float32).reshape(served.shape)
    engine = OrtBackend().load_bytes(Path(served.models[0]).read_bytes(), name="expected")
    try:
        found: NDArray[np.float32] = next(iter(engine.infer({served.input: values}).values()))
        return found
    finally:
        engine.close()


def photograph() -> bytes:
    """A JPEG file of 224 × 224 pixels with the detail of a photograph: a few waves and a little noise."""
    from PIL import Image

    draw = np.random.default_rng(3)
    y, x = np.mgrid[0:224, 0:224] / 224
    waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in draw.uniform(-4, 4, (9, 3))]
    channels = [128 + 30 * (waves[n] + waves[n + 3] + waves[n + 6]) for n in range(3)]
    pixels = np.stack(channels, axis=-1) + draw.normal(0, 6, (224, 224, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()
