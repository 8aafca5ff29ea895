"""What `replay export` makes of submissions: spans of time, a trace, OTLP, a table, a diagram."""

from __future__ import annotations

import base64
import csv
import importlib
import io
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.notices import AGENT_STREAM
from events.sqlite import SqliteStore
from events.sqlite_reader import SqliteReader
from replay.export.chrome import write_chrome
from replay.export.lanes import Lanes
from replay.export.lives import lives
from replay.export.otlp import EVENTS_IN_A_SPAN, spans_of, write_otlp
from replay.export.table import cell, write_events, write_submissions
from replay.selection import Selection, Wanted
from replay.summary import as_object, went_wrong
from tests.samples.edited import record
from tests.samples.make_sample import (
    Recorder,
    Run,
    SettableClock,
    failed_resolution,
    good_run,
    tell_everything,
)
from tests.unit.export_fixtures import life

LYNX, NEWT = Run("quiet-lynx"), Run("lucky-newt")


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteReader]:
    """A log that tells every story there is."""
    path = tmp_path_factory.mktemp("night") / "events.sqlite"
    clock = SettableClock()
    store = SqliteStore.open(path, clock)
    tell_everything(Recorder(store, clock))
    store.close()
    opened = SqliteReader.open(path)
    yield opened
    opened.close()


@pytest.fixture
def everything(reader: SqliteReader) -> Selection:
    return Selection.of(reader, Wanted())


# --- lives -----------------------------------------------------------------------------------


def test_the_spans_of_a_life_last_as_long_as_its_timeline_says(everything: Selection) -> None:
    for each in lives(everything):
        expected = [(s.state, s.seconds) for s in each.timeline.all_stretches(everything.now)]
        told = [(s.state, (s.end - s.begin) / 1e9) for s in each.spans[1:]]
        assert [state for state, _ in told] == [state for state, _ in expected]
        assert [s for _, s in told] == pytest.approx([s for _, s in expected], abs=2e-6)


def test_spans_follow_each_other_and_hold_every_record_once(everything: Selection) -> None:
    for each in lives(everything):
        assert all(a.end == b.begin for a, b in itertools.pairwise(each.spans))
        records = [record for span in each.spans for _time, record in span.records]
        assert [r.version for r in records] == list(range(1, each.timeline.records + 1))
        times = [time for span in each.spans for time, _record in span.records]
        assert times == sorted(times)


def test_a_wall_clock_that_was_set_back_while_the_host_was_down_takes_nobody_back() -> None:
    before = record(good_run(LYNX, 100.0))
    earlier = "2026-11-24T01:00:00.000000+00:00"
    records = [attrs.evolve(r, recorded_at=earlier) if r.version > 8 else r for r in before]

    told = life(records)

    assert all(span.begin <= span.end for span in told.spans)
    assert told.end == told.begin + 211_000_000


# --- lanes -----------------------------------------------------------------------------------

BARS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)))


def packed(bars: list[tuple[int, int]]) -> dict[int, list[tuple[int, int]]]:
    lanes, found = Lanes(), defaultdict[int, list[tuple[int, int]]](list)
    for begin, length in bars:
        found[lanes.take(begin, begin + length)].append((begin, begin + length))
    return found


@given(BARS)
def test_bars_in_a_lane_never_overlap_even_where_the_clock_was_set_back(
    bars: list[tuple[int, int]],
) -> None:
    for lane in packed(bars).values():
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(sorted(lane)))


@given(BARS)
def test_there_are_no_more_lanes_than_were_under_way_at_once(bars: list[tuple[int, int]]) -> None:
    ordered = sorted(bars)

    lanes = packed(ordered)

    at_once = max(
        (sum(b <= begin < b + n or b == begin for b, n in ordered) for begin, _ in ordered),
        default=0,
    )
    assert len(lanes) <= at_once


# --- the trace -------------------------------------------------------------------------------


