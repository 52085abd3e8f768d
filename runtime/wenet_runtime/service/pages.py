"""The pages that people look at, /ui and /docs: static files, served under headers that let them load nothing else.

They hold no data: what they show they ask of the API, as every client does.
"""

import hashlib
from pathlib import Path
from typing import List, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).with_name("ui")
# path: file. Named one by one, so that no path can lead to another file, and all of them are open without a token.
PAGES: Mapping[str, str] = {
    "/ui": "index.html",
    "/docs": "docs.html",
    "/ui/ui.css": "ui.css",
    "/ui/icon.svg": "icon.svg",
    "/ui/main.js": "main.js",
    "/ui/api.js": "api.js",
    "/ui/ask.js": "ask.js",
    "/ui/charts.js": "charts.js",
    "/ui/docs.js": "docs.js",
    "/ui/panels.js": "panels.js",
    "/ui/words.js": "words.js",
}
MEDIA: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS: Mapping[str, str] = {
    # `default-src` covers scripts, styles, images and requests; the others it does not cover. Trusted types make the
    # browser refuse every way of turning text into markup, as labels and reasons come from bundles and clients.
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, and asked for again: an upgraded server shows its own pages
}


def page_routes() -> List[Route]:
    """The routes of every page and what belongs to it; the files are read once, now."""
    return [_route(path, FOLDER / name) for path, name in PAGES.items()]


def _route(path: str, file: Path) -> Route:
    content = file.read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {**HEADERS, "ETag": etag}
    media = MEDIA[file.suffix]

    async def page(request: Request) -> Response:
        # A proxy that compresses marks the tag as weak; the file is the same.
        known = [one.strip() for one in request.headers.get("if-none-match", "").split(",")]
        if etag in known or f"W/{etag}" in known:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=media)

    return Route(path, page, methods=["GET"], include_in_schema=False)
