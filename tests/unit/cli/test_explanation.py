"""What ``debug info`` prints: each image once, with its hosts."""

from __future__ import annotations

from coral.cli.explanation import explanation_document, picture
from coral.wire._generated.colony.v1 import inspect_pb2
from coral.wire._generated.mesh.v1 import inspect_pb2 as mesh


def explanation(image_id: str, instances: int, **fields: object) -> mesh.Explanation:
    """Of ``work`` in one image."""
    message = mesh.Explanation(
        image=mesh.Image(image_id=image_id, path=f"/usr/bin/{image_id}", instances=instances, language="go"),
        name="main.work",
        probeable="yes",
        language="go",
        method="ret_sites",
        pairing="go",
        symbol_sources=[".symtab"],
        addresses=[mesh.FunctionAddress(vaddr=0x401000, file_offset=0x1000, size_bytes=64, symbol="main.work")],
        sites=[
            mesh.ProbeSite(offset=0x100A, vaddr=0x40100A, kind="entry", instruction="push rbp", emulated=True, reason="push"),
            mesh.ProbeSite(offset=0x103F, vaddr=0x40103F, kind="return", instruction="ret", reason="a return"),
        ],
        cost=mesh.CostForecast(lowest_ns=5_700, highest_ns=5_700),
    )
    for name, value in fields.items():
        setattr(message, name, value)
    return message


def host(agent_id: str, *explanations: mesh.Explanation) -> inspect_pb2.HostExplanation:
    """What one host says."""
    cost = mesh.TrapCost(emulated_ns=950, stepped_ns=4_300, pairing_ns=450)
    return inspect_pb2.HostExplanation(agent_id=agent_id, explanations=explanations, trap_cost=cost)


def test_each_image_once_with_its_hosts() -> None:
    """An image that two hosts run is one, with both; one that only the second runs comes after it."""
    answer = inspect_pb2.ExplainFunctionResponse(
        hosts=[host("a", explanation("one", 2)), host("b", explanation("one", 1), explanation("two", 3))]
    )
    answer.hosts[1].skipped.add(path="/usr/bin/sh", instances=1, reason="It has no such function.")
    document = explanation_document("checkout", "work", answer)
    hosts = [
        (image["image_id"], [(each["agent_id"], each["instances"]) for each in image["hosts"]])
        for image in document["images"]
    ]
    assert hosts == [("one", [("a", 2), ("b", 1)]), ("two", [("b", 3)])]
    assert document["images"][0]["hosts"][0] == {
        "agent_id": "a",
        "instances": 2,
        "call_cost_ns": {"lowest": 5_700, "highest": 5_700},
        "trap_cost_ns": {"emulated": 950, "stepped": 4_300, "pairing": 450},
        "cost_unavailable": "",
    }
    assert document["skipped"] == [
        {"agent_id": "b", "path": "/usr/bin/sh", "instances": 1, "reason": "It has no such function."}
    ]


def test_the_whole_picture() -> None:
    """What a person reads of a function that can be probed."""
    answer = inspect_pb2.ExplainFunctionResponse(hosts=[host("a", explanation("one", 1))])
    assert list(picture(explanation_document("checkout", "work", answer))) == [
        "main.work",
        "  probeable  yes",
        "  image      /usr/bin/one  one",
        "  language   go",
        "  symbols    .symtab",
        "  at         0x401000 (file 0x1000), 64 bytes: main.work",
        "  method     entries, and returns at every instruction that ends a call; paired by goroutine and depth of its stack",
        "  entry      0x40100a (file 0x100a)  push rbp  emulated  push",
        "  return     0x40103f (file 0x103f)  ret       stepped   a return",
        "  on         a: 1 process",
        "  cost       5.70 µs of CPU time for each call, as a forecast",
        "             measured there: 950 ns for an emulated instruction, 4.30 µs for one that is stepped over, "
        "450 ns more at an exit",
    ]


def test_why_not() -> None:
    """A refused function has its reason and the next step, and no cost."""
    refused = explanation("one", 1, probeable="no", reason="never returns", hint="Name a caller.", method="", pairing="")
    del refused.sites[:]
    refused.ClearField("cost")
    answer = inspect_pb2.ExplainFunctionResponse(hosts=[host("a", refused)])
    lines = list(picture(explanation_document("checkout", "work", answer)))
    assert lines[1:3] == ["  probeable  no: never returns", "  next step  Name a caller."]
    assert "  method     nothing would be attached" in lines
    assert lines[-1] == "  on         a: 1 process"


def test_a_cost_that_could_not_be_measured() -> None:
    """Then the reason stands where the figure would."""
    there = host("a", explanation("one", 1))
    there.explanations[0].ClearField("cost")
    there.trap_cost.CopyFrom(mesh.TrapCost(unavailable="All 64 probes of this host are in use."))
    document = explanation_document("checkout", "work", inspect_pb2.ExplainFunctionResponse(hosts=[there]))
    assert document["images"][0]["hosts"][0]["trap_cost_ns"] is None
    assert list(picture(document))[-1] == "  cost       not known: All 64 probes of this host are in use."