def trace(selection: Selection) -> list[dict[str, Any]]:
    out = io.BytesIO()
    write_chrome(selection, out)
    events: list[dict[str, Any]] = json.loads(out.getvalue())["traceEvents"]
    return events


def of_kind(events: list[dict[str, Any]], phase: str) -> list[dict[str, Any]]:
    return [event for event in events if event["ph"] == phase]


def test_the_trace_has_what_its_format_asks_for(everything: Selection) -> None:
    events = trace(everything)

    assert {event["ph"] for event in events} == {"M", "X", "i"}
    for event in events:
        assert type(event["pid"]) is type(event["tid"]) is int
        assert isinstance(event["name"], str)
        if event["ph"] == "M":
            assert event["args"].keys() <= {"name", "sort_index"}
            continue
        assert type(event["ts"]) is int
        assert event["ts"] > 1.7e15
        if event["ph"] == "X":
            assert type(event["dur"]) is int
            assert event["dur"] >= 0
        else:
            assert event["s"] in ("g", "p", "t")


def test_bars_of_a_thread_nest_and_never_cross(everything: Selection) -> None:
    threads = defaultdict(list)
    for event in of_kind(trace(everything), "X"):
        threads[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))

    for bars in threads.values():
        around: list[tuple[int, int]] = []
        for begin, end in sorted(bars, key=lambda bar: (bar[0], -bar[1])):
            while around and around[-1][1] <= begin:
                around.pop()
            assert not around or end <= around[-1][1]
            around.append((begin, end))


def test_every_process_and_thread_has_one_name_and_threads_are_told_apart(
    everything: Selection,
) -> None:
    events = trace(everything)

    names = of_kind(events, "M")
    processes = {e["pid"]: e["args"]["name"] for e in names if e["name"] == "process_name"}
    threads = [(e["pid"], e["tid"]) for e in names if e["name"] == "thread_name"]
    assert sorted(processes.values()) == ["agent", "queue default", "queue reports"]
    assert len({tid for pid, tid in threads if processes[pid] != "agent"}) == sum(
        processes[pid] != "agent" for pid, _ in threads
    )
    assert {(e["pid"], e["tid"]) for e in of_kind(events, "X")} <= set(threads)


def test_the_trace_has_a_bar_for_each_submission_and_each_state_that_took_time(
    everything: Selection,
) -> None:
    bars = of_kind(trace(everything), "X")

    submissions = [bar for bar in bars if bar["cat"] == "submission"]
    assert len(submissions) == 12
    (newt,) = (bar for bar in submissions if bar["name"] == "lucky-newt")
    assert newt["args"]["outcome"] == "exit 0 · run COMPLETED"
    states = [
        (bar["name"], bar["dur"])
        for bar in bars
        if bar["cat"] == "state" and bar["args"]["stream"] == NEWT.stream
    ]
    assert states == [
        ("discovered", 40_000),
        ("resolving", 160_000),
        ("launching", 1_900_000),
        ("resolving", 511_000),
        ("launching", 28_000),
        ("started", 8_761_000),
        ("exited", 20_000),
    ]
    assert newt["dur"] == sum(duration for _state, duration in states)


def test_restarts_outages_waits_and_recoveries_are_marked(everything: Selection) -> None:
    events = trace(everything)

    marks = of_kind(events, "i")
    starts = [mark for mark in marks if mark["name"] == "AgentStarted"]
    assert [mark["s"] for mark in starts] == ["g", "g", "g"]
    assert {"EffectDeferred", "RecoveryStarted", "LaunchVoided", "AgentStopped"} <= {
        mark["name"] for mark in marks
    }
    waits = [mark["args"]["text"] for mark in marks if mark["name"] == "EffectDeferred"]
    assert "to claim the run, again in 1.00 s: POST /flow_runs/…/set_state: read timed out" in waits
    (away,) = (bar for bar in of_kind(events, "X") if bar["name"] == "server away")
    assert away["dur"] == 2_000_000


