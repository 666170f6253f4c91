# Python 3.11+ and make are all that is needed; everything else goes into .venv.
PYTHON ?= python3
# Address of an index from which torch is taken first: on Linux pip's own gives a build for graphics cards of several GB, and
# "Get Started" of torch's documentation names the one with builds for CPUs. Without it, or where it cannot be reached, pip's own is used.
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALLED := $(VENV)/installed

.PHONY: demo test docs bench install clean

demo: install
	$(BIN)/nlstseg demo

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n auto --dist loadfile

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: install
	$(BIN)/python Testing/benchmarks/bench.py bench-output

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed, this is ' + sys.version)"
	$(PYTHON) -m venv $(VENV)
ifneq ($(TORCH_INDEX),)
	$(PIP) install --constraint constraints.txt --index-url "$(TORCH_INDEX)" --no-deps torch \
		|| echo "torch could not be had from $(TORCH_INDEX); pip's own index is used"
endif
	$(PIP) install --constraint constraints.txt --editable ".[slicer,train,test,docs]"
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) demo-output bench-output site
