"""The numbers that the wire promises, written down a second time, apart from proto/.

A table as users were given it: message, then ``name number`` pairs. The generated code must hold every one of them. Fields
below 100 of the first two groups are those of the system that the interface grew from, whose recordings must still decode.
"""

import pytest
from google.protobuf.descriptor import Descriptor

from coral.wire._generated.colony.v1 import debug_pb2, inspect_pb2, registry_pb2
from coral.wire._generated.mesh.v1 import ebpf_pb2
from coral.wire._generated.mesh.v1 import inspect_pb2 as mesh_inspect_pb2

MESH = """
StartUprobeCollectorRequest agent_id 1 service_name 2 function_name 3 duration 4 config 5 sdk_addr 6 session_id 100 \
filter 101 actor 102
UprobeConfig capture_args 1 capture_return 2 sample_rate 3 max_events 4 mode 100
UprobeFilter min_duration 1 max_duration 2 max_events_per_second 3 condition 100
StartUprobeCollectorResponse collector_id 1 expires_at 2 supported 3 error 4 instances 100
StopUprobeCollectorRequest collector_id 1
StopUprobeCollectorResponse success 1 error 2 ledger 100 last_sequence 101
QueryUprobeEventsRequest collector_id 1 start_time 2 end_time 3 max_events 4 page_token 100
QueryUprobeEventsResponse events 1 has_more 2 next_page_token 100
EbpfEvent timestamp 1 collector_id 2 agent_id 3 service_name 4 uprobe_event 30
UprobeEvent timestamp 1 collector_id 2 agent_id 3 service_name 4 function_name 5 event_type 6 duration_ns 7 pid 8 \
tid 9 args 10 return_value 11 labels 12 sequence 100
FunctionArgument name 1 type 2 value 3
FunctionReturnValue type 1 value 2 is_error 3 error_message 4
StreamUprobeEventsRequest collector_id 1 after_sequence 2
UprobeEventBatch arrow_ipc 1 first_sequence 2 last_sequence 3 ledger 4 instances 5 collector_id 6 final 7 status 8 \
reason_code 9
Ledger entered 1 returned 2 unreturned 3 open 4 no_return 5 too_deep 6 emitted 7 filtered 8 sampled_out 9 \
rate_limited 10 ring_lost 11 stored 12 queue_dropped 13 in_transit 14 orphan_returns 15 \
unknown_intervals 16 balanced 17 unseen 18
UnknownInterval from 1 to 2 cause 3
Instance pid 1 start_time_ns 2 executable 3 build_id 4 image_id 5 function_name 6 status 7 reason 8 method 9 sites 10 \
exit_status 11
Site offset 1 kind 2 reason 3
"""

COLONY = """
AttachUprobeRequest service_name 1 function_name 2 duration 3 config 4 agent_id 5 sdk_addr 6 filter 7 reason 100 \
accept_cost 101
AttachUprobeResponse session_id 1 expires_at 2 success 3 error 4
DetachUprobeRequest session_id 1
DetachUprobeResponse success 1 error 2
QueryUprobeEventsRequest session_id 1 start_time 2 end_time 3 max_events 4 page_token 100
QueryUprobeEventsResponse events 1 has_more 2 next_page_token 100 ledger 101
ListDebugSessionsRequest service_name 1 status 2 session_id 100 page_size 101 page_token 102
ListDebugSessionsResponse sessions 1 next_page_token 100
DebugSession session_id 1 service_name 2 function_name 3 agent_id 4 started_at 5 expires_at 6 status 7 requested_by 8 \
event_count 9 ledger 100 collectors 101 reason 102 ended_at 103 reason_code 104
Collector collector_id 1 agent_id 2 status 3 reason 4 ledger 5 instances 6
GetDebugResultsRequest session_id 1 format 2 service_name 3
GetDebugResultsResponse session_id 1 function 2 duration 3 statistics 4 slow_outliers 5 call_tree 6 ledger 100 \
histogram 101
DebugStatistics total_calls 1 duration_p50 2 duration_p95 3 duration_p99 4 duration_max 5 errors 100 \
calls_per_second 101 duration_min 102 duration_mean 103 duration_sum 104
SlowOutlier duration 1 timestamp 2 labels 3 event 100
FollowUprobeEventsRequest session_id 1 after 2
"""

