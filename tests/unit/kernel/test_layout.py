"""The structures that Python and the probe programs share."""

from pathlib import Path

import numpy as np
import pytest
from support.btf import struct_layouts

import coral.kernel
from coral.events.record import RECORD
from coral.kernel import layout

OBJECT = Path(coral.kernel.__file__).parent / "probe.bpf.o"


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("slot", layout.SLOT),
        ("counters", layout.COUNTERS),
        ("call_key", layout.CALL_KEY),
        ("call", layout.CALL),
        ("member_key", layout.MEMBER_KEY),
        ("member", layout.MEMBER),
        ("state", layout.STATE),
        ("control", layout.CONTROL),
        ("record", RECORD),
    ],
)
def test_layout_is_that_of_the_compiled_object(name: str, dtype: np.dtype) -> None:
    """Each numpy structure has the size, the fields and the offsets that the object's BTF gives its namesake."""
    fields = dtype.fields or {}
    assert struct_layouts(OBJECT)[name] == (dtype.itemsize, {field: offset for field, (_, offset, *_) in fields.items()})
