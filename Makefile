# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint check bench constraints

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: .venv/.installed  ## compare the dual-encoder LISA with both shared-encoder variants, at a tiny size, on this machine
	$(BIN)/lisabench run tiny

test: .venv/.installed  ## the GPU's alone, then two at a time; small models on few cores are fastest with one thread
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not no_clock" tests/cuda
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m "no_clock and not slow"

test-slow: .venv/.installed  ## simulations of many gates and sessions: how often they are right, at a known truth; and trainings by real launchers
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m slow

lint: .venv/.installed  ## mends what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

check: .venv/.installed  ## never edits
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: .venv/.installed  ## SAVE=NAME keeps the figures in .benchmarks/, for `pytest-benchmark compare`
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest benchmarks/micro --benchmark-only $(if $(SAVE),--benchmark-save=$(SAVE))

# Left out is what belongs to a build of PyTorch, and differs between machines.
constraints:  ## write the newest versions that pyproject.toml allows to constraints.txt; test them before you commit it
	$(PYTHON) -m pip install --quiet --dry-run --ignore-installed --report .newest.json '.[dev]'
	$(PYTHON) -c 'import json; found = [one["metadata"] for one in json.load(open(".newest.json"))["install"]]; \
	  print(*sorted(one["name"].lower() + "==" + one["version"] for one in found), sep="\n")' \
	  | grep -vE '^(lisabench|cuda-.*|triton|nvidia-[^m].*)==' > constraints.txt
	rm .newest.json
