"""Opening a bundle: read its manifest, prove its files, hand out sessions, tokenizer and translator."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lite_runtime.manifest import SCHEMA_VERSION, FileEntry, FormatEntry, Manifest
from lite_runtime.session import Session
from lite_runtime.tokenizer import SentencePieceTokenizer
from lite_runtime.translator import Translator

if TYPE_CHECKING:
    from lite_runtime.onnx_translate import OneGraph

MANIFEST = "manifest.json"


class BundleError(ValueError):
    """A bundle cannot be used; the message names the file and the way out."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle; see ``open_bundle``."""

    folder: Path
    manifest: Manifest

    def format(self, name: str | None = None, precision: str | None = None, cache: str | None = None) -> FormatEntry:
        """The first format of that name, precision and kind of cache (of any, where None).

        Raises:
            BundleError: with what there is, where there is none such.
        """
        found = self.formats(name, precision, cache)
        if found:
            return found[0]
        wanted = " ".join(filter(None, (name, precision, cache))) or "format"
        there = ", ".join(f"{e.format} {e.precision} {e.cache}" for e in self.manifest.formats) or "none"
        raise BundleError(f"{self.folder} has no {wanted}; it has: {there}")

    def formats(
        self, name: str | None = None, precision: str | None = None, cache: str | None = None
    ) -> tuple[FormatEntry, ...]:
        """All formats of that name, precision and kind of cache."""
        wanted = {"format": name, "precision": precision, "cache": cache}
        return tuple(
            entry
            for entry in self.manifest.formats
            if all(value in (None, getattr(entry, key)) for key, value in wanted.items())
        )

    def session(
        self,
        name: str | None = None,
        precision: str | None = None,
        cache: str | None = None,
        threads: int | None = None,
    ) -> Session:
        """The model of one format, loaded. Raises what ``format`` and ``session_of`` raise."""
        return self.session_of(self.format(name, precision, cache), threads)

    def session_of(self, entry: FormatEntry, threads: int | None = None) -> Session:
        """One of the bundle's formats, loaded.

        Args:
            threads: CPU threads; None leaves it to the runtime.

        Raises:
            BundleError: its runtime is not installed, or refuses a file.
        """
        # Imported late: a runtime takes a while to import, and each is an extra.
        if entry.format == "onnx":
            from lite_runtime.onnx_session import OnnxSession

            return OnnxSession(self.folder, entry, threads)
        if entry.format == "executorch":
            from lite_runtime.executorch_session import executorch_session

            return executorch_session(self.folder, entry, threads)
        from lite_runtime.coreml_session import coreml_session

        return coreml_session(self.folder, entry)

    def one_graph(self, entry: FormatEntry, threads: int | None = None) -> OneGraph:
        """The graph of an onnx format that holds the whole search.

        Raises:
            BundleError: the format has none, or ONNX Runtime is not installed or refuses it.
        """
        from lite_runtime.onnx_translate import OneGraph

        if "translate" not in entry.extras:
            raise BundleError(f"{entry.name} of {self.folder} has no translate graph: export it again")
        path = self.folder / entry.extras["translate"].file
        return OneGraph(path, self.manifest.tokens, self.manifest.limits, threads)

    def tokenizer(self) -> SentencePieceTokenizer:
        """The bundle's tokenizer.

        Raises:
            TokenizerError: its file is damaged or belongs to another model.
        """
        text = self.manifest.text
        return SentencePieceTokenizer(self.folder / text.tokenizer, self.manifest.tokens, text.replacements)

    def translator(
        self, name: str | None = None, precision: str | None = None, threads: int | None = None
    ) -> Translator:
        """Session and tokenizer joined, with the bundle's decoding defaults. Raises what they raise."""
        return self.translator_of(self.session(name, precision, threads=threads))

    def translator_of(self, session: Session) -> Translator:
        """Text to text with one of the bundle's sessions."""
        manifest = self.manifest
        return Translator(session, self.tokenizer(), manifest.tokens, manifest.limits, manifest.decoding)


def open_bundle(folder: Path, verify: bool = True) -> Bundle:
    """Read a bundle's manifest and check its files.

    Args:
        verify: hash every file; without it they need only exist with their size.

    Raises:
        BundleError: no folder, no manifest or an invalid one, another schema version, a path that leaves the
            folder, or a file that is missing or differs from its size or sha256.
    """
    manifest = _read(folder)
    listed = {entry.path for entry in _files(manifest)}
    # A Core ML package is a folder: its files are listed, and the graph names the folder.
    known = listed | {parent.as_posix() for path in listed for parent in PurePosixPath(path).parents}
    for path in (*listed, *_used(manifest)):
        _check_inside(path)
        if path not in known:
            raise BundleError(f"{MANIFEST} uses {path} but does not list it among its files: export again")
    for entry in _files(manifest):
        _check_file(folder, entry, verify)
    return Bundle(folder, manifest)


def _read(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not folder.is_dir():
        raise BundleError(f"no bundle at {folder}: no such folder")
    if not path.is_file():
        raise BundleError(f"{folder} is no bundle: it has no {MANIFEST}")
    try:
        content = json.loads(path.read_text("utf8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"cannot read {path}: {error}") from None
    _check_version(path, content)
    try:
        # In JSON mode, as lists must pass for the manifest's tuples.
        return Manifest.model_validate_json(json.dumps(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise BundleError(f"{path} is not a valid manifest: {where}: {first['msg']}") from None


def _check_version(path: Path, content: Any) -> None:
    if not isinstance(content, dict) or "schema_version" not in content:
        raise BundleError(f"{path} is no bundle manifest: it has no schema_version")
    if (version := content["schema_version"]) != SCHEMA_VERSION:
        raise BundleError(
            f"{path}: bundle has schema {version}, this version reads {SCHEMA_VERSION}:"
            " upgrade lite-export or export again"
        )


def _files(manifest: Manifest) -> Iterator[FileEntry]:
    yield from manifest.files
    for entry in manifest.formats:
        yield from entry.files


def _used(manifest: Manifest) -> Iterator[str]:
    """Paths that are opened without an entry of their own."""
    yield from (manifest.text.tokenizer, manifest.golden.sentences, manifest.golden.steps)
    for entry in manifest.formats:
        yield from (graph.file for graph in (entry.encode, entry.step, *entry.extras.values()))


def _check_inside(path: str) -> None:
    # The drive and backslashes matter where the bundle is opened on Windows.
    windows = PureWindowsPath(path)
    if windows.drive or windows.root or ".." in windows.parts or PurePosixPath(path).is_absolute():
        raise BundleError(f"{MANIFEST} names {path}, which is outside the bundle: do not use this bundle")


def _check_file(folder: Path, entry: FileEntry, verify: bool) -> None:
    path = folder / entry.path
    if not path.is_file():
        raise BundleError(f"the bundle's {entry.path} is missing: copy it again")
    if (size := path.stat().st_size) != entry.bytes:
        raise BundleError(f"the bundle's {entry.path} has {size} bytes instead of {entry.bytes}: copy it again")
    if verify and sha256_of(path) != entry.sha256:
        raise BundleError(f"the bundle's {entry.path} is damaged (its sha256 differs): copy it again")


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file.

    Raises:
        BundleError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror}") from None
    return digest.hexdigest()
