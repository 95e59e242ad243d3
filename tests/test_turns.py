"""What the browser does at once when something begins, and when it has ended."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

import turns
from cards import status


def test_while_a_song_is_made_only_stop_can_be_pressed() -> None:
    line, *able = json.loads(turns.before(6).removeprefix("() => "))
    assert 'class="running waiting"' in line and "Waiting for your turn" in line
    assert [button["interactive"] for button in able] == [False] * 5 + [True]
    able = json.loads(re.search(r"\.\.\.(\[.*\]), Date\.now\(\)\]", turns.after(3, 2, "Stopped."))[1])
    assert [button.get("interactive") for button in able] == [True] * 3 + [None] * 2 + [False], "some wait for a take"


def test_what_ended_without_a_word_was_stopped_or_found_the_studio_full() -> None:
    js = turns.after(1, 1, "Stopped.")
    assert js.startswith("line => [line.includes('class=\"running') ? (window.studio.full ? ")
    assert "The studio is full" in js and "Stopped." in js and "data-remedy" in js and ": false && " in js
    assert ": true && !window.studio.stopped ? " in turns.after(1, 1, "Stopped.", True)


def test_a_line_that_knows_what_was_kept_says_so_when_it_is_stopped() -> None:
    node = shutil.which("node")
    if not node:
        pytest.skip("no JavaScript without a browser here")
    lines = [status("Denoising", "running", None, "Stopped. 1 of 3 takes was kept."), status("Denoising", "running")]
    lines.append(status("Take 3 of 3: done"))
    said = f"({turns.after(1, 1, 'Stopped.')})"
    script = f"globalThis.window = {{studio: {{}}}}; console.log(JSON.stringify({json.dumps(lines)}.map(line => {said}(line)[0])))"
    run = subprocess.run([node, "-e", script], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(run.stdout) == [status("Stopped. 1 of 3 takes was kept."), status("Stopped."), lines[2]]
