"""What the heads of requests say, read once for each that is sent again and again.

A client's requests differ in their bodies: their heads are the same bytes each time, and reading one takes as long as a
small network does.
"""

from typing import Any, Dict, Mapping, Optional, Tuple

from starlette.requests import Request

from wenet_runtime.budget import RequestOptions
from wenet_runtime.bundle import Manifest
from wenet_runtime.service.bodies import MAX_BODY_BYTES, NPY, OCTETS, check_length, media_type
from wenet_runtime.service.options import ONCE, Defaults, header_options, path_mode, request_options
from wenet_runtime.service.replies import Wanted, wanted_reply
from wenet_runtime.service.v2request import Decoded

KEPT = 64  # a head has at most 16 KiB
# All that is looked at here. Others are never kept: they may be secret, and differ with each request.
LOOKED_AT = frozenset((*ONCE, b"transfer-encoding", b"accept"))
LENGTH = b"content-length"
SOME_LENGTH = (LENGTH, b"0")  # stands for every length that is taken: bodies differ, and what they mean does not
_Key = Tuple[str, bytes, Tuple[Tuple[bytes, bytes], ...]]


class Head:
    """One head.

    Args:
        request: its own, or one with the same head.
        manifest: of the bundle that is served.
        defaults: what holds where it says nothing.

    Attributes:
        media: the body's media type.
        length: its `Inference-Header-Content-Length`, if it has one.
        numbers: the body is nothing but numbers, which stay where they are.

    Raises:
        Problem: what is wrong with it.
    """

    def __init__(self, request: Request, manifest: Manifest, defaults: Defaults) -> None:
        self._manifest = manifest
        self._defaults = defaults
        self._pinned = path_mode(request.path_params, manifest)
        self._given: Mapping[str, Any] = header_options(request, trust_proxy_headers=defaults.trust_proxy_headers)
        self.media = media_type(request)
        check_length(request)
        self.length: Optional[str] = request.headers.get("inference-header-content-length")
        self.numbers = self.media == NPY or (self.media == OCTETS and self.length == "0")
        self._options: Optional[RequestOptions] = None
        self._wanted: Dict[bool, Wanted] = {}

    def options(self, parameters: Mapping[str, Any]) -> RequestOptions:
        """What the request asks for, with the options that its body holds. Raises as `request_options`."""
        if parameters:
            return request_options(self._given, parameters, self._defaults, self._pinned)
        if self._options is None:
            self._options = request_options(self._given, {}, self._defaults, self._pinned)
        return self._options

    def wanted(self, request: Request, decoded: Decoded) -> Wanted:
        """The form of the reply. Raises as `wanted_reply`."""
        if not decoded.bare:
            return wanted_reply(request, self._manifest, decoded)
        found = self._wanted.get(decoded.raw_reply)
        if found is None:
            found = self._wanted[decoded.raw_reply] = wanted_reply(request, self._manifest, decoded)
        return found


class Heads:
    """Those of the latest requests to one bundle; on the event loop alone, so without a lock."""

    def __init__(self) -> None:
        self._kept: Dict[_Key, Head] = {}
        self._defaults: Optional[Defaults] = None

    def read(self, request: Request, manifest: Manifest, defaults: Defaults) -> Head:
        """The head of a request. Raises `Problem`; what is wrong is not kept."""
        if defaults is not self._defaults:  # they are replaced as a whole
            self._kept.clear()
            self._defaults = defaults
        scope = request.scope
        fields = []
        for field in scope["headers"]:
            name = field[0]
            if name in LOOKED_AT or name.startswith(b"wenet-"):
                fields.append(SOME_LENGTH if name == LENGTH and _is_taken(field[1]) else field)
        key = (scope["path"], scope["query_string"], tuple(fields))
        found = self._kept.get(key)
        if found is None:
            found = Head(request, manifest, defaults)
            if len(self._kept) >= KEPT:
                self._kept.clear()
            self._kept[key] = found
        return found


def _is_taken(length: bytes) -> bool:
    return length.isdigit() and len(length) <= 8 and int(length) <= MAX_BODY_BYTES
