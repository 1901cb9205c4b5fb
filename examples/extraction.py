"""A Pydantic model is the schema and the answer: facts out of a text.

Run: python examples/extraction.py
"""

from pydantic import BaseModel, Field

import decodery

TEXT = "Marie Curie, born in Warsaw in 1867, won the Nobel Prize in Physics in 1903 and in Chemistry in 1911."


class Prize(BaseModel):
    field: str = Field(max_length=20)
    year: int = Field(ge=1901, le=2100)


class Person(BaseModel):
    name: str = Field(max_length=40)
    born: int = Field(ge=1000, le=2100)
    prizes: list[Prize] = Field(min_length=1, max_length=3)


model = decodery.load("smollm2")
ask = [{"role": "user", "content": f"Extract the person as JSON with name, born and prizes (field, year).\n\n{TEXT}"}]
stream = decodery.stream(model, ask, constrain=Person, max_new_tokens=150)
for piece in stream:
    print(piece.partial)  # what can be read so far
person = stream.output.parsed
assert isinstance(person, Person)
print(person.name, person.born, [(prize.field, prize.year) for prize in person.prizes])
