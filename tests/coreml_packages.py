"""What Core ML packages should hold, and what they do: for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lite_export.coreml_precision import BLOCK, PALETTE_ROWS, Precision
from lite_runtime.quiet_coremltools import coremltools
from lite_transformer.config import ModelConfig, StackConfig

Form = tuple[Precision, str]


def wide_config() -> ModelConfig:
    """Matrices that blocks divide, and a table that outweighs what files say of themselves."""
    stack = StackConfig(
        kernels=(5,),
        attention_width=32,
        attention_heads=2,
        ffn_width=96,
        convolution="lightweight",
        convolution_heads=4,
    )
    return ModelConfig(
        width=64,
        source_vocab=8000,
        target_vocab=8000,
        encoder=stack,
        decoder=stack.model_copy(update={"kernels": (7, 3), "cross_heads": 2}),
        max_source=21,
        max_target=12,
    )


def blobs(path: Path) -> int:
    return (path / "Data/com.apple.CoreML/weights/weight.bin").stat().st_size


def weights(*graphs: torch.nn.Module) -> list[torch.Tensor]:
    """The graphs' tensors; equal ones, shared or not, once."""
    tensors = [tensor for graph in graphs for tensor in (*graph.parameters(), *graph.buffers())]
    return list({(t.shape, t.detach().numpy().tobytes()): t for t in tensors}.values())


def stored(tensors: list[torch.Tensor], form: Form, vocabulary: int) -> float:
    """Bytes they take: matrices and the table compressed, with their scales or palettes, the rest as it is."""
    precision, cache = form
    plain, total = (4 if precision == "fp32" else 2), 0.0
    for tensor in tensors:
        rows = len(tensor)
        is_matrix = tensor.requires_grad and tensor.dim() == 2
        if not is_matrix or precision in ("fp32", "fp16"):
            total += plain * tensor.numel()
        elif precision == "int8" or rows == vocabulary:
            # iOS 16 stores a zero point beside each scale.
            total += tensor.numel() + (3 if cache == "explicit" else 2) * rows
        elif precision == "int4":
            total += tensor.numel() / 2 + 2 * tensor.numel() / BLOCK
        else:
            total += tensor.numel() / 2 + 2 * 16 * rows / PALETTE_ROWS
    return total


def specification(folder: Path, file: str) -> Any:
    return coremltools("models.utils").load_spec(str(folder / file))


def operations(content: Any, function: str) -> list[Any]:
    (block,) = content.mlProgram.functions[function].block_specializations.values()
    return list(block.operations)
