"""x86-64 instructions as people read them."""

from __future__ import annotations

import capstone

from coral.model.addresses import Vaddr

_decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)


def text(code: bytes, vaddr: Vaddr) -> str:
    """The instruction that ``code`` begins with, in Intel's syntax; its bytes in hex if it does not decode.

    Args:
        code: Its bytes.
        vaddr: Where it is: targets are written as addresses.
    """
    for _, _, mnemonic, operands in _decoder.disasm_lite(code, vaddr, 1):
        return f"{mnemonic} {operands}".strip()
    return code.hex()
