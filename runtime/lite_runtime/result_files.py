"""Reading what a command wrote as JSON earlier: errors name the file and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

Result = TypeVar("Result", bound=BaseModel)


def read_result_file(path: Path, model: type[Result], kind: str, command: str, refusal: type[ValueError]) -> Result:
    """A result of version 1, whole and valid.

    Args:
        kind: the value of its field ``kind``.
        command: what writes such files, to name in an error.

    Raises:
        refusal: the file is none of that kind, damaged, or of another version.
    """
    try:
        content = json.loads(path.read_text("utf8"))
    except (ValueError, RecursionError) as error:
        raise refusal(f"{path} is no JSON: {error}") from None
    if not isinstance(content, dict) or content.get("kind") != kind:
        raise refusal(f"{path} is no result of {command}")
    if content.get("schema_version") != 1:
        raise refusal(f"{path} has schema {content.get('schema_version')}, this version reads 1: run {command} again")
    try:
        return model.model_validate_json(json.dumps(content))
    except ValidationError as error:
        first = error.errors()[0]
        raise refusal(f"{path} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
