"""Things that take minutes to build, kept between runs in a folder named by everything they were built from."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path


def cache_folder() -> Path:
    """$LITE_PHONE_CACHE, or a folder of its own in the user's cache."""
    if chosen := os.environ.get("LITE_PHONE_CACHE"):
        return Path(chosen).resolve()
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "lite-export" / "phones"


def built(name: str, inputs: Iterable[bytes | str], build: Callable[[Path], None]) -> Path:
    """The folder that ``build`` filled from ``inputs``: an earlier one, or a new one, whole or not at all.

    Older ones of that name are deleted. Test runs at the same time build it once.
    """
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    target = cache / f"{name}-{_digest(inputs)}"
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            for old in cache.glob(f"{name}-*"):
                shutil.rmtree(old)  # What failed half-way, too.
            staging = cache / f"{name}-staging"
            staging.mkdir()
            build(staging)
            staging.rename(target)
    return target


def _digest(inputs: Iterable[bytes | str]) -> str:
    digest = hashlib.sha256()
    for part in inputs:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()[:16]


def run(*command: object, **options: object) -> str:
    """Run a build command; returns its stdout.

    Raises:
        RuntimeError: it failed; the message holds the end of what it said.
    """
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        said = (done.stdout + done.stderr)[-3000:]
        raise RuntimeError(f"{' '.join(words)[:200]} ended with {done.returncode}:\n{said}")
    return done.stdout
