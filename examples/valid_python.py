"""Valid Python by a check that only answers yes or no.

Python's grammar is too rich for a mask over the vocabulary, but CPython's parser can say whether a text may begin a program.
Sequential Monte Carlo asks it about a few tokens at each place, and weights its answers so that they stand for the model's
own law given that the answer is Python. The second check is a function of one's own.
"""

from __future__ import annotations

import ast

import decodery


def no_imports(text: str) -> bool:
    """Whether an answer may begin so."""
    return "import" not in text


def main() -> None:
    """Print two answers with their figures."""
    model = decodery.load("smollm2")
    prompt = [{"role": "user", "content": "Write a Python function that adds two numbers. Answer with code only."}]
    for constrain in ("python", {"check": {"function": no_imports, "text": True}}):
        output = decodery.decode(
            model,
            prompt,
            constrain=constrain,
            search="smc:particles=4,whole=true",  # whole: only answers that end within the limit count
            guide="temperature:0.7",
            max_new_tokens=40,
            seed=1,
        )
        asked, steps = output.stats.calls["checks"], output.stats.forwards
        print(output.text)
        print(
            f"# {output.finish_reason}; {asked / steps:.0f} tokens asked about in each of {steps} steps, of {model.vocab}"
        )
        print(f"# log-evidence {output.log_evidence:.2f}; {len(output.candidates)} different answers")
        if constrain == "python":
            ast.parse(output.text)


if __name__ == "__main__":
    main()
