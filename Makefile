# Two commands matter: `make demo` (set up, export, check, translate) and `make test` (set up, pass the tests).
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# Test processes; those tests that compare times run after them, alone.
WORKERS ?= 2
READY = $(VENV)/.ready
MODEL = export/lite_export/shipped/en-fr
BUNDLE = bundles/phone-en-fr

.PHONY: demo test phones lint benchmark matrix clean

demo: $(READY)
	$(BIN)/lite-export export $(MODEL) --output $(BUNDLE)
	$(BIN)/lite-export parity $(BUNDLE) --model $(MODEL)
	$(BIN)/lite-export translate --model $(BUNDLE) "Good morning, my friend."
	$(BIN)/lite-export translate --model $(BUNDLE) "I would like a cup of coffee, please."
	$(BIN)/lite-export translate --model $(BUNDLE) "The museum is closed on Mondays, but the garden is open."
	@echo "the bundle for the apps: $(CURDIR)/$(BUNDLE)"

test: $(READY) lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not measures"
	$(BIN)/python -m pytest -m measures

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# AOSP's adbd and an arm64 userland under qemu: needs Debian 12, root, and the packages that .ci/run lists.
phones: $(READY)
	CI=true $(BIN)/python -m pytest tests/phones
	$(BIN)/python benchmarks/emulated_phone.py

benchmark: $(READY)
	$(BIN)/python benchmarks/cached_decode.py
	$(BIN)/python benchmarks/precisions.py
	$(BIN)/python benchmarks/training.py

# Every format and precision of the shipped model, and the whole parity ladder for each: takes a while.
matrix: $(READY)
	$(BIN)/lite-export export $(MODEL) --to onnx --precision fp32,fp16,int8,int4 --output bundles/matrix-onnx
	$(BIN)/lite-export export $(MODEL) --to coreml --precision fp32,fp16,int8,int4,palette4 --output bundles/matrix-coreml
	$(BIN)/lite-export export $(MODEL) --to executorch --precision fp32,int8,int4 --cache explicit,stateful --output bundles/matrix-executorch
	for format in onnx coreml executorch; do \
		$(BIN)/lite-export parity bundles/matrix-$$format --model $(MODEL) --json bundles/matrix-$$format.json || exit 1; done

# torch first, by itself: a resolver that meets it among others may choose a build with gigabytes of CUDA.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) bundles build *.egg-info
