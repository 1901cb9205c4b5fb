"""The answer calls tools, each with arguments that its schema describes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Self

import llguidance
from annotated_types import MinLen

from decodery.constrain.lib.matcher import MatcherConstraint
from decodery.constrain.lib.schemas import Whitespace, grammar_of, rules_of, value_of, why_refused
from decodery.constrain.lib.tools import read_tools
from decodery.core.part import Model


@dataclass
class ToolCalls(MatcherConstraint):
    """The answer calls tools, in the form of Hermes' and Qwen's chat templates unless it is told otherwise.

    That is ``<tool_call>{"name": ..., "arguments": ...}</tool_call>``. ``tools``: a file, a text or a list of OpenAI's
    tool descriptions, or of Pydantic models and dataclasses, whose names and fields are those of the tools. ``choose``:
    "auto" (a text, behind which calls may follow), "required" (calls only) or a tool's name (one call of it). ``several``:
    whether more than one call may follow. ``begin``, ``end``: what stands around a call. ``whitespace``: as in
    ``json``. The value of an answer is the list of its calls.
    """

    example = 'tool:[{"name": "weather"}]'
    specimens = ({"tools": [{"name": "a"}], "begin": "cabca", "end": "b"},)
    tools: Annotated[Any, MinLen(1)]
    choose: str = "auto"
    several: bool = True
    begin: Annotated[str, MinLen(1)] = "<tool_call>\n"
    end: str = "\n</tool_call>"
    whitespace: Whitespace = "spaced"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._tools = read_tools(self.tools)
        if self.choose not in ("auto", "required", *self._tools):
            raise ValueError(f"choose is auto, required or one of {', '.join(self._tools)}, not {self.choose!r}")

    def bind(self, model: Model) -> Self:
        for tool in self._tools.values():  # each by itself, so that an error names the tool
            error = llguidance.LLMatcher.validate_grammar(grammar_of(tool.schema, self.whitespace))
            if error and not error.startswith("WARNING"):
                raise ValueError(f"tool {tool.name!r}: {why_refused(tool.schema, ' '.join(error.split()))}")
        return super().bind(model)

    def grammar(self) -> str:
        named = [t for t in self._tools.values() if self.choose in ("auto", "required", t.name)]
        more = " (SPACE? call)*" if self.several and self.choose in ("auto", "required") else ""
        mark, tail = self._mark(), self.begin.partition(self._mark())[2]
        lines = [
            f"call: {json.dumps(self.begin)} body",
            f"body: (tool_{' | tool_'.join(map(str, range(len(named))))}) END",
        ]
        if self.choose == "auto":
            # The first mark in the text begins a call, so what begins like one must go on as one.
            lines += [
                f"start: TEXT? | head {json.dumps(tail)} body{more}",
                "TEXT: /(?s:.+)/ & ~(/(?s:.*)/ MARK /(?s:.*)/)",
            ]
            lines += ["head[lazy]: /(?s:.*)/ MARK", f"MARK: {json.dumps(mark)}"]
        else:
            lines += [f"start: call{more}"]
        lines += [r"SPACE: /\s/"] if more else []
        comma, colon = (",", ":") if self.whitespace == "compact" else (", ", ": ")
        for i, tool in enumerate(named):
            opening = f'{{"name"{colon}{json.dumps(tool.name)}{comma}"arguments"{colon}'
            schema = tool.schema | {"x-guidance": rules_of(self.whitespace)}
            lines.append(f"tool_{i}: {json.dumps(opening)} %json {json.dumps(schema)} ")
        lines.append(f"END: {json.dumps('}' + self.end)}")
        return str(llguidance.LLMatcher.grammar_from_lark("\n".join(lines) + "\n"))

    def value(self, text: str, whole: bool = True) -> Any:
        mark, end = self._mark(), self.end.strip()
        calls = []
        for part in text.split(mark)[1:]:
            body, closed, _ = part.partition(end) if end else (part, "", "")
            call = value_of(body.strip(), whole or bool(closed))
            if isinstance(call, dict) and isinstance(name := call.get("name"), str):
                adapter = self._tools[name].adapter if name in self._tools else None
                if adapter is not None and (whole or closed):
                    call["arguments"] = adapter.validate_python(call["arguments"])
                calls.append(call)
        return calls

    def _mark(self) -> str:
        """What tells that a call begins: spaces around it may be missing from a text."""
        return self.begin.strip() or self.begin
