"""A log as OpenTelemetry spans: an OTLP/JSON `ExportTraceServiceRequest` on each line.

That is the format of OTLP files, which the collector's file exporter writes and its `otlpjsonfile`
receiver reads. A flow run is a trace, whose id is the flow run's own; each of its submissions is a
root span, each state of one a span below it, and each record an event of the state it came in.

In OTLP/JSON ids are hexadecimal (not base64 as elsewhere in JSON made from protobuf), 64-bit
numbers are strings, and enums are numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final
from uuid import UUID

import attrs
import orjson

from events.log import Record
from replay.export.lives import Life, Span, lives
from replay.fields import fields_in
from replay.selection import Selection
from replay.summary import outcome, went_wrong

KIND_INTERNAL: Final = 1
KIND_CONSUMER: Final = 5
"""Of a submission: it was taken from a queue."""

STATUS_ERROR: Final = 2

SUBMISSIONS_IN_A_REQUEST: Final = 500
BYTES_IN_A_REQUEST: Final = 512 * 1024
"""About: few enough for readers that take a line at a time into memory."""

EVENTS_IN_A_SPAN: Final = 1000
"""What a submission that waited for a week has more of is counted, and not written."""


def write_otlp(selection: Selection, out: BinaryIO) -> None:
    """Write all spans, a request for some hundred submissions on each line."""
    batch = _Batch(selection)
    for life in lives(selection):
        began = life.timeline.began
        start = selection.agents.at(began.position) if began else None
        who = (start.notice.hostname, start.notice.version) if start else ("", "")
        for line in batch.add(who, spans_of(life)):
            out.write(line)
    for line in batch.rest():
        out.write(line)


@attrs.define
class _Batch:
    """Spans on their way into a request, by the agent that began the submissions."""

    selection: Selection
    _spans: dict[tuple[str, str], list[orjson.Fragment]] = attrs.field(factory=dict)
    _submissions: int = 0
    _bytes: int = 0

    def add(self, who: tuple[str, str], spans: Iterator[dict[str, Any]]) -> Iterator[bytes]:
        """Take a submission's spans; yield what is full."""
        if self._submissions == SUBMISSIONS_IN_A_REQUEST:
            yield from self.rest()
        self._submissions += 1
        for span in spans:
            encoded = orjson.dumps(span)
            if self._bytes and self._bytes + len(encoded) > BYTES_IN_A_REQUEST:
                yield from self.rest()
            self._spans.setdefault(who, []).append(orjson.Fragment(encoded))
            self._bytes += len(encoded)

    def rest(self) -> Iterator[bytes]:
        """Yield what there is, and begin anew."""
        if self._spans:
            found = [_resource_spans(self.selection, *who, of) for who, of in self._spans.items()]
            yield orjson.dumps({"resourceSpans": found}, option=orjson.OPT_APPEND_NEWLINE)
        self._spans, self._submissions, self._bytes = {}, 0, 0


def _resource_spans(
    selection: Selection, host: str, version: str, spans: list[orjson.Fragment]
) -> dict[str, Any]:
    resource = {
        "service.name": "pluperfect",
        "service.instance.id": str(selection.reader.log_id),
        "service.version": version or None,
        "host.name": host or None,
    }
    return {
        "resource": {"attributes": attributes(resource)},
        "scopeSpans": [{"scope": {"name": "pluperfect.replay"}, "spans": spans}],
    }


# --- spans -----------------------------------------------------------------------------------


def trace_id(stream: str, flow_run_id: UUID | None) -> str:
    """Return the trace of a flow run: its id, so that whoever knows the one knows the other."""
    if flow_run_id is not None and flow_run_id.int:
        return flow_run_id.hex
    return hashlib.blake2b(stream.encode(), digest_size=16).hexdigest()


def span_id(stream: str, version: int) -> str:
    """Return the span of a state, by the record that led to it; 0 for the whole submission."""
    return hashlib.blake2b(f"{stream}/{version}".encode(), digest_size=8).hexdigest()


def spans_of(life: Life) -> Iterator[dict[str, Any]]:
    """Yield the span of a submission, and below it one for each state."""
    timeline, run = life.timeline, life.timeline.submission.discovered
    trace = trace_id(timeline.stream, run.flow_run_id if run else None)
    root = span_id(timeline.stream, 0)
    wrong = {"code": STATUS_ERROR, "message": outcome(timeline)[0]} if went_wrong(timeline) else {}
    yield {
        "traceId": trace,
        "spanId": root,
        "name": "submission",
        "kind": KIND_CONSUMER,
        "startTimeUnixNano": str(life.begin),
        "endTimeUnixNano": str(life.end),
        "attributes": attributes(_about(life)),
        **_events(life.spans[0]),
        "status": wrong,
    }
    for span in life.spans[1:]:
        yield {
            "traceId": trace,
            "spanId": span_id(timeline.stream, span.version),
            "parentSpanId": root,
            "name": span.state.value,
            "kind": KIND_INTERNAL,
            "startTimeUnixNano": str(span.begin),
            "endTimeUnixNano": str(span.end),
            "attributes": attributes({"pluperfect.stream": timeline.stream}),
            **_events(span),
            "status": wrong if span is life.spans[-1] else {},
        }


def _about(life: Life) -> dict[str, Any]:
    timeline, submission = life.timeline, life.timeline.submission
    run, confirmed, exited = submission.discovered, submission.confirmed, submission.exited
    return {
        "prefect.flow_run.id": run and str(run.flow_run_id),
        "prefect.flow_run.name": run and run.run_name,
        "prefect.work_queue.name": run and run.queue,
        "prefect.deployment.id": run and run.deployment_id and str(run.deployment_id),
        "prefect.deployment.name": timeline.deployment_name,
        "prefect.flow.id": run and run.flow_id and str(run.flow_id),
        "prefect.flow.name": timeline.flow_name,
        "pluperfect.stream": timeline.stream,
        "pluperfect.attempt": run and run.attempt,
        "pluperfect.launch_key": run and run.launch_key,
        "pluperfect.state": timeline.state.value,
        "pluperfect.open": timeline.is_open,
        "pluperfect.outcome": outcome(timeline)[0],
        "pluperfect.infrastructure_pid": confirmed and confirmed.infrastructure_pid,
        "pluperfect.exit_code": exited and exited.exit_code,
        "pluperfect.recoveries": timeline.recoveries,
        "pluperfect.waits": timeline.waits,
        "pluperfect.waits_seconds": timeline.waits_seconds,
    }


def _events(span: Span) -> dict[str, Any]:
    found = [_event(time, record) for time, record in span.records[:EVENTS_IN_A_SPAN]]
    left_out = len(span.records) - len(found)
    return {"events": found} | ({"droppedEventsCount": left_out} if left_out else {})


def _event(time: int, record: Record) -> dict[str, Any]:
    fields = {"pluperfect.position": record.position} | fields_in(record)
    return {
        "timeUnixNano": str(time),
        "name": record.type,
        "attributes": attributes(fields),
    }


# --- values ----------------------------------------------------------------------------------


def attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return values as OTLP has them, each with its type; those that are None are left out."""
    return [
        {"key": key, "value": _value(value)} for key, value in values.items() if value is not None
    ]


def _value(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case dict():
            return {"kvlistValue": {"values": attributes(value)}}
        case list() | tuple():
            return {"arrayValue": {"values": [_value(each) for each in value if each is not None]}}
        case _:
            return {"stringValue": str(value)}
