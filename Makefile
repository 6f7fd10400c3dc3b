# make demo and make test work from a fresh clone with Python 3.11+ and make; everything goes into .venv.
PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3.13 python3))
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-long quick check bench bench-gpu bench-serving bench-faults locks sbom clean

demo: $(READY)
	$(BIN)/splitveil demo --out runs/demo-$$(date +%Y%m%d-%H%M%S)

test: $(READY)
	$(BIN)/pytest -n 2 --dist worksteal -m "not long"

test-long: $(READY)
	$(BIN)/pytest -n 2 --dist worksteal -m long

quick: $(READY)
	$(BIN)/pytest -n 2 --dist worksteal -m "not slow and not long"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_layers.py

bench: $(READY)
	$(BIN)/python -m benchmarks.attack_speed

# Nine minutes on a GPU, lent or own; where there is none it says so.
bench-gpu: $(READY)
	$(BIN)/python -m benchmarks.gpu

# Other servers are measured beside ours where `python -m benchmarks.serving peers --install runs/peers` has put them.
bench-serving: $(READY)
	$(BIN)/python -m benchmarks.serving run --peers runs/peers

bench-faults: $(READY)
	$(BIN)/python -m benchmarks.serving_faults

# What a server and what a device install, by hash: the versions of constraints.txt, all platforms. Needs pip-tools.
LOCK = $(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links --allow-unsafe

locks: $(READY)
	$(BIN)/pip install --quiet pip-tools
	$(LOCK) --constraint constraints.txt --extra serve --output-file locks/server.txt pyproject.toml
	$(LOCK) --constraint constraints.txt --output-file locks/device.txt pyproject.toml
	$(LOCK) --output-file locks/build.txt locks/build.in

sbom:
	$(PYTHON) locks/bill.py locks/server.txt > locks/server.cdx.json
	$(PYTHON) locks/bill.py locks/device.txt > locks/device.cdx.json

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
