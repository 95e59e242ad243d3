"""What others see of the studio before they open it: the card of a shared link, the icons, the manifest, robots.txt.

Gradio's template has cards of its own with pictures on foreign hosts, and what `launch(head=...)` adds comes by
JavaScript, which crawlers do not run. So the front page is corrected on its way out.
"""

from __future__ import annotations

import gzip
import html
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

TITLE = "ACE Music Studio"
DESCRIPTION = "Describe a song and hear it: generate, cover, extend and edit music with ACE-Step 1.5 XL in the browser."
COLOUR = "#0a0a0a"  # theme.NIGHT, which stands on the same floor
CARD_WIDTH, CARD_HEIGHT = 1200, 630  # pixels of card.png
CARD_ALT = "ACE Music Studio: five white bars of a waveform on black. Describe a song. Hear it. Make it yours."
ICON_SIDE = 512  # pixels of icon.png, whose mark stays clear of any mask a launcher may cut
GZIP = b"gzip"  # of the front page, all else that is large Gradio compresses itself
GZIP_LEVEL = 6  # 0.9 MB become 83 kB in 15 ms; 9 saves 2 kB more in twice the time
DAY_S = 86_400  # how long browsers and crawlers keep what is served here
ASSETS = Path(__file__).parent / "assets"
PICTURES = {  # address -> file of assets/, media type
    "/card.png": ("card.png", "image/png"),
    "/icon.png": ("icon.png", "image/png"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/favicon.ico": ("icon.png", "image/png"),  # asked for by those who read no page
}
ROBOTS = "User-agent: *\nDisallow: /gradio_api/\n"  # visitors' songs lie there

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]
_FOREIGN = re.compile(rb"""<meta\s+(?:name|property)="(?:(?:og|twitter):[^"]*|description|theme-color)"[^>]*>\s*""")
_MANIFEST = re.compile(rb"""<link\s+rel="manifest"[^>]*>""")  # gradio's is wrong below a root path
_HEAD_ENDS = re.compile(rb"<script\b|</head\b")  # the first script holds texts of the studio, not markup
_HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?|\[[0-9a-f:]{2,39}\])(?::[0-9]{1,5})?")
_ROOT_PATH, _FULL_ROOT = re.compile(r"(?:/[A-Za-z0-9_.~-]+)*"), re.compile(r"https?://[A-Za-z0-9:/_.~-]+")


def manifest() -> dict[str, Any]:
    """The web app manifest; its addresses are relative to its own."""
    png = {"src": "icon.png", "sizes": f"{ICON_SIDE}x{ICON_SIDE}", "type": "image/png"}
    icons = [{"src": "icon.svg", "sizes": "any", "type": "image/svg+xml", "purpose": "any"}]
    icons += [png | {"purpose": purpose} for purpose in ("any", "maskable")]
    named = {"name": TITLE, "short_name": "ACE Studio", "description": DESCRIPTION, "lang": "en"}
    looks = {"display": "standalone", "background_color": COLOUR, "theme_color": COLOUR}
    return {**named, **looks, "start_url": "./", "icons": icons}


def routes() -> list[Any]:
    """Starlette routes of the pictures, the manifest and robots.txt; they come before Gradio's own of these names."""
    from starlette.responses import Response
    from starlette.routing import Route

    def answer(content: str | bytes, media_type: str) -> Callable[[Any], Response]:
        kept = {"Cache-Control": f"public, max-age={DAY_S}"}
        return lambda request: Response(content, headers=kept, media_type=media_type)

    served = {path: answer((ASSETS / name).read_bytes(), kind) for path, (name, kind) in PICTURES.items()}
    served["/manifest.json"] = answer(json.dumps(manifest()), "application/manifest+json")
    served["/robots.txt"] = answer(ROBOTS, "text/plain")
    return [Route(path, endpoint) for path, endpoint in served.items()]


