# make test, make bench: all that is needed beforehand is Python 3.11 or newer, make and g++ (or clang++).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard kernels/*)

.DEFAULT_GOAL := help
.PHONY: help venv build install test bench gpu clean

help:
	@echo "make test     run the tests"
	@echo "make bench    run the default benchmark (fastconv bench)"
	@echo "make gpu      run the GPU benchmark with this machine's own Python"
	@echo "make build    install fastconv into $(VENV), editable, with its native kernels (also: make install)"
	@echo "make venv     create $(VENV) with PYTHON=$(PYTHON)"
	@echo "make clean    remove all of that"

venv: $(VENV)/.created

build install: $(VENV)/.installed

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.created $(SOURCES)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[bench,numba,test]'
	touch $@

test: $(VENV)/.installed
	$(BIN)/python -m pytest

bench: $(VENV)/.installed
	$(BIN)/fastconv bench

gpu:
	PYTHONPATH=. $(PYTHON) benchmarks/gpu.py

clean:
	rm -rf $(VENV) build dist *.egg-info fastconv/*.so