def test_the_trace_of_one_run_has_only_what_happened_meanwhile(reader: SqliteReader) -> None:
    chosen = Selection.of(reader, Wanted(streams=[NEWT.stream]))

    events = trace(chosen)

    assert {bar["name"] for bar in of_kind(events, "X") if bar["cat"] == "submission"} == {
        "lucky-newt"
    }
    assert [mark["name"] for mark in of_kind(events, "i") if mark["cat"] == "agent"] == [
        "AgentStarted"
    ]


# --- OpenTelemetry ---------------------------------------------------------------------------


def requests(selection: Selection) -> list[Any]:
    """Return what is written as the official protobuf messages.

    Their JSON has ids in base64; OTLP's has them in hexadecimal, so they are converted here.
    """
    out = io.BytesIO()
    write_otlp(selection, out)
    return [as_message(line) for line in out.getvalue().splitlines()]


def as_message(line: bytes) -> Any:
    service = importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    json_format = importlib.import_module("google.protobuf.json_format")
    text = json.loads(line)
    for resource in text["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for name in {"traceId", "spanId", "parentSpanId"} & span.keys():
                    assert re.fullmatch("[0-9a-f]+", span[name])
                    span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    return json_format.ParseDict(text, service.ExportTraceServiceRequest())


def spans_in(messages: list[Any]) -> list[Any]:
    return [
        span
        for message in messages
        for resource in message.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def attributes_of(thing: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in thing.attributes}


def test_otlp_is_what_the_official_definitions_say(everything: Selection) -> None:
    (message,) = requests(everything)

    (resource,) = message.resource_spans
    assert attributes_of(resource.resource) == {
        "service.name": "pluperfect",
        "service.instance.id": str(everything.reader.log_id),
        "service.version": "0.1.0",
        "host.name": "batch-7",
    }
    for span in spans_in([message]):
        assert (len(span.trace_id), len(span.span_id)) == (16, 8)
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.name
        assert span.kind


def test_a_flow_run_is_a_trace_with_a_root_for_each_submission(everything: Selection) -> None:
    spans = spans_in(requests(everything))

    roots = [span for span in spans if not span.parent_span_id]
    otter = Run("ancient-otter").flow_run_id.bytes
    assert len(roots) == 12
    assert len([root for root in roots if root.trace_id == otter]) == 2
    assert len({span.span_id for span in spans}) == len(spans)
    by_id = {span.span_id: span for span in spans}
    for span in spans:
        if span.parent_span_id:
            parent = by_id[span.parent_span_id]
            assert parent.trace_id == span.trace_id
            assert parent.start_time_unix_nano <= span.start_time_unix_nano
            assert span.end_time_unix_nano <= parent.end_time_unix_nano


def test_every_record_of_a_submission_is_an_event_within_its_span(everything: Selection) -> None:
    spans = spans_in(requests(everything))

    positions = []
    for span in spans:
        for event in span.events:
            assert span.start_time_unix_nano <= event.time_unix_nano <= span.end_time_unix_nano
            positions.append(attributes_of(event)["pluperfect.position"])
    expected = [r.position for r in everything.reader.read_all() if r.stream != AGENT_STREAM]
    assert sorted(positions) == expected


def test_only_what_went_wrong_has_the_status_of_an_error(everything: Selection) -> None:
    wrong = {t.stream for t in everything.timelines() if went_wrong(t)}
    roots = [span for span in spans_in(requests(everything)) if not span.parent_span_id]

    errors = {attributes_of(root)["pluperfect.stream"] for root in roots if root.status.code == 2}

    assert errors == wrong
    assert len(errors) == 4
    assert all(root.status.message for root in roots if root.status.code == 2)
    last = spans_of(life(record(failed_resolution(LYNX, 1.0))))
    assert [span["status"].get("code") for span in last] == [2, None, None, None, 2]


def test_a_request_stays_small_however_many_submissions_there_are(
    everything: Selection, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = spans_in(requests(everything))
    monkeypatch.setattr("replay.export.otlp.SUBMISSIONS_IN_A_REQUEST", 5)
    assert len(requests(everything)) == 3
    monkeypatch.setattr("replay.export.otlp.BYTES_IN_A_REQUEST", 2000)

    messages = requests(everything)

    assert len(messages) > 12
    assert spans_in(messages) == whole


def test_a_span_with_too_many_events_counts_those_it_leaves_out() -> None:
    told = life(record(good_run(LYNX, 1.0)))
    waiting = attrs.evolve(told.spans[1], records=[*told.spans[1].records] * 600)
    long = attrs.evolve(told, spans=[told.spans[0], waiting, *told.spans[2:]])

    _root, span, *_rest = spans_of(long)

    assert len(span["events"]) == EVENTS_IN_A_SPAN
    assert span["droppedEventsCount"] == len(waiting.records) - EVENTS_IN_A_SPAN


# --- CSV -------------------------------------------------------------------------------------


def rows(out: io.BytesIO) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(out.getvalue().decode(), newline="")))


NESTED = {"owed", "deferred", "states", "exited", "ending", "reported", "settled"}


def test_a_submission_in_csv_has_what_list_has_for_machines(everything: Selection) -> None:
    out = io.BytesIO()
    write_submissions(everything, out)

    told = {row["stream"]: row for row in rows(out)}

    for timeline in everything.timelines():
        row, expected = told[timeline.stream], as_object(timeline, everything.now)
        for name in expected.keys() - NESTED:
            value = expected[name]
            assert row[name] == ("" if value is None else str(cell(value))), name
        seconds = sum(
            float(row[n] or 0) for n in row if n.startswith("seconds_") and n[8:] != "to_start"
        )
        assert seconds == pytest.approx(expected["seconds"], abs=1e-5)
    bear = next(row for row in told.values() if row["run_name"] == "hungry-bear")
    assert (bear["exit_code"], bear["reported"], bear["went_wrong"]) == ("-9", "CRASHED", "true")


def test_a_record_in_csv_has_all_but_its_hash(everything: Selection) -> None:
    out = io.BytesIO()
    write_events(everything, out)

    told = rows(out)

    records = list(everything.reader.read_all())
    for row, each in zip(told, records, strict=True):
        assert (int(row["position"]), row["stream"], int(row["version"])) == (
            each.position,
            each.stream,
            each.version,
        )
        assert (row["type"], row["recorded_at"], row["data"]) == (
            each.type,
            each.recorded_at,
            each.data,
        )
    families = {row["family"] for row in told}
    assert families == {"transition", "observation", "notice"}
    newt = [row["state"] for row in told if row["stream"] == NEWT.stream]
    assert (newt[0], newt[1], newt[-1]) == ("", "discovered", "exited")


def test_rows_end_as_rfc_4180_has_it_and_breaks_within_a_cell_are_quoted() -> None:
    assert cell("one\ntwo") == "one\ntwo"
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\r\n").writerow([cell("one\ntwo"), cell('say "no"')])
    assert out.getvalue() == '"one\ntwo","say ""no"""\r\n'


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\n=1", "'=1", "＝1"])  # noqa: RUF001
def test_what_a_spreadsheet_would_calculate_gets_an_apostrophe(text: str) -> None:
    assert cell(text) == f"'{text}"


def test_control_characters_are_shown_and_numbers_stay_numbers() -> None:
    assert cell("a\x1b[2Jb\tc") == "a\\x1b[2Jb\\tc"
    assert cell(-9) == -9
    assert (cell(True), cell(False), cell(None)) == ("true", "false", None)


@given(st.text())
def test_no_cell_begins_with_a_formula_and_the_apostrophe_can_be_taken_off(text: str) -> None:
    written = cell(text)

    assert not written.lstrip().startswith(("=", "+", "-", "@"))
    if text.isprintable():
        assert (written[1:] if written.startswith("'") else written) == text
