"""The four kinds of address that a probe passes through; mixing them up is the classic defect of this field.

A symbol has a ``Vaddr`` (what the ELF file says), the kernel wants a ``FileOffset``, a process executes at an ``Address``,
and ``LoadBias`` is the difference between the last and the first of them in one process.
"""

from __future__ import annotations

from typing import NewType

Vaddr = NewType("Vaddr", int)
"""Link-time virtual address, as symbols and program headers of an ELF file give it."""

FileOffset = NewType("FileOffset", int)
"""Byte position in the file on disk; what uprobes are attached to."""

Address = NewType("Address", int)
"""Virtual address in one running process."""

LoadBias = NewType("LoadBias", int)
"""``Address - Vaddr`` of one module in one process."""
