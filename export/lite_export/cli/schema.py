"""``lite-export schema``."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from lite_export.cli.options import examples

EXAMPLES = examples(
    "lite-export schema > manifest.schema.json",
    "lite-export schema bench > bench.schema.json",
    "lite-export schema evaluation > evaluation.schema.json",
)


class Document(StrEnum):
    """What has a published schema."""

    manifest = "manifest"
    bench = "bench"
    evaluation = "evaluation"


def schema(
    document: Annotated[
        Document, typer.Argument(help="A bundle's manifest, or a result of lite-export bench or evaluate.")
    ] = Document.manifest,
) -> None:
    """Print the JSON Schema of a bundle's manifest, or of what bench or evaluate writes."""
    from pydantic import BaseModel

    from lite_export.evaluate_result import Evaluation
    from lite_runtime.bench_result import BenchResult
    from lite_runtime.manifest import Manifest

    models: dict[Document, type[BaseModel]] = {
        Document.manifest: Manifest,
        Document.bench: BenchResult,
        Document.evaluation: Evaluation,
    }
    print(json.dumps(models[document].model_json_schema(), indent=2))
