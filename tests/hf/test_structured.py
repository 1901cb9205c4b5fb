"""Structured answers of the demo model, through every face."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field
from typer.testing import CliRunner

import decodery
from decodery.cli import app
from decodery.hf import custom_generate

pytestmark = [pytest.mark.real, pytest.mark.xdist_group("real")]
ASK = [{"role": "user", "content": "Invent a person. Answer in JSON with name, age and hobbies."}]


class Person(BaseModel):
    name: str = Field(max_length=30)
    age: int = Field(ge=0, le=130)
    hobbies: list[str] = Field(max_length=3)


@pytest.mark.parametrize("draft", ["none", "suffix", "recycling"])
def test_a_pydantic_model_is_the_schema_and_the_answer(draft: str, smollm2: Any) -> None:
    output = decodery.decode(smollm2, ASK, constrain=Person, draft=draft, max_new_tokens=120)
    assert output.finish_reason == "stop"
    assert isinstance(output.parsed, Person)
    assert output.parsed == Person.model_validate_json(output.text)


def test_an_answer_that_was_cut_off_has_no_value(smollm2: Any) -> None:
    output = decodery.decode(smollm2, ASK, constrain=Person, max_new_tokens=8)
    assert output.finish_reason == "length"
    assert output.parsed is None
    assert decodery.decode(smollm2, ASK, max_new_tokens=4).parsed is None


def test_pieces_of_a_stream_hold_what_can_be_read_so_far(smollm2: Any) -> None:
    stream = decodery.stream(smollm2, ASK, constrain=Person, max_new_tokens=120)
    partial = [piece.partial for piece in stream]
    assert partial[-1] == json.loads(stream.output.text)
    named = [one["name"] for one in partial if one and "name" in one]
    assert len(set(named)) > 1, "the name grew"
    assert all(named[-1].startswith(one) for one in named)
    assert all(piece.partial is None for piece in decodery.stream(smollm2, ASK, max_new_tokens=3))


def test_a_schema_as_a_mapping_gives_a_mapping(smollm2: Any) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    output = decodery.decode(smollm2, ASK, constrain={"json-schema": {"schema": schema}}, max_new_tokens=40)
    assert output.parsed in ({"ok": True}, {"ok": False})


def test_generate_of_transformers(smollm2: Any, untouched: Any) -> None:
    ids = smollm2.tokenizer(["Invent a person as JSON.\n"], return_tensors="pt").input_ids
    made = custom_generate(constrain=Person, tokenizer=smollm2.tokenizer)
    tokens = untouched.generate(ids, custom_generate=made, max_new_tokens=120, do_sample=False)
    Person.model_validate_json(smollm2.tokenizer.decode(tokens[0, ids.shape[1] :], skip_special_tokens=True))


def test_the_command_line(tmp_path: Path, smollm2: Any) -> None:
    schema, grammar = tmp_path / "s.json", tmp_path / "g.gbnf"
    described = Person.model_json_schema()
    del described["properties"]["hobbies"]  # whose texts a greedy answer makes very long
    described["required"].remove("hobbies")
    described["additionalProperties"] = False
    schema.write_text(json.dumps(described))
    grammar.write_text('root ::= "<" [a-z]{1,5} ">"\n')

    def call(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["run", "Invent a person.", "-t", "0", "-q", "-n", "300", *arguments])
        assert result.exit_code == code, (result.output, result.exception)
        return result.stdout.strip() if code == 0 else result.stderr

    assert json.loads(call("--json-schema", str(schema))).keys() == {"name", "age"}
    assert call("--grammar", str(grammar)).startswith("<")
    assert call("--regex", "[xyz]{3}").strip("xyz") == ""
    assert call("--choice", "red, dark", "--choice", "blue") in ("red, dark", "blue")
    assert "each constrain the answer" in call("--regex", "a", "--choice", "b", code=2)
    assert "ends in .gbnf or .lark" in call("--grammar", "a.txt", code=2)
    assert "no such file" in call("--json-schema", "none.json", code=2)
