"""How heavy and how quick the page is: bytes of the first load, time until it can be used, time to switch modes, layout shift.

    python -m benchmarks.page

The demo checkpoint is served on this machine and visited with Chromium (Debian's); times are medians of three fresh visits.
Layout shift is that of the time from a press of Generate to the finished take.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import served

VISITS = 3
WIDTHS = (1440, 412)
SONG_MS = 240_000
TABS = ("cover", "extend", "edit", "lyrics", "generate")
SHIFTS = """() => { window.shift = 0; new PerformanceObserver(list => list.getEntries().forEach(entry => {
    if (!entry.hadRecentInput) window.shift += entry.value; })).observe({type: 'layout-shift'}); }"""
# From the press to the next frame in which the tab's own button shows, in ms.
SWITCH = """async tab => { const begin = performance.now();
    document.querySelector(`[role=tablist] [data-tab-id=${tab}-tab]`).click();
    while (!document.querySelector(tab === 'lyrics' ? '#draft-lyrics' : `#${tab}`)?.checkVisibility())
        await new Promise(requestAnimationFrame);
    return performance.now() - begin; }"""


def visited(browser: Any, url: str, width: int) -> dict[str, float]:
    """One fresh visit: kB, requests, usable s, slowest switch ms, layout shift."""
    context = browser.new_context(viewport={"width": width, "height": 900}, locale="en-US")
    page, sizes = context.new_page(), []
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    session.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    begin = time.perf_counter()
    page.goto(url, wait_until="commit")
    page.locator("#generate").wait_for()
    usable = time.perf_counter() - begin
    page.wait_for_timeout(2000)
    load = {"kB": sum(sizes) / 1000, "requests": len(sizes), "usable s": usable}
    for tab in TABS:
        page.evaluate(SWITCH, tab)  # what a tab loads when it is first shown is loaded once
    switch = max(page.evaluate(SWITCH, tab) for tab in TABS)
    page.locator("#prompt textarea").fill("lullaby, music box, calm")
    page.wait_for_timeout(600)
    page.evaluate(SHIFTS)
    page.locator("#generate").click()
    page.locator("#download:not([disabled])").wait_for(timeout=SONG_MS)
    page.wait_for_timeout(600)
    shift = page.evaluate("window.shift")
    context.close()
    return load | {"switch ms": switch, "layout shift": shift}


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as own, served.studio(Path(own)) as studio, served.chromium() as browser:
        rows = {width: [visited(browser, studio.url, width) for _ in range(VISITS)] for width in WIDTHS}
    names = list(rows[WIDTHS[0]][0])
    print("| width | " + " | ".join(names) + " |")
    print("| --- " * (len(names) + 1) + "|")
    for width, runs in rows.items():
        print(
            f"| {width} | " + " | ".join(f"{statistics.median(run[name] for run in runs):.3g}" for name in names) + " |"
        )


if __name__ == "__main__":
    main()
