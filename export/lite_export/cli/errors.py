"""What a user sees when something goes wrong: one clear line, an exit code, and no traceback.

2 for a command line that makes no sense (typer's own), 1 for anything else, 130 for Ctrl-C.
"""

from __future__ import annotations

import errno
import sys
from typing import Any

import typer
from typer.core import TyperGroup

_OURS = {"lite_export", "lite_runtime", "lite_transformer"}


class InputError(ValueError):
    """What was typed, piped in or named on the command line cannot be used."""


class CommandGroup(TyperGroup):
    """Runs commands, and turns their failures into messages."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader of our output went away (``| head``): typer ends quietly
        except KeyboardInterrupt:
            _say("interrupted: finished results are kept, nothing half-written is left")
            raise typer.Exit(130) from None
        except (ValueError, OSError, ModuleNotFoundError) as error:
            message = explain(error)
            if message is None or ctx.params.get("debug"):
                raise
            _say(f"error: {message}")
            raise typer.Exit(1) from None


def explain(error: Exception) -> str | None:
    """The line to show for a failure the user can mend; None for a fault of ours, which keeps its traceback."""
    if isinstance(error, ModuleNotFoundError):
        return _missing(error.name or "")
    if type(error).__module__.partition(".")[0] in _OURS:
        return str(error)
    return _system(error) if isinstance(error, OSError) and error.errno else None


def _missing(module: str) -> str | None:
    """Which extra to install, where the module belongs to one."""
    from lite_export.doctor import extra_of

    extra = extra_of(module)
    return extra and f"this needs {module}, which is not installed: pip install 'lite-export[{extra}]'"


def _system(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    hint = {
        errno.ENOENT: "no such file or folder",
        errno.EEXIST: "is a file, a folder is needed",
        errno.EPERM: "not permitted; choose a place you may write",
        errno.EACCES: "permission denied; choose a place you may read and write",
        errno.EROFS: "the file system is read-only; choose another place",
        errno.ENOSPC: "the disk is full; free some space and run the same command again",
        errno.EISDIR: "is a folder, a file is needed",
        errno.ENOTDIR: "is a file, a folder is needed",
    }
    return where + hint.get(error.errno or 0, error.strerror or str(error))


def _say(line: str) -> None:
    print(line, file=sys.stderr)
