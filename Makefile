# make test, make bench: all that is needed beforehand is Python 3.11 or newer, make and g++ (or clang++).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard kernels/*)

.DEFAULT_GOAL := help
.PHONY: help venv build install test check-all sanitize bench gpu clean

help:
	@echo "make test       run the tests"
	@echo "make check-all  what takes longer: the matrix, PROBLEMS=$(PROBLEMS) random problems, faults planted in the kernels"
	@echo "make sanitize   the native kernels under ASan, UBSan and TSan (builds of their own, half an hour)"
	@echo "make bench      run the default benchmark (fastconv bench)"
	@echo "make gpu        run the GPU benchmark with this machine's own Python"
	@echo "make build      install fastconv into $(VENV), editable, with its native kernels (also: make install)"
	@echo "make venv       create $(VENV) with PYTHON=$(PYTHON)"
	@echo "make clean      remove all of that"

venv: $(VENV)/.created

build install: $(VENV)/.installed

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.created $(SOURCES)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[bench,numba,test]'
	touch $@

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

PROBLEMS ?= 6000
FIRST ?= $(shell date +%s)

check-all: $(VENV)/.installed
	@date
	$(BIN)/fastconv check
	$(BIN)/python tests/fuzz.py --first $(FIRST) --count $(PROBLEMS)
	$(BIN)/python tests/fuzz.py --first $(FIRST) --count 400 --backends numba
	$(BIN)/python -m pytest -m exhaustive
	@date

# The builds are taken from PYTHONPATH alone: PYTHONSAFEPATH keeps this folder out. A sanitizer's library must come first of all.
SANITIZED := address thread
LIBRARY_address := libasan.so
LIBRARY_thread := libtsan.so
sanitize: $(SANITIZED:%=sanitize-%)
sanitize-%: $(VENV)/.installed
	FASTCONV_SANITIZE=$* $(BIN)/python setup.py -q build --build-lib build/sanitized-$*
	export PYTHONSAFEPATH=1 PYTHONPATH=$(CURDIR)/build/sanitized-$*:$(CURDIR)/tests OPENBLAS_NUM_THREADS=1 \
		ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 TSAN_OPTIONS=allocator_may_return_null=1:suppressions=$(CURDIR)/tests/thread_sanitizer.txt \
		LD_PRELOAD=$$($(CXX) -print-file-name=$(LIBRARY_$*)) && \
	setarch -R $(BIN)/python tests/fuzz.py --count 1000 --backends cython && \
	setarch -R $(BIN)/python -m pytest -p no:cacheprovider tests/test_runtime.py \
		-k "not memory and not sanitizers and not fork and not no_thread"

bench: $(VENV)/.installed
	$(BIN)/fastconv bench

gpu:
	PYTHONPATH=. $(PYTHON) benchmarks/gpu.py

clean:
	rm -rf $(VENV) build dist *.egg-info fastconv/*.so
