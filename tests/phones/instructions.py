"""Which instructions an emulated processor met: qemu's log of translated code, read with the cross binutils."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from phones.cache import run

# Set for a program under qemu: it writes every block of code it translates, that is, all that was run.
LOG = "instructions.log"
LOGGING = {"QEMU_LOG": "in_asm", "QEMU_LOG_FILENAME": LOG}
# address: machine word, then a mnemonic where qemu's own disassembler knows one.
_LINE = re.compile(r"^0x[0-9a-f]+:\s+([0-9a-f]{8})\s+(\S+)", re.MULTILINE)


def mnemonics(log: Path) -> set[str]:
    """What the log holds, as ARM's manual names it."""
    met = set(_LINE.findall(log.read_text(errors="replace")))
    unknown = [word for word, name in met if name == ".byte"]
    return {name for _, name in met if name != ".byte"} | (_disassembled(unknown) if unknown else set())


def _disassembled(words: Iterable[str]) -> set[str]:
    with TemporaryDirectory() as temporary:
        code = Path(temporary) / "code"
        code.write_bytes(b"".join(int(word, 16).to_bytes(4, "little") for word in words))
        said = run("aarch64-linux-gnu-objdump", "-D", "-b", "binary", "-m", "aarch64", "-M", "no-aliases", code)
    # offset: word, mnemonic, operands, with tabs.
    return {line.split("\t")[2] for line in said.splitlines() if line.count("\t") >= 2}