REGISTRY = """
RegisterAgentRequest agent_id 1 address 2 version 3 hostname 4 boot_id 5 services 6 kernel 7 methods 8
RegisterAgentResponse epoch 1 heartbeat_ms 2
HeartbeatRequest agent_id 1 epoch 2 services 3 collectors 4
HeartbeatResponse register_again 1
ServiceInfo name 1 agent_id 2 instances 3 sdk_enabled 4 sdk_addr 5 sdk_version 6 rule 7
"""

MESH_INSPECT = """
ListImagesRequest service_name 1 library 2 all_libraries 3
ListImagesResponse images 1
Image image_id 1 build_id 2 path 3 library 4 language 5 language_version 6 instances 7 pid 8 error 9
ListFunctionsRequest service_name 1 image_id 2 pattern 3 offset 4 limit 5 budget_ms 6 library 7 spend_again 8
FunctionTable name 1 demangled 2 language 3 verdict 4 languages 5 verdicts 6
Verdict probeable 1 reason 2 exact 3
ListFunctionsResponse functions 1 matches 2 next_offset 3 undecided 4
ExplainFunctionRequest service_name 1 function_name 2
ExplainFunctionResponse explanations 1 skipped 2 trap_cost 3
Explanation image 1 name 2 probeable 3 reason 4 hint 5 language 6 method 7 pairing 8 addresses 9 sites 10 \
symbol_sources 11 cost 12 notes 13
FunctionAddress vaddr 1 file_offset 2 size_bytes 3 symbol 4 source_file 5 also_named 6
ProbeSite offset 1 kind 2 reason 3 vaddr 4 instruction 5 emulated 6 to 7 conditional 8
TrapCost emulated_ns 1 stepped_ns 2 pairing_ns 3 unavailable 4
CostForecast lowest_ns 1 highest_ns 2
"""

INSPECT = """
ListFunctionsRequest service_name 1 pattern 2 library 3 all_libraries 4 page_size 5 page_token 6 budget_ms 7 spend_again 8
ListFunctionsResponse images 1 next_page_token 2 warnings 3
ImageFunctions image 1 agent_ids 2 functions 3 matches 4 undecided 5
ExplainFunctionRequest service_name 1 function_name 2
ExplainFunctionResponse hosts 1 warnings 2
HostExplanation agent_id 1 explanations 2 skipped 3 trap_cost 4
"""

SERVICES = [
    (ebpf_pb2, "coral.mesh.v1.DebugService", "StartUprobeCollector StopUprobeCollector QueryUprobeEvents StreamUprobeEvents"),
    (
        debug_pb2,
        "coral.colony.v1.DebugService",
        "AttachUprobe DetachUprobe QueryUprobeEvents ListDebugSessions GetDebugResults UpdateProbeFilter FollowUprobeEvents",
    ),
    (registry_pb2, "coral.colony.v1.RegistryService", "RegisterAgent Heartbeat ListAgents ListServices"),
    (inspect_pb2, "coral.colony.v1.InspectService", "QueryDatabase ListFunctions ExplainFunction"),
    (mesh_inspect_pb2, "coral.mesh.v1.InspectService", "ListImages ListFunctions ExplainFunction"),
]

