"""The authors' released checkpoints, brought to our format without fairseq and without running their pickle.

1. read the checkpoint (nothing is executed)  2. rename config and weights, and try them in a model
3. read dictionaries and BPE codes beside it  4. write the folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from lite_transformer.checkpoint import CheckpointError, check_output, load_weights, unique_weights, write_model
from lite_transformer.config import ModelConfig
from lite_transformer.fairseq import UnsupportedCheckpoint, config_from_args, rename_weights
from lite_transformer.files import staged_folder
from lite_transformer.model import LiteTransformer
from lite_transformer.unpickle import Record, read_checkpoint

VOCABULARY, CODES = "vocabulary.json", "bpe.codes"
_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
_CODE_NAMES = ("code", "codes", "bpecodes", "bpe.codes")


@dataclass(frozen=True)
class ImportReport:
    """What was imported, and in ``notes`` what was not and why."""

    output: Path
    config: ModelConfig
    parameters: int
    source_language: str | None
    target_language: str | None
    vocabulary: bool
    codes: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id, both sides (source empty for a language model), and their language codes."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    source_language: str | None
    target_language: str | None


def import_checkpoint(checkpoint: Path, output: Path, data: Path | None = None) -> ImportReport:
    """Turn a fairseq checkpoint into a model folder: weights in float32, config, vocabulary, BPE codes.

    Args:
        output: folder to write; an older import there is replaced.
        data: folder of ``dict.LANGUAGE.txt`` and the BPE codes; the checkpoint's own folder when None.

    Raises:
        UnsafeCheckpoint: the pickle asks for code to be run (nothing was run).
        UnsupportedCheckpoint: readable, but not a model of this architecture.
        CheckpointError: unreadable, or a dictionary does not fit the embedding.
        OSError: ``output`` cannot be written.
    """
    check_output(output)
    arguments, state = _parts(read_checkpoint(checkpoint), checkpoint)
    config, model = _build(arguments, state, checkpoint)
    folder = data or checkpoint.parent
    vocabulary, notes = _vocabulary(arguments, config, folder)
    if data is not None and vocabulary is None:
        raise CheckpointError(f"{data} has no dictionary for this model: {notes[0]}")
    codes = next((folder / name for name in _CODE_NAMES if (folder / name).is_file()), None)
    if codes is None:
        notes.append(f"no BPE codes in {folder} (looked for {', '.join(_CODE_NAMES)}): text cannot be tokenized")
    with staged_folder(output) as staging:
        write_model(staging, config, unique_weights(model), torch.float32)
        if vocabulary:
            _write_vocabulary(staging / VOCABULARY, vocabulary)
        if codes:
            shutil.copyfile(codes, staging / CODES)
    return ImportReport(
        output=output,
        config=config,
        parameters=sum(p.numel() for p in model.parameters()),
        source_language=_text(arguments, "source_lang"),
        target_language=_text(arguments, "target_lang"),
        vocabulary=vocabulary is not None,
        codes=codes is not None,
        notes=tuple(notes),
    )


def _parts(content: object, checkpoint: Path) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Arguments and state dict of a fairseq checkpoint."""
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise UnsupportedCheckpoint(f"{checkpoint} is not a fairseq checkpoint: it has no 'model' dictionary")
    if not isinstance(content.get("args"), Record):
        raise UnsupportedCheckpoint(f"{checkpoint} has no 'args' namespace: only fairseq before 0.10 is supported")
    state = content["model"]
    if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()):
        raise UnsupportedCheckpoint(f"{checkpoint}: its 'model' holds more than named tensors")
    return content["args"].fields, state


def _build(
    arguments: Mapping[str, object], state: Mapping[str, Tensor], checkpoint: Path
) -> tuple[ModelConfig, LiteTransformer]:
    """Config and a model that holds the weights, all of them and no others."""
    try:
        config = config_from_args(arguments, state)
    except UnsupportedCheckpoint as error:
        raise UnsupportedCheckpoint(f"{checkpoint}: {error}") from None
    except KeyError as error:
        raise UnsupportedCheckpoint(f"{checkpoint} lacks the argument or weight {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UnsupportedCheckpoint(f"{checkpoint}: {'.'.join(map(str, first['loc']))} {first['msg']}") from None
    except (TypeError, ValueError, IndexError) as error:
        raise UnsupportedCheckpoint(f"{checkpoint}: an argument has an unexpected form ({error})") from None
    model = LiteTransformer(config)
    load_weights(model, rename_weights(state), str(checkpoint))
    return config, model


def _vocabulary(
    arguments: Mapping[str, object], config: ModelConfig, folder: Path
) -> tuple[Vocabulary | None, list[str]]:
    """The dictionaries beside a checkpoint, or None and the reason."""
    languages = _text(arguments, "source_lang"), _text(arguments, "target_lang")
    sides = [(languages[0], config.source_vocab), (languages[1], config.target_vocab)]
    if config.encoder is None:
        sides = [(None, config.target_vocab)]
    elif None in languages:
        return None, ["the checkpoint does not name its languages: no dictionary was looked for"]
    paths = [folder / (f"dict.{language}.txt" if language else "dict.txt") for language, _ in sides]
    if missing := [str(path) for path in paths if not path.is_file()]:
        return None, [f"no {' and no '.join(missing)}: weights only, token ids cannot be turned into text"]
    tables = [read_dictionary(path, rows) for path, (_, rows) in zip(paths, sides, strict=True)]
    return Vocabulary(tables[0] if config.encoder else (), tables[-1], *languages), []


def read_dictionary(path: Path, rows: int) -> tuple[str, ...]:
    """Tokens of a fairseq dictionary by id: four specials, the file's lines, then padding words.

    Args:
        rows: rows of the embedding it belongs to; fairseq pads a dictionary to a multiple of 8.

    Raises:
        CheckpointError: unreadable, a line is not ``TOKEN COUNT``, or the size is not the embedding's.
    """
    try:
        lines = path.read_text("utf8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"cannot read the dictionary {path}: {error}") from None
    tokens = list(_SPECIALS)
    for number, line in enumerate(lines, 1):
        token, _, count = line.rpartition(" ")
        if token and count.strip().isdecimal():
            tokens.append(token)
        elif line.strip():
            raise CheckpointError(f"{path}:{number}: expected TOKEN COUNT, found {line[:40]!r}")
    if rows == -(-len(tokens) // 8) * 8:
        tokens.extend(f"madeupword{i:04d}" for i in range(rows - len(tokens)))
    if len(tokens) != rows:
        raise CheckpointError(
            f"{path} makes {len(tokens)} tokens, the embedding has {rows}: it belongs to another model"
        )
    return tuple(tokens)


def _write_vocabulary(path: Path, vocabulary: Vocabulary) -> None:
    content = {
        "kind": "fairseq-bpe",
        "source_language": vocabulary.source_language,
        "target_language": vocabulary.target_language,
        "source": vocabulary.source,
        "target": vocabulary.target,
    }
    path.write_text(json.dumps(content, ensure_ascii=False) + "\n", "utf8")


def _text(arguments: Mapping[str, object], key: str) -> str | None:
    """A language code of the arguments; it becomes part of a file name, so it must look like one."""
    value = arguments.get(key)
    return value if isinstance(value, str) and value.replace("_", "").replace("-", "").isalnum() else None
