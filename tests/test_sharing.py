"""What stands behind a link to the studio: its card, icons, manifest and robots.txt, with nothing of others in them."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
import served

import sharing
import theme
from settings import ROOT

TEMPLATE = """<!doctype html><html><head><meta charset="utf-8" /><base href="./" />
<meta property="og:title" content="Gradio" /><meta name="viewport" content="width=device-width" />
<meta
    name="twitter:image"
    content="https://raw.githubusercontent.com/picture.jpg"
/><meta name="description" content="" />
<style>body {}</style>
<script>config = 'a song named <meta name="description" content="mine">';</script>
<link rel="manifest" href="/manifest.json" /></head><body>ü</body></html>"""
HOSTILE = 'a"><script>alert(1)</script>'
ODD_HOSTS = (HOSTILE, "a b", "a/b", "a@b", "a?b", "ü", "-a", "a:b", "a:123456", "a" * 999, "a\nb")


class Head(HTMLParser):
    """The metas, links and titles that stand outside scripts, as a crawler reads them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.metas: dict[str, str] = {}
        self.links: dict[str, str] = {}
        self.titles = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one tag, of which there is one."""
        at = dict(attrs)
        self.titles += tag == "title"
        kept, name, value = self.metas, at.get("property") or at.get("name"), at.get("content")
        if tag == "link" and at["rel"] != "stylesheet":
            kept, name, value = self.links, at["rel"], at["href"]
        if tag in ("meta", "link") and value is not None:
            assert name not in kept
            kept[name] = value


def tiny(template: str = TEMPLATE) -> Any:
    """A Starlette app whose front page is `template`."""
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.responses import HTMLResponse, JSONResponse, StreamingResponse
    from starlette.routing import Route

    def front(request: Any) -> Any:
        kind = request.url.query
        if kind == "json":
            return JSONResponse(template)
        if kind == "pieces":
            return StreamingResponse(map("".join, zip(template, strict=True)), media_type="text/html")
        return HTMLResponse(template, 404 if kind == "lost" else 200, {"X-Kept": "yes"})

    own = [Route("/", front, methods=["GET", "POST"]), Route("/other", front)]
    return Starlette(routes=own + sharing.routes(), middleware=[Middleware(sharing.ShareCards)])


def ask(
    path: str = "/", method: str = "GET", app: Any = None, root: str = "", coding: str = "identity"
) -> httpx.Response:
    """One request to an ASGI app."""

    async def go() -> httpx.Response:
        transport = httpx.ASGITransport(app or tiny(), root_path=root)
        async with httpx.AsyncClient(transport=transport, base_url="http://here:7860") as client:
            return await client.request(method, path, headers={"Accept-Encoding": coding})

    return asyncio.run(go())


def test_the_card_replaces_what_the_template_says() -> None:
    answer = ask()
    head = Head(answer.text)
    metas = head.metas
    assert metas["og:title"] == metas["twitter:title"] == sharing.TITLE
    assert metas["og:description"] == metas["twitter:description"] == metas["description"] == sharing.DESCRIPTION
    assert metas["og:image"] == metas["twitter:image"] == "http://here:7860/card.png"
    assert metas["og:image:alt"] == metas["twitter:image:alt"] == sharing.CARD_ALT
    assert (metas["og:type"], metas["og:url"]) == ("website", "http://here:7860/")
    assert (metas["og:image:width"], metas["og:image:height"]) == ("1200", "630")
    assert (metas["twitter:card"], metas["theme-color"]) == ("summary_large_image", theme.NIGHT)
    assert (metas["viewport"], head.links["manifest"], head.titles) == ("width=device-width", "manifest.json", 1)
    assert 'named <meta name="description" content="mine">' in answer.text and "Gradio" not in answer.text
    assert (answer.headers["content-length"], answer.headers["x-kept"]) == (str(len(answer.content)), "yes")


def test_a_page_in_pieces_and_a_head_tell_the_same() -> None:
    assert ask("/?pieces").text == ask().text
    assert ask(method="HEAD").headers == ask().headers


def test_the_page_travels_small_to_who_can_unpack_it() -> None:
    packed = ask(coding="br, gzip")
    assert packed.headers["content-encoding"] == "gzip" and packed.text == ask().text
    assert "content-encoding" not in ask().headers
    assert ask(method="HEAD", coding="gzip").headers == ask(coding="gzip").headers
    assert int(packed.headers["content-length"]) < len(packed.content)


@pytest.mark.parametrize("method, path", [("GET", "/?lost"), ("GET", "/other"), ("POST", "/"), ("GET", "/?json")])
def test_all_else_passes_untouched(method: str, path: str) -> None:
    answer = ask(path, method)
    assert (answer.json() if "json" in path else answer.text) == TEMPLATE
    assert answer.headers["content-length"] == str(len(answer.content))
    assert ask(app=tiny("<p>no head</p>")).text == "<p>no head</p>"


@pytest.mark.parametrize(
    "root, headers, base",
    [
        ("", {"Host": "127.0.0.1:7860"}, "http://127.0.0.1:7860/"),
        ("", {"Host": "[::1]:80"}, "http://[::1]:80/"),
        ("", {"Host": "someone-ace.hf.space"}, "https://someone-ace.hf.space/"),
        ("", {"X-Forwarded-Proto": "https,http", "Host": "Studio.example"}, "https://studio.example/"),
        ("", {"X-Forwarded-Host": "a.example, b.example"}, "http://a.example/"),
        ("/studio", {"X-Forwarded-Host": "a.example"}, "http://a.example/studio/"),
        ("https://a.example/studio/", {"Host": "inside"}, "https://a.example/studio/"),
        ('/"><script>', {}, ""),
        *(("", {name: host}, "") for name in ("Host", "X-Forwarded-Host") for host in ODD_HOSTS),
    ],
)
def test_addresses_come_from_the_request_unless_they_are_odd(root: str, headers: dict[str, str], base: str) -> None:
    sent = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    tags = sharing.tags(sharing.address({"scheme": "http", "root_path": root, "headers": [(b"host", b"x"), *sent]}))
    assert (Head(tags).metas["og:url"], Head(tags).metas["og:image"]) == (base or "./", f"{base}card.png")
    assert "<script" not in tags


def test_below_a_root_path_the_front_page_is_still_known() -> None:
    for path in ("/studio/", "/"):  # of proxies that leave the root path and of those that cut it off
        assert "http://here:7860/studio/card.png" in ask(path, root="/studio").text
    assert ask("/studio/other", root="/studio").text == TEMPLATE


@pytest.mark.parametrize("path", ["/gradio_api/queue/data", "/"])
def test_streams_are_not_held_back(path: str) -> None:
    """Each piece is out before the next is made."""
    heard: list[Any] = []

    async def hear(message: Any) -> None:
        heard.append(message.get("body"))

    async def talk(scope: Any, receive: Any, send: Callable[..., Any]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        for piece in (b"0", b"1"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            assert heard[-1] == piece

    asked = {"type": "http", "method": "GET", "path": path, "headers": []}
    asyncio.run(sharing.ShareCards(talk)(asked, None, hear))
    assert heard == [None, b"0", b"1"]


def test_pictures_are_what_the_tags_say() -> None:
    import numpy as np
    from PIL import Image

    drawn = {}
    for path, (_, kind) in sharing.PICTURES.items():
        answer = ask(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
        assert answer.headers["cache-control"] == "public, max-age=86400"
        assert len(answer.content) < 80_000
        if kind == "image/png":
            drawn[path] = Image.open(io.BytesIO(answer.content)).convert("RGB")
    assert drawn.pop("/card.png").size == (sharing.CARD_WIDTH, sharing.CARD_HEIGHT)
    assert {picture.size for picture in drawn.values()} == {(sharing.ICON_SIDE, sharing.ICON_SIDE)}
    assert drawn["/icon.png"].getpixel((0, 0)) == (10, 10, 10)
    assert theme.NIGHT == sharing.COLOUR and theme.NIGHT in (ROOT / "assets" / "icon.svg").read_text()
    white = np.argwhere(np.asarray(drawn["/icon.png"])[:, :, 0] > 128) + 0.5 - sharing.ICON_SIDE / 2
    assert np.hypot(*white.T).max() < 0.4 * sharing.ICON_SIDE  # what every launcher's mask leaves


def test_the_served_page_has_one_card_and_no_foreign_host(studio: served.Served) -> None:
    plain = {"Accept-Encoding": "identity"}
    answer = httpx.get(studio.url, headers=plain)
    head = Head(answer.text)
    told = [*head.metas.values(), *head.links.values()]
    assert {urlsplit(text).netloc for text in told if "//" in text} == {urlsplit(studio.url).netloc}
    assert head.titles == 1 and not [text for text in told if "gradio" in text.lower()]
    for length in (answer.headers, httpx.head(studio.url, headers=plain).headers):
        assert int(length["content-length"]) == len(answer.content)
    on_space = httpx.get(studio.url, headers={"Host": "me-ace.hf.space", "X-Forwarded-Proto": "https"})
    assert Head(on_space.text).metas["og:image"] == "https://me-ace.hf.space/card.png"
    for name in ("Host", "X-Forwarded-Host"):
        attacked = httpx.get(studio.url, headers={name: HOSTILE}).text
        assert "<script>alert" not in attacked and Head(attacked).metas["og:image"] == "card.png"


def test_the_manifest_its_icons_and_robots_txt_are_served(studio: served.Served) -> None:
    answer = httpx.get(studio.url + "/manifest.json")
    assert (answer.headers["content-type"], answer.json()) == ("application/manifest+json", sharing.manifest())
    assert {icon["purpose"] for icon in answer.json()["icons"]} == {"any", "maskable"}
    for icon in answer.json()["icons"]:
        found = httpx.get(urljoin(str(answer.url), icon["src"]))
        assert (found.status_code, found.headers["content-type"]) == (200, icon["type"])
    robots = httpx.get(studio.url + "/robots.txt")
    assert (robots.text, robots.headers["content-type"]) == (sharing.ROBOTS, "text/plain; charset=utf-8")


def test_the_studios_streams_still_stream(studio: served.Served) -> None:
    with httpx.stream("GET", studio.url + "/gradio_api/heartbeat/someone", timeout=10) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert next(answer.iter_text())  # of a stream that has no end


def test_a_browser_could_install_it_and_asks_nobody_else(studio: served.Served) -> None:
    asked, complaints = [], []
    with served.chromium() as browser:
        page = browser.new_page(locale="en-US")
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(studio.url)
        page.locator("#generate").wait_for()
        tools = page.context.new_cdp_session(page)
        found = tools.send("Page.getAppManifest")
        faults = tools.send("Page.getInstallabilityErrors")["installabilityErrors"]
        assert (found["url"], found["errors"]) == (studio.url + "/manifest.json", [])
        assert [fault["errorId"] for fault in faults] == ["in-incognito"]  # as all of Playwright's visits are
        assert page.title() == sharing.TITLE
    assert {studio.url + "/manifest.json", studio.url + "/icon.svg"} <= set(asked)
    assert [url for url in asked if not url.startswith((studio.url, "data:", "blob:"))] == []
    assert complaints == []
