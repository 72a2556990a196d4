"""``lite-export build-runner``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lite_export.cli.console import stage
from lite_export.cli.options import examples

EXAMPLES = examples(
    "lite-export build-runner",
    "lite-export build-runner --target linux-arm64 --output runners/phone",
    "lite-export build-runner --target linux-arm64 --sentencepiece ~/sentencepiece-arm64",
    "lite-export build-runner --target android-arm64 --ndk ~/Android/Sdk/ndk/27.2.12479018",
)


def build_runner(
    target: Annotated[
        str | None,
        typer.Option(help="linux-x86_64, linux-arm64 or android-arm64; default: this computer.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write; default: one in the user's cache.", show_default=False),
    ] = None,
    ndk: Annotated[
        Path | None,
        typer.Option(help="Android's NDK, for android-arm64; default: $ANDROID_NDK_HOME.", show_default=False),
    ] = None,
    sentencepiece: Annotated[
        Path | None,
        typer.Option(
            help="Folder with include/ and lib/ of the target's SentencePiece, to translate text; default: the one it"
            " was built with before, or this computer's own (apt install libsentencepiece-dev).",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Build the native runner: a program that runs, checks and times bundles where there is no Python.

    The folder holds all it needs. linux-arm64 brings its own C library, so that it also starts from adb shell on a
    phone without an NDK at hand; that is experimental, as no phone has been seen to run it. Needs CMake and a C++
    compiler.
    """
    from lite_runtime import runner_build

    chosen = target or runner_build.default_target()
    place = output or runner_build.default_output(chosen)
    with stage("looking for what it is built from") as report:
        built = runner_build.build_runner(chosen, place, report, ndk, sentencepiece)
    print(f"runner: {built.folder}")
    reads = "token ids and text" if built.note.text else "token ids only"
    print(f"for {chosen} ({built.abi}), runs {' and '.join(built.note.formats)}, reads {reads}")
    if chosen == "linux-arm64":
        print("on a phone this one is experimental: it was run by adb on emulated phones only")
