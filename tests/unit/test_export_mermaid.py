"""One submission's way as a Mermaid diagram.

That Mermaid itself takes what is written was tried by hand, in a browser, with 400 random texts; it
is too heavy to install for every run of the tests.
"""

from __future__ import annotations

import re

import attrs
from hypothesis import given
from hypothesis import strategies as st

from events.codec import EVENT_TYPES
from events.lifecycle import Transition
from events.log import Record
from events.observations import ResolutionFailed, RunOffered
from replay.export.mermaid import diagram, escaped
from tests.samples.edited import record
from tests.samples.make_sample import Run, failed_resolution, good_run, launching_with_a_wait
from tests.unit.export_fixtures import life

LYNX, ANT = Run("quiet-lynx"), Run("unlucky-ant")

TEXT = r"(?:[^\W]|[ .,()/_]|#\d+;|<br/>)+"


def test_a_diagram_has_the_transitions_in_the_order_in_which_they_were_taken() -> None:
    told = life(record(good_run(LYNX, 1.0)))

    lines = list(diagram(told))

    steps = re.findall(r"(\S+) --> (\S+): (\d+)\. (\w+)", "\n".join(lines))
    expected = [r.type for r in record(good_run(LYNX, 1.0)) if is_transition(r)]
    assert [name for *_, name in steps] == expected
    assert [int(number) for _, _, number, _ in steps] == list(range(1, len(steps) + 1))
    assert steps[0][:2] == ("[*]", "DISCOVERED")
    assert "    LAUNCHING --> STARTED: 6. LaunchConfirmed<br/>#43;28 ms" in lines
    assert '    state "STARTED<br/>11.8 s" as STARTED' in lines
    assert "    EXITED --> [*]" in lines


def is_transition(each: Record) -> bool:
    return issubclass(EVENT_TYPES[each.type], Transition)


def test_steps_alike_in_a_row_are_one_edge() -> None:
    lines = "\n".join(diagram(life(record(launching_with_a_wait(ANT, 1.0)))))

    assert "LAUNCHING --> LAUNCHING: 6. to 7. EffectDeferred<br/>#43;10.0 s, 2 times" in lines
    assert "LAUNCHING --> [*]" not in lines


@given(st.text(max_size=60), st.text(max_size=300))
def test_no_text_can_change_a_diagram(name: str, error: str) -> None:
    run = Run("stranger")
    (at, _run, offered), claimed, (later, _run, failed), reported = failed_resolution(run, 1.0)
    assert isinstance(offered, RunOffered)
    assert isinstance(failed, ResolutionFailed)
    story = [
        (at, run, attrs.evolve(offered, run_name=name)),
        claimed,
        (later, run, attrs.evolve(failed, error=error)),
        reported,
    ]

    lines = list(diagram(life(record(story))))

    ours = list(diagram(life(record(failed_resolution(run, 1.0)))))
    assert [line for line in lines if "-->" in line] == [line for line in ours if "-->" in line]
    assert len(lines) == len(ours)
    assert not any(char in line for line in lines for char in "\n\r\x00\x1b\x85\u2028")
    assert lines[1].startswith('title: "')
    assert lines[1].endswith(f'{run.stream}"')
    note = lines[-1].removeprefix("    note right of FAILED: ")
    assert re.fullmatch(TEXT, note)


def test_a_text_for_mermaid_has_codes_for_what_could_mean_something() -> None:
    assert escaped("\x1b") == "#92;x1b"
    assert escaped("a-b: <c> #1; día") == "a#45;b#58; #60;c#62; #35;1#59; día"
