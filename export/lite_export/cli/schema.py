"""``lite-export schema``."""

from __future__ import annotations

import json

from lite_export.cli.options import examples

EXAMPLES = examples("lite-export schema > manifest.schema.json")


def schema() -> None:
    """Print the JSON Schema of a bundle's manifest."""
    from lite_runtime.manifest import Manifest

    print(json.dumps(Manifest.model_json_schema(), indent=2))
