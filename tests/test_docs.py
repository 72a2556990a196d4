"""What the documents promise exists: the published schema is the code's, and named commands and files are there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from typer.main import get_command

from lite_export.cli import app
from lite_export.evaluate_result import Evaluation
from lite_runtime.bench_result import BenchResult
from lite_runtime.manifest import Manifest

ROOT = Path(__file__).parents[1]
SHIPPED = "export/lite_export/shipped"
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "docs/data.md", f"{SHIPPED}/en-fr/README.md", f"{SHIPPED}/fr-en/README.md"]


@pytest.mark.parametrize(
    ("name", "model"), [("manifest", Manifest), ("bench", BenchResult), ("evaluation", Evaluation)]
)
def test_published_schemas_are_current(name: str, model: type[BaseModel]) -> None:
    published = json.loads((ROOT / f"docs/{name}.schema.json").read_text("utf8"))
    assert published == model.model_json_schema(), f"run: lite-export schema {name} > docs/{name}.schema.json"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_named_commands_exist(name: str) -> None:
    commands = set(get_command(app).commands)
    named = re.findall(r"(?m)(?:^\$ |`|^    )lite-export ([a-z][a-z-]*)", (ROOT / name).read_text("utf8"))
    assert named or name == "CONTRIBUTING.md"
    assert set(named) <= commands


@pytest.mark.parametrize("name", DOCUMENTS)
def test_named_files_exist(name: str) -> None:
    text = (ROOT / name).read_text("utf8")
    for pattern in re.findall(r"`((?:model|export|runtime|configs|benchmarks|docs|tests)/[^`\s]*)`", text):
        head, _, rest = pattern.partition("{")
        names = [head + part + rest.partition("}")[2] for part in rest.partition("}")[0].split(",")]
        for path in names:
            assert any(ROOT.glob(path)), path
