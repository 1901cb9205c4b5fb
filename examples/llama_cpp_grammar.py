"""A grammar file of llama.cpp, as it is.

Run: python examples/llama_cpp_grammar.py
"""

from pathlib import Path

import decodery

grammar = Path(__file__).with_name("chess.gbnf")
model = decodery.load("smollm2")
output = decodery.decode(model, "A game of chess:\n", constrain=f"gbnf:{grammar}", max_new_tokens=80)
assert output.finish_reason == "stop"
print(output.text)
