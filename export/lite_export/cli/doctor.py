"""``lite-export doctor``."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import typer

from lite_export.cli.console import table_console
from lite_export.cli.options import AsJson, examples

if TYPE_CHECKING:
    from lite_export.doctor import Diagnosis

EXAMPLES = examples("lite-export doctor", "lite-export doctor --json")


def doctor(as_json: AsJson = False) -> None:
    """Check the installation: packages, extras, the shipped models, adb.

    Ends with exit code 1 when something required is broken.
    """
    from lite_export.doctor import diagnose

    diagnosis = diagnose()
    if as_json:
        print(json.dumps({**dataclasses.asdict(diagnosis), "healthy": diagnosis.healthy}, indent=2))
    else:
        _print(diagnosis)
    if not diagnosis.healthy:
        raise typer.Exit(1)


def _print(diagnosis: Diagnosis) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = table_console()
    colours = {"ok": "green", "absent": "yellow", "broken": "red"}
    facts = Table(show_header=False, box=None)
    for name, value in {**diagnosis.machine, **diagnosis.packages}.items():
        facts.add_row(name, value or "[dim]not installed[/]")
    checks = Table(show_header=False, box=None)
    for check in diagnosis.checks:
        checks.add_row(f"[{colours[check.status]}]{check.status}[/]", check.name, escape(check.detail))
    console.print(facts)
    console.print()
    console.print(checks)
    if not diagnosis.healthy:
        console.print("\n[red]Something required is broken: see above for the fix.[/]")
