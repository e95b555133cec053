# Two commands: `make demo` and `make test`. Each sets up what it needs, the first time.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo test slow faults zoo-survey lint docs bench clean

demo: $(READY)
	$(BIN)/pytest --kv-matrix

test: $(READY)
	$(BIN)/pytest

slow: $(READY)
	$(BIN)/pytest -m slow

faults: $(READY)
	$(BIN)/pytest tests/faults -m faults

zoo-survey: $(READY)
	$(BIN)/python -m tools.zoo_survey

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(READY)
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html

bench: $(READY)
	$(BIN)/pytest bench --benchmark-columns=min,median,max --benchmark-sort=name -s

clean:
	rm -rf $(VENV) build dist

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "Installing; llama-cpp-python is built from source the first time (about 4 minutes)."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $(READY)
