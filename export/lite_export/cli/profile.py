"""``lite-export profile``."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lite_export.cli.console import table_console
from lite_export.cli.errors import InputError
from lite_export.cli.options import AsJson, examples, model_folder, model_path

if TYPE_CHECKING:
    from rich.table import Table

    from lite_transformer.config import ModelConfig
    from lite_transformer.profile import Profile, Row

    Profiles = dict[str, Profile]

EXAMPLES = examples(
    "lite-export profile",
    "lite-export profile wmt-en-fr-496",
    "lite-export profile runs/phone/final --source-length 50 --target-length 60 --json",
)


def profile(
    model: Annotated[
        str | None,
        typer.Argument(help="A preset, a model folder or a shipped model; default: all presets.", show_default=False),
    ] = None,
    source_length: Annotated[
        int | None, typer.Option(min=1, help="Source tokens; default: the paper's, 30.", show_default=False)
    ] = None,
    target_length: Annotated[
        int | None, typer.Option(min=1, help="Target tokens; default: the paper's, 30 or 60.", show_default=False)
    ] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Per layer, for all presets too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Parameters and Mult-Adds, as the paper counts them and as a decode step really costs."""
    profiles = _profiles(model, source_length, target_length)
    if as_json:
        print(json.dumps({name: _record(found) for name, found in profiles.items()}, indent=2))
        return
    console = table_console()
    tables = [_summary(profiles)]
    if layers or model:
        tables += [_per_layer(name, found) for name, found in profiles.items()]
    for table in tables:
        console.print(table)
    console.print("Mult-Adds: the paper's count, a whole sentence pair without vocabulary projection and taps.")
    console.print("step: one cached decode step at the last position, everything included; vocabulary is its share.")


def _profiles(model: str | None, source_length: int | None, target_length: int | None) -> Profiles:
    from lite_transformer.presets import PRESETS
    from lite_transformer.profile import profile as count

    if model is None:
        return {name: count(name, source_length, target_length) for name in PRESETS}
    if model in PRESETS:
        return {model: count(model, source_length, target_length)}
    return {model: count(_config_of(model), source_length, target_length)}


def _config_of(model: str) -> ModelConfig:
    from lite_export.loading import shipped_names
    from lite_transformer.checkpoint import load_config
    from lite_transformer.presets import PRESETS

    if not model_path(model).exists():
        names = ", ".join((*shipped_names(), *PRESETS))
        raise InputError(f"{model!r} is neither a model folder nor one of these models and presets: {names}")
    return load_config(model_folder(model))


def _vocabulary_share(found: Profile) -> float:
    """Part of a decode step's Mult-Adds that the output projection takes, 0 to 1."""
    return sum(row.step for row in found.tables if row.name == "projection") / found.step


def _record(found: Profile) -> dict[str, Any]:
    return {
        **dataclasses.asdict(found),
        "parameters": found.parameters,
        "body_parameters": found.body_parameters,
        "mult_adds": found.mult_adds,
        "once": found.once,
        "step": found.step,
        "vocabulary_share": _vocabulary_share(found),
    }


def _table(title: str, first: str, columns: tuple[str, ...]) -> Table:
    from rich.table import Table

    table = Table(first, title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _summary(profiles: Profiles) -> Table:
    columns = ("tokens", "parameters", "non-embedding", "Mult-Adds", "step", "vocabulary", "fp16 MB")
    table = _table("", "model", columns)
    for name, found in profiles.items():
        table.add_row(
            name,
            f"{found.source_length}/{found.target_length}",
            f"{found.parameters / 1e6:.2f}M",
            f"{found.body_parameters / 1e6:.3f}M",
            f"{found.mult_adds / 1e6:.2f}M",
            f"{found.step / 1e6:.2f}M",
            f"{_vocabulary_share(found):.0%}",
            f"{found.bytes('fp16') / 1e6:.1f}",
        )
    return table


def _per_layer(name: str, found: Profile) -> Table:
    table = _table(name, "layer", ("kernel", "parameters", "Mult-Adds", "once a sentence", "a step"))
    for row in found.rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> tuple[str, ...]:
    millions = (row.mult_adds, row.once, row.step)
    return row.name, str(row.kernel or ""), f"{row.parameters:,}", *(f"{m / 1e6:.3f}M" for m in millions)
