"""The wire contract's guard: additions pass, everything else is named."""

from pathlib import Path

import check_wire
import pytest

PROTO = """
syntax = "proto3";
package shop;
service Till { rpc Pay(Bill) returns (stream Bill); }
message Bill {
  int64 cents = 1;
  repeated string items = 2;
  map<string, Tax> taxes = 3;
  optional bool paid = 4;
  oneof by { string card = 5; }
  message Tax { Kind kind = 1; }
  enum Kind { NONE = 0; }
}
"""


def contract_of(folder: Path, proto: str) -> check_wire.Contract:
    """The contract of one .proto file with the given text."""
    folder.mkdir(exist_ok=True)
    (folder / "shop.proto").write_text(proto)
    return check_wire.read_contract(folder)


def test_contract_says_number_type_label_and_oneof(tmp_path: Path) -> None:
    """Every field, enum value and RPC is read with all that a peer relies on."""
    assert contract_of(tmp_path, PROTO) == {
        "messages": {
            "shop.Bill": {
                "1": "int64 cents",
                "2": "repeated string items",
                "3": "map<string, shop.Bill.Tax> taxes",
                "4": "optional bool paid",
                "5": "string card in oneof by",
            },
            "shop.Bill.Tax": {"1": "shop.Bill.Kind kind"},
        },
        "enums": {"shop.Bill.Kind": {"0": "NONE"}},
        "services": {"shop.Till": {"Pay": "shop.Bill -> stream shop.Bill"}},
    }


@pytest.mark.parametrize(
    ("before", "after", "sentences"),
    [
        ("int64 cents = 1", "int64 cents = 7", ["shop.Bill 1 was `int64 cents` and is gone"]),
        ("int64 cents = 1", "int64 pennies = 1", ["shop.Bill 1 was `int64 cents` and is now `int64 pennies`"]),
        ("int64 cents = 1", "int32 cents = 1", ["shop.Bill 1 was `int64 cents` and is now `int32 cents`"]),
        ("repeated string items", "string items", ["shop.Bill 2 was `repeated string items` and is now `string items`"]),
        ("optional bool paid", "bool paid", ["shop.Bill 4 was `optional bool paid` and is now `bool paid`"]),
        ("stream Bill", "Bill", ["shop.Till Pay was `shop.Bill -> stream shop.Bill` and is now `shop.Bill -> shop.Bill`"]),
        ("rpc Pay(Bill)", "rpc Charge(Bill)", ["shop.Till Pay was `shop.Bill -> stream shop.Bill` and is gone"]),
        ("service Till", "service Counter", ["shop.Till is gone"]),
        ("NONE = 0", "ZERO = 0", ["shop.Bill.Kind 0 was `NONE` and is now `ZERO`"]),
        ("int64 cents = 1;", "int64 cents = 1; string note = 100;", []),
        ("message Bill {", "message Receipt { Bill bill = 1; }\nmessage Bill {", []),
    ],
)
def test_changes_and_removals_break_additions_do_not(tmp_path: Path, before: str, after: str, sentences: list[str]) -> None:
    """A published number keeps its name, type and label, and an RPC its messages; new ones are welcome."""
    published = contract_of(tmp_path / "published", PROTO)
    current = contract_of(tmp_path / "current", PROTO.replace(before, after, 1))
    assert check_wire.breaks(published, current) == sentences
