"""The `process` block document, typed: what a deployment may say about the process of its runs.

It takes what Prefect takes: what 2.20's block takes (which makes text of numbers and booleans of
words), and what 3.x's job variables hold (whose command is one line of text). Called by
`agent.infrastructure.resolve` with the block's data, overrides applied.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import cattrs
from cattrs.cols import is_mapping, is_sequence

from agent.infrastructure.errors import ResolutionError
from agent.infrastructure.overrides import kind_of
from agent.values import FALSE, TRUE

PROCESS: Final = "process"
"""The slug of the block type, and the `type` in its data."""


@attrs.frozen
class ProcessDocument:
    """The fields of a `process` block (Prefect 2.5 to 2.20). None: it does not say.

    Attributes:
        command: the program and its arguments; empty for the default one.
        env: variables for the process; None as a value unsets one.
        labels: for people and other programs.
        name: what the process is called.
        working_dir: empty for a fresh temporary directory.
        stream_output: copy the output to the agent's own.
    """

    command: list[str] | None = attrs.field(default=None, repr=False)
    env: dict[str, str | None] | None = attrs.field(default=None, repr=False)
    labels: dict[str, str] | None = None
    name: str | None = None
    working_dir: str | None = None
    stream_output: bool | None = None


def read_process_document(data: Mapping[str, Any]) -> ProcessDocument:
    """Make a process document of a block's data; fields that it does not have are ignored.

    Raises:
        ResolutionError: it names each field at fault and what is there, but never its value.
    """
    if data.get("type", PROCESS) != PROCESS:
        raise ResolutionError(f"type is not {PROCESS!r}")
    try:
        return _CONVERTER.structure(data, ProcessDocument)
    except cattrs.BaseValidationError as error:
        problems = cattrs.transform_error(error, path="", format_exception=_in_words)
    # Raised out here, so that no exception with pieces of the document hangs on this one.
    raise ResolutionError("; ".join(map(_field_first, problems)))


class _Unexpected(ValueError):
    """Something else is there. Its text names two kinds of values, no value."""

    def __init__(self, raw: Any, expected: str) -> None:
        super().__init__(f"is {kind_of(raw)}, expected {expected}")


def _in_words(error: BaseException, _type: type | None) -> str:
    return str(error) if isinstance(error, _Unexpected) else "can't be used"


def _field_first(problem: str) -> str:
    # cattrs writes `problem @ path`. The problem is ours and has no ` @ `; the path may have one.
    words, _, path = problem.partition(" @ ")
    return f"{path.removeprefix('.')} {words}"


def _text(raw: Any, _type: Any) -> str:
    # Numbers and booleans come out of YAML; Prefect makes text of them the way Python does.
    if not isinstance(raw, (str, int, float)):
        raise _Unexpected(raw, "text")
    return str(raw)


def _boolean(raw: Any, _type: Any) -> bool:
    # Words come from `prefect deployment build --override stream_output=false`.
    word = str(raw).lower()
    if word not in TRUE | FALSE:
        raise _Unexpected(raw, "true or false")
    return word in TRUE


def _of_scalars() -> cattrs.Converter:
    converter = cattrs.Converter()
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(bool, _boolean)
    return converter


_CONTENTS: Final = _of_scalars()
"""Reads what is in a mapping or list, once that is known to be one: cattrs alone would take text
for a list of characters."""


def _mapping(kind: Any) -> Callable[[Any, Any], Any]:
    def read(raw: Any, _type: Any) -> Any:
        if not isinstance(raw, dict):
            raise _Unexpected(raw, "a mapping")
        return _CONTENTS.structure(raw, kind)

    return read


def _words(raw: Any, kind: Any) -> Any:
    if isinstance(raw, str):
        # An open quotation. Raised below, apart from an error that might show the text.
        with contextlib.suppress(ValueError):
            return shlex.split(raw)
        raise _Unexpected(raw, "a list, or text with its quotations closed")
    if not isinstance(raw, list):
        raise _Unexpected(raw, "a list of text")
    return _CONTENTS.structure(raw, kind)


def _converter() -> cattrs.Converter:
    converter = _of_scalars()
    converter.register_structure_hook_factory(is_mapping, _mapping)
    converter.register_structure_hook_func(is_sequence, _words)
    return converter


attrs.resolve_types(ProcessDocument)
_CONVERTER: Final = _converter()
