"""The model calls a tool; its arguments follow the tool's schema.

Run: python examples/tool_call.py
"""

import json
from typing import Literal

from pydantic import BaseModel, Field

import decodery


class Weather(BaseModel):
    """Look the weather up."""

    city: str = Field(max_length=30)
    unit: Literal["celsius", "fahrenheit"]


class Stop(BaseModel):
    """End the conversation."""


model = decodery.load("smollm2")
described = json.dumps({tool.__name__: tool.model_json_schema() for tool in (Weather, Stop)})
ask = [
    {"role": "system", "content": f"You call one of these tools: {described}"},
    {"role": "user", "content": "How warm is it in Lisbon, in celsius?"},
]
tools = {"tool": {"tools": [Weather, Stop], "choose": "Weather"}}
output = decodery.decode(model, ask, constrain=tools, max_new_tokens=100)
(call,) = output.parsed
assert isinstance(call["arguments"], Weather)
print(call["name"], call["arguments"])