def address(scope: Message) -> str:
    """The studio's public address with a slash at its end, as the request tells it; "" if it tells no plain one.

    Read as Gradio reads it: a root path that is a full address wins, then the first of what proxies forwarded.
    """
    root = scope.get("root_path", "").rstrip("/")
    if _FULL_ROOT.fullmatch(root):
        return f"{root}/"
    sent = {name: value.decode("latin-1").split(",")[0].strip().lower() for name, value in scope["headers"]}
    host = sent.get(b"x-forwarded-host") or sent.get(b"host", "")
    if not (_HOST.fullmatch(host) and _ROOT_PATH.fullmatch(root)):
        return ""  # it comes from outside
    secure = "https" in (sent.get(b"x-forwarded-proto"), scope.get("scheme")) or host.endswith(".hf.space")
    return f"http{'s' if secure else ''}://{host}{root}/"


def tags(base: str) -> str:
    """The card in markup, for a studio at the address `base`; with "" its addresses are relative."""
    card = {"title": TITLE, "description": DESCRIPTION, "image": f"{base}card.png", "image:alt": CARD_ALT}
    graph = {"type": "website", "site_name": TITLE, "url": base or "./", **card, "image:type": "image/png"}
    graph |= {"image:width": str(CARD_WIDTH), "image:height": str(CARD_HEIGHT)}
    named = {"description": DESCRIPTION, "theme-color": COLOUR, "twitter:card": "summary_large_image"}
    named |= {f"twitter:{name}": value for name, value in card.items()}
    lines = [f"<title>{html.escape(TITLE)}</title>"]
    lines += [f'<meta name="{name}" content="{html.escape(value)}">' for name, value in named.items()]
    lines += [f'<meta property="og:{name}" content="{html.escape(value)}">' for name, value in graph.items()]
    lines += ['<link rel="icon" href="icon.svg" type="image/svg+xml">', '<link rel="apple-touch-icon" href="icon.png">']
    lines += [
        '<link rel="manifest" href="manifest.json" crossorigin="use-credentials">'
    ]  # a private Space wants cookies
    return "\n".join([*lines, ""])


def with_card(page: bytes, base: str) -> bytes:
    """The page with the template's cards taken out and ours put before its first script, where crawlers still read."""
    found = _HEAD_ENDS.search(page)
    if not found:
        return page
    front, rest = page[: found.start()], page[found.start() :]
    return _FOREIGN.sub(b"", front) + tags(base).encode() + _MANIFEST.sub(b"", rest, count=1)


class ShareCards:
    """ASGI middleware that puts the studio's card into the front page. All else passes as it comes, streams too."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Callable[..., Any], send: Send) -> None:
        """Answer one request."""
        asked = scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
        front = asked and scope["path"].removeprefix(scope.get("root_path", "").rstrip("/")) in ("", "/")
        await self.app(scope, receive, _rewriting(scope, send) if front else send)


def _rewriting(scope: Message, send: Send) -> Send:
    """A `send` that holds back a page of HTML until it is whole, and nothing else."""
    start: Message = {}  # of an answer that is held back
    body = bytearray()

    async def pass_on(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            is_html = headers.get(b"content-type", b"").startswith(b"text/html")
            if message["status"] == 200 and is_html and b"content-encoding" not in headers:
                start.update(message)
                return
        if not start or message["type"] != "http.response.body":
            return await send(message)
        body.extend(message.get("body", b""))
        if not message.get("more_body"):
            page = with_card(bytes(body), address(scope))
            headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
            if body and GZIP in dict(scope["headers"]).get(b"accept-encoding", b""):
                page = gzip.compress(page, GZIP_LEVEL, mtime=0)
                headers += [(b"content-encoding", GZIP), (b"vary", b"accept-encoding")]
            if body:  # an answer to HEAD may have come with no page to measure
                headers.append((b"content-length", str(len(page)).encode()))
            await send(start | {"headers": headers})
            await send({"type": "http.response.body", "body": page})

    return pass_on
