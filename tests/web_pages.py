"""Pages of ours in a real browser, and what stands in them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

from requirements import require

# Chromium's mark of requests that pages make; it makes others of its own, for updates and the time.
PAGE_REQUEST = '"traffic_annotation":101845102,"url":"'
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


class Loads(HTMLParser):
    """Collects what a page would load, and the specifications of its charts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.policy = ""
        self.specs: dict[str, dict] = {}
        self._chart: str | None = None
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.addresses += [given[name] or "" for name in ("src", "href", "srcset", "data", "action") if name in given]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""
        self._chart = given.get("data-chart") if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._chart = None

    def handle_data(self, data: str) -> None:
        if self._chart:
            self.specs[self._chart] = json.loads(data)


def find_browser() -> str:
    """Chromium, or a skip that says how to get it."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        require("no Chromium to open the report in: apt install chromium")
    assert found is not None
    return found


def opened(browser: str, page: Path, folder: Path) -> tuple[str, list[str]]:
    """The page's elements after its scripts ran, and the addresses that were asked for beside its own."""
    log = folder / "net.json"
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            f"--user-data-dir={folder / 'profile'}",
            f"--log-net-log={log}",
            "--virtual-time-budget=20000",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    asked = re.findall(PAGE_REQUEST + '((?:https?|wss?):[^"]*)"', log.read_text("utf8", errors="replace"))
    return done.stdout, asked


def rows(spec: dict) -> list[dict]:
    """All data of a specification, without the line at 1."""
    return (
        [row for data in spec["datasets"].values() for row in data if "x" not in row]
        if "datasets" in spec
        else [
            row
            for part in [spec, *spec.get("layer", [])]
            for row in part.get("data", {}).get("values", [])
            if "x" not in row
        ]
    )
