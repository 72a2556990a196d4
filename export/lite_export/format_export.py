"""Exporting a model to its formats side by side: one task per backend and recipe, each in a process of its own.

1. group recipes into tasks  2. run them: here where there is one, else in as many processes as there are cores
3. return the manifest's entries in the order asked for
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import active_children, get_context
from pathlib import Path
from signal import SIG_IGN, SIGINT, signal
from typing import TYPE_CHECKING, cast

from lite_export.loading import limits, load_model_card, token_ids
from lite_export.recipes import Recipe
from lite_runtime.bundle import sha256_of
from lite_runtime.manifest import FileEntry, FormatEntry, Graph, StateTensor
from lite_transformer.checkpoint import TOKENIZER, load_model

if TYPE_CHECKING:
    from lite_export.coreml_precision import Precision as CoreMlPrecision
    from lite_transformer.model import LiteTransformer

Report = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """Recipes of one format that share work, the model folder to load, and the folder of the whole bundle.

    ``extras`` are ``recipes.EXTRAS``: further files for ONNX. The bundle's tokenizer is in place already.
    """

    model_folder: Path
    bundle: Path
    recipes: tuple[Recipe, ...]
    extras: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return self.bundle / self.recipes[0].format

    def __str__(self) -> str:
        return f"{self.recipes[0].format} " + ", ".join(r.name for r in self.recipes)


def tasks(model_folder: Path, bundle: Path, recipes: Sequence[Recipe], extras: Sequence[str] = ()) -> list[Task]:
    """One task for all that shares a trace: a format's precisions, in ExecuTorch for one kind of cache."""
    groups: dict[tuple[str, str], list[Recipe]] = {}
    for recipe in recipes:
        groups.setdefault((recipe.format, recipe.cache if recipe.format == "executorch" else ""), []).append(recipe)
    return [Task(model_folder, bundle, tuple(group), tuple(extras)) for group in groups.values()]


@contextmanager
def exporting(work: Sequence[Task], report: Report) -> Iterator[Callable[[], list[FormatEntry]]]:
    """Start the tasks; the function given back waits for them and returns what they made.

    One task alone waits until it is asked for: no process is started for it.

    Raises:
        ExportError: a format cannot take the model, or its package is not installed.
        OSError: the folder cannot be written.
    """
    workers = min(len(work), os.cpu_count() or 1)
    if workers == 1:
        yield lambda: [entry for task in work for entry in _reported(task, report)]
        return
    others = set(active_children())
    # Fresh processes: a fork would copy PyTorch's threads in whatever state they are. Ctrl-C is this one's to handle.
    with ProcessPoolExecutor(workers, get_context("spawn"), signal, (SIGINT, SIG_IGN)) as pool:
        futures = {pool.submit(run, task): task for task in work}
        report(f"exporting {len(work)} parts, {workers} at a time: {'; '.join(map(str, work))}")
        try:
            yield lambda: _gathered(futures, report)
        except BaseException:
            # What they write is thrown away: nobody should wait a minute for it.
            for process in set(active_children()) - others:
                process.terminate()
            raise


def _reported(task: Task, report: Report) -> tuple[FormatEntry, ...]:
    report(f"exporting {task}")
    return run(task)


def _gathered(futures: dict[Future[tuple[FormatEntry, ...]], Task], report: Report) -> list[FormatEntry]:
    entries: list[FormatEntry] = []
    for number, future in enumerate(as_completed(futures), 1):
        entries += future.result()
        report(f"exported {futures[future]} ({number} of {len(futures)})")
    return entries


def run(task: Task) -> tuple[FormatEntry, ...]:
    """Export one task's recipes into its folder."""
    model = load_model(task.model_folder)
    task.folder.mkdir(parents=True, exist_ok=True)
    return _EXPORTERS[task.recipes[0].format](model, task)


