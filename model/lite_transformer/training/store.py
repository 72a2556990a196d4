"""A run's folder: the resumable state, the checkpoints kept for averaging, the log of the curve."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from lite_transformer.checkpoint import CheckpointError, load_weights, read_weights, unique_weights, write_weights
from lite_transformer.files import recover, remove_leftovers, staged_file, staged_folder
from lite_transformer.model import LiteTransformer


class Progress(BaseModel):
    """Where a run stands: the next update, and the next batch of which epoch."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    target_tokens: int = 0
    seconds: float = 0.0


class RunStore:
    """Files of one run.

    ``state/`` is replaced as a whole, so a kill at any moment leaves the previous or the new one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.log = folder / "log.jsonl"

    def tidy(self) -> None:
        """Remove what earlier processes of this run were writing when they were killed.

        One process only may call it.
        """
        for name in ("state", "log.jsonl", "data", "final", "checkpoints/step-*"):
            remove_leftovers(self.folder / name)

    def save_state(self, model: LiteTransformer, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
        """Everything needed to continue exactly."""
        with staged_folder(self.state) as staging:
            write_weights(staging / "model.safetensors", unique_weights(model))
            # Through memory: torch.save hides that a disk is full.
            torch.save(optimizer.state_dict(), content := io.BytesIO())
            (staging / "optimizer.pt").write_bytes(content.getbuffer())
            (staging / "progress.json").write_text(progress.model_dump_json())

    def load_state(self, model: LiteTransformer, optimizer: torch.optim.Optimizer) -> Progress:
        """Continue a run, or start one where nothing was saved yet.

        Raises:
            CheckpointError: the saved state is damaged or belongs to another model.
        """
        progress = self.progress()
        if not self.state.exists():
            return progress
        path = self.state / "model.safetensors"
        try:
            load_weights(model, read_weights(path), str(path))
        except CheckpointError as error:
            raise CheckpointError(
                f"{error}. If the recipe changed, restore it or name another --output; else remove {self.state}"
            ) from None
        try:
            optimizer.load_state_dict(torch.load(self.state / "optimizer.pt", "cpu", weights_only=True))
        except (OSError, ValueError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
            raise self._damaged(error) from None
        return progress

    def progress(self) -> Progress:
        """Where the saved state stands; the beginning where nothing was saved yet.

        Raises:
            CheckpointError: the saved state is damaged.
        """
        recover(self.state)
        if not self.state.exists():
            return Progress()
        try:
            return Progress.model_validate_json((self.state / "progress.json").read_text("utf8"))
        except (OSError, ValueError) as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> CheckpointError:
        return CheckpointError(f"{self.state} is damaged ({error}); remove it to start again")

    def forget_after(self, step: int) -> None:
        """Forget checkpoints and lines written after the state of update ``step`` was: they will be written again.

        One process only may call it.
        """
        for path in self.kept():
            if _step_of(path) > step:
                path.unlink()
        if self.log.exists():
            with staged_file(self.log) as staging:
                lines = self.log.read_text("utf8", "replace").splitlines(keepends=True)
                staging.write_text("".join(line for line in lines if _is_of(line, step)), "utf8")

    def keep(self, model: LiteTransformer, step: int, count: int) -> None:
        """Keep this update's weights for the average, and only the last ``count`` such files."""
        folder = self.folder / "checkpoints"
        folder.mkdir(parents=True, exist_ok=True)
        with staged_file(folder / f"step-{step:08d}.safetensors") as staging:
            write_weights(staging, unique_weights(model))
        for old in self.kept()[:-count]:
            old.unlink()

    def kept(self) -> list[Path]:
        """Checkpoints for the average, oldest first."""
        return sorted((self.folder / "checkpoints").glob("step-*.safetensors"))

    def append_log(self, entry: dict[str, Any]) -> None:
        """Add one line to the run's curve."""
        with self.log.open("a") as log:
            log.write(json.dumps(entry) + "\n")


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.stem.removeprefix("step-"))


def _is_of(line: str, step: int) -> bool:
    """Whether a line of the log is whole, and of an update up to ``step``: a kill may cut one short."""
    try:
        return line.endswith("\n") and json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError):
        return False
