"""A script: what lite_runtime's sessions translate a bundle's first golden sentences to, by format, as JSON.

python_tokens.py BUNDLE PRECISION COUNT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lite_runtime.bundle import open_bundle
from lite_runtime.golden import load_golden
from lite_runtime.parity import translate_golden

folder, precision, count = sys.argv[1:]
bundle = open_bundle(Path(folder))
manifest = bundle.manifest
golden = load_golden(bundle.folder / manifest.golden.sentences)[: int(count)]


def tokens(form: str) -> list[tuple[int, ...]]:
    session = bundle.session(form, precision, "explicit", threads=1)
    decoding = (manifest.tokens, manifest.limits, manifest.decoding)
    # One by one, as the runner does: with more rows other kernels run.
    return [translate_golden(session, [sentence.source], *decoding, 1)[0][0].tokens for sentence in golden]


json.dump({form: tokens(form) for form in ("onnx", "executorch")}, sys.stdout)
