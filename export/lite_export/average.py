"""A model folder of the mean weights of several, whole: with card, vocabulary, sentences and test set."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from lite_export.loading import CARD, SENTENCES, TEST_SET, ModelCard, load_model_card, merged_card, write_card
from lite_transformer.averaging import average_models
from lite_transformer.checkpoint import TOKENIZER, check_output, write_model
from lite_transformer.files import staged_folder
from lite_transformer.import_fairseq import CODES, VOCABULARY

_BESIDE = (TOKENIZER, VOCABULARY, CODES, SENTENCES, TEST_SET)


def write_average(folders: Sequence[Path], output: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the average of models to ``output``; what is beside the weights comes from the first.

    Args:
        output: folder to write; an older model there is replaced, and may be one of ``folders``.
        dtype: of the weights on disk; int8 is of matrices, one scale per row.

    Raises:
        CheckpointError: see ``average_models``; or ``output`` is something else than a model folder.
        ModelError: a card is not valid.
        OSError: ``output`` cannot be written; nothing is left behind.
    """
    check_output(output)
    config, weights = average_models(folders)
    card = _card(folders, output.name)
    with staged_folder(output) as staging:
        write_model(staging, config, weights, dtype)
        for name in _BESIDE:
            if (folders[0] / name).is_file():
                shutil.copyfile(folders[0] / name, staging / name)
        if card:
            write_card(staging, card)


def _card(folders: Sequence[Path], name: str) -> ModelCard | None:
    if not (folders[0] / CARD).exists():
        return None
    return merged_card([load_model_card(folder) for folder in folders if (folder / CARD).exists()], name)