def _onnx(model: LiteTransformer, task: Task) -> tuple[FormatEntry, ...]:
    from lite_export.graphs import state_specs
    from lite_export.onnx_export import export_onnx

    exported = export_onnx(model, task.folder, [r.precision for r in task.recipes])
    specs = state_specs(model.config)
    entries = []
    for recipe in task.recipes:
        extras = _onnx_extras(model, task, recipe)
        entry = _entry(task, recipe, *exported[recipe.precision], specs)
        entries.append(entry.model_copy(update={"extras": extras}))
    return tuple(entries)


def _onnx_extras(model: LiteTransformer, task: Task, recipe: Recipe) -> dict[str, Graph]:
    """Graphs made from encode and step: a whole translation as one call, and what was asked for besides."""
    from lite_export.graphs import state_specs
    from lite_export.onnx_ort import to_ort
    from lite_export.onnx_text import add_translate_text
    from lite_export.onnx_translate import add_translate

    card, folder = load_model_card(task.model_folder), task.folder / recipe.precision
    tokens, most = token_ids(model.config), limits(model.config)
    extras = {"translate": add_translate(folder, state_specs(model.config), tokens, most, card.decoding)}
    if "text" in task.extras:
        tokenizer = task.bundle / TOKENIZER
        extras["translate_text"] = add_translate_text(folder, tokenizer, card.text, tokens, most, card.decoding)
    if "ort" in task.extras:
        to_ort(folder)
    return {name: _placed(graph, f"{recipe.format}/{recipe.precision}") for name, graph in extras.items()}


def _executorch(model: LiteTransformer, task: Task) -> tuple[FormatEntry, ...]:
    from lite_export.executorch_delegation import delegation
    from lite_export.executorch_export import export_executorch

    paths = {recipe.precision: task.folder / f"{recipe.name}.pte" for recipe in task.recipes}
    made = export_executorch(model, paths, task.recipes[0].cache)
    entries = []
    for recipe in task.recipes:
        entry = _entry(task, recipe, *made[recipe.precision])
        notes = tuple(map(str, delegation(paths[recipe.precision])))
        entries.append(entry.model_copy(update={"notes": notes}))
    return tuple(entries)


def _coreml(model: LiteTransformer, task: Task) -> tuple[FormatEntry, ...]:
    from lite_export.coreml_export import CoreMlExporter, PackageCard

    card = load_model_card(task.model_folder)
    exporter = CoreMlExporter(
        model,
        PackageCard(
            author=f"lite-export {version('lite-export')}",
            licence=card.licence,
            description=f"{card.task} {card.source_language}-{card.target_language}: {card.model_id}",
            version=version("lite-export"),
        ),
    )
    return tuple(
        _entry(task, recipe, *exporter.write(task.folder, cast("CoreMlPrecision", recipe.precision), recipe.cache))
        for recipe in task.recipes
    )


_EXPORTERS = {"onnx": _onnx, "executorch": _executorch, "coreml": _coreml}


def _entry(task: Task, recipe: Recipe, encode: Graph, step: Graph, state: tuple[StateTensor, ...]) -> FormatEntry:
    """The manifest's entry; graphs name their files relative to the format's folder."""
    top = {Path(graph.file).parts[0] for graph in (encode, step)}
    paths = [p for p in sorted(task.folder.rglob("*")) if p.is_file() and p.relative_to(task.folder).parts[0] in top]
    return FormatEntry(
        format=recipe.format,
        precision=recipe.precision,
        cache=recipe.cache,
        files=file_entries(task.bundle, paths),
        encode=_placed(encode, recipe.format),
        step=_placed(step, recipe.format),
        state=state,
    )


def _placed(graph: Graph, folder: str) -> Graph:
    return graph.model_copy(update={"file": f"{folder}/{graph.file}"})


def file_entries(root: Path, paths: Sequence[Path]) -> tuple[FileEntry, ...]:
    """Files of a bundle as its manifest lists them."""
    return tuple(
        FileEntry(path=p.relative_to(root).as_posix(), sha256=sha256_of(p), bytes=p.stat().st_size) for p in paths
    )
