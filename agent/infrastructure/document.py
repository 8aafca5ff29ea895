"""The `process` block document, typed: what a deployment may say about the process of its runs.

It takes what Prefect takes: 2.20's block (which turns numbers into text, and words into booleans)
and 3.x's job variables (whose command is one line of text). Called by `agent.infrastructure.resolve`
with the block's data after overrides.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final, get_origin

import attrs
import cattrs

from agent.infrastructure.errors import ResolutionError
from agent.infrastructure.overrides import kind_of
from agent.values import FALSE, TRUE


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


def _with_text(factory: cattrs.Converter) -> cattrs.Converter:
    factory.register_structure_hook(str, _text)
    factory.register_structure_hook(bool, _boolean)
    return factory


_CONTENTS: Final = _with_text(cattrs.Converter())


def _mapping(kind: Any) -> Callable[[Any, Any], Any]:
    def read(raw: Any, _type: Any) -> Any:
        if not isinstance(raw, dict):
            raise _Unexpected(raw, "a mapping")
        return _CONTENTS.structure(raw, kind)

    return read


def _words(raw: Any, kind: Any) -> Any:
    if isinstance(raw, str):
        try:
            return shlex.split(raw)
        except ValueError:
            pass  # an open quotation; raised below, apart from the text that the error holds
        raise _Unexpected(raw, "a list, or text with its quotations closed")
    if not isinstance(raw, list):
        raise _Unexpected(raw, "a list of text")
    return _CONTENTS.structure(raw, kind)


def _converter() -> cattrs.Converter:
    converter = _with_text(cattrs.Converter())
    converter.register_structure_hook_factory(lambda kind: get_origin(kind) is dict, _mapping)
    converter.register_structure_hook_func(lambda kind: get_origin(kind) is list, _words)
    return converter


attrs.resolve_types(ProcessDocument)
_CONVERTER: Final = _converter()