TYPES = """
mesh.StartUprobeCollectorRequest.duration google.protobuf.Duration
mesh.StartUprobeCollectorResponse.expires_at google.protobuf.Timestamp
mesh.UprobeConfig.capture_args bool
mesh.UprobeConfig.sample_rate uint32
mesh.UprobeConfig.max_events uint32
mesh.UprobeFilter.max_events_per_second uint32
mesh.QueryUprobeEventsRequest.max_events int32
mesh.QueryUprobeEventsResponse.events repeated coral.mesh.v1.EbpfEvent
mesh.UprobeEvent.timestamp google.protobuf.Timestamp
mesh.UprobeEvent.duration_ns uint64
mesh.UprobeEvent.pid int32
mesh.UprobeEvent.tid int32
mesh.UprobeEvent.args repeated coral.mesh.v1.FunctionArgument
mesh.UprobeEvent.labels repeated coral.mesh.v1.UprobeEvent.LabelsEntry
mesh.UprobeEvent.sequence uint64
mesh.UprobeEventBatch.arrow_ipc bytes
mesh.UprobeEventBatch.final bool
mesh.Ledger.entered uint64
mesh.Ledger.unseen uint64
mesh.Ledger.balanced bool
colony.AttachUprobeRequest.filter coral.mesh.v1.UprobeFilter
colony.QueryUprobeEventsResponse.events repeated coral.mesh.v1.UprobeEvent
colony.DebugSession.event_count int32
colony.DebugStatistics.total_calls int64
"""

PACKAGES = {"mesh": ebpf_pb2, "colony": debug_pb2}


def rows(table: str) -> list[tuple[str, dict[str, int]]]:
    """The table's lines as (message, fields)."""
    parsed = []
    for line in table.strip().splitlines():
        message, *words = line.split()
        parsed.append((message, dict(zip(words[::2], map(int, words[1::2]), strict=True))))
    return parsed


PINNED = [
    pytest.param(module.DESCRIPTOR.message_types_by_name[message], fields, id=f"{module.DESCRIPTOR.package}.{message}")
    for module, table in (
        (ebpf_pb2, MESH),
        (debug_pb2, COLONY),
        (registry_pb2, REGISTRY),
        (mesh_inspect_pb2, MESH_INSPECT),
        (inspect_pb2, INSPECT),
    )
    for message, fields in rows(table)
]


@pytest.mark.parametrize(("descriptor", "fields"), PINNED)
def test_message_keeps_its_names_and_numbers(descriptor: Descriptor, fields: dict[str, int]) -> None:
    """Each promised field has its promised number; fields beyond those are additions."""
    actual = {field.name: field.number for field in descriptor.fields}
    assert {name: actual.get(name) for name in fields} == fields


@pytest.mark.parametrize(("module", "name", "rpcs"), SERVICES, ids=[name for _, name, _ in SERVICES])
def test_service_offers_the_promised_calls(module: object, name: str, rpcs: str) -> None:
    """Each service has its full name and its RPCs."""
    service = module.DESCRIPTOR.services_by_name[name.rpartition(".")[2]]  # type: ignore[attr-defined]
    assert service.full_name == name
    assert set(rpcs.split()) <= set(service.methods_by_name)


@pytest.mark.parametrize("line", TYPES.strip().splitlines())
def test_field_keeps_its_type(line: str) -> None:
    """The types that the promise spells out."""
    where, *expected = line.split()
    package, message, name = where.split(".")
    field = PACKAGES[package].DESCRIPTOR.message_types_by_name[message].fields_by_name[name]
    types = {
        number: text.removeprefix("TYPE_").lower() for text, number in vars(type(field)).items() if text.startswith("TYPE_")
    }
    kind = field.message_type.full_name if field.message_type else types[field.type]
    assert ([] if not field.is_repeated else ["repeated"]) + [kind] == expected


def test_open_no_return_too_deep_and_balanced_can_be_absent() -> None:
    """A count that is not known is absent on the wire, not zero."""
    ledger = ebpf_pb2.Ledger.DESCRIPTOR
    assert [field.name for field in ledger.fields if field.has_presence and field.message_type is None] == [
        "open",
        "no_return",
        "too_deep",
        "balanced",
    ]


def test_streams() -> None:
    """The two streams flow from the server, everything else is unary."""
    streaming = [
        method.full_name
        for module, name, _ in SERVICES
        for method in module.DESCRIPTOR.services_by_name[name.rpartition(".")[2]].methods
        if method.server_streaming or method.client_streaming
    ]
    assert streaming == ["coral.mesh.v1.DebugService.StreamUprobeEvents", "coral.colony.v1.DebugService.FollowUprobeEvents"]
