# medkit: every target does its own set-up in .venv; a second run installs nothing.
#
#   make tour    walk through medkit on real and simulated data; ends with build/tour/report.html
#   make test    every test and every notebook
#
#   make lab     open the course in JupyterLab: the lessons to work through, in learner/
#   make author  open the sources of notebooks and lessons in JupyterLab
#   make check   the fast subset of the tests           make test-slow   adds the slow ones
#   make teach   build the lessons for learners and instructors in build/teach, and verify each
#   make docs    build the web pages in build/docs      make render      renew the pictures kept in notebooks
#   make bench   print the figures of benchmarks/       make weights     renew the small weights in data/
#   make readme  README.md from nbs/index.ipynb         make export      medkit/ from nbs/
#   make hooks   git hooks that clean and merge notebooks   make wheel   build dist/*.whl
#   make clean   remove what was built, .venv too
#
# PYTHON=python3.12 chooses the Python (3.11 or newer).
# TORCH=cpu takes the small CPU build of torch from PyTorch's own index; TORCH=FOLDER takes the wheels in FOLDER.

PYTHON ?= python3
TORCH ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-$(subst /,_,$(TORCH))
EXPORTED := build/.exported
NOTEBOOKS := $(shell find nbs -name '*.ipynb' -not -path '*/.*')
LIBRARY := $(shell find nbs -path 'nbs/[0-9]_*' -name '*.ipynb' -not -path '*/.*')
PYTEST := $(BIN)/python -m pytest tests --strict-markers -n 2 --dist loadgroup

.PHONY: tour test check test-slow lab author teach docs bench bench-bcg bench-dicom bench-imaging bench-stages bench-teach bench-gpu render weights readme export hooks wheel clean install
.DEFAULT_GOAL := tour

install: $(INSTALLED)

$(INSTALLED): settings.ini setup.py docs/install.py
	@$(PYTHON) docs/install.py --venv $(VENV) --torch "$(TORCH)"
	@rm -f $(VENV)/.installed-* && touch $@

$(EXPORTED): $(INSTALLED) $(LIBRARY)
	@$(BIN)/nbdev_export
	@mkdir -p build && touch $@

export: $(EXPORTED)

tour: $(EXPORTED)
	@$(BIN)/medkit tour --target build/tour

test: $(EXPORTED)
	@$(PYTEST)

check: $(EXPORTED)
	@$(PYTEST) -m "not slow and not notebook and not browser and not tour"

test-slow: $(EXPORTED)
	@MEDKIT_EXPLORE=1 $(PYTEST) --slow

lab: $(EXPORTED)
	@$(BIN)/medkit teach lab learner

author: $(EXPORTED)
	@$(BIN)/jupyter lab --config=data/lab/jupyter_server_config.py --ServerApp.root_dir=nbs --LabApp.default_url=/lab/tree/lessons/00_tour.ipynb

teach: $(EXPORTED)
	@$(BIN)/medkit teach build nbs/lessons --target build/teach
	@$(BIN)/medkit teach verify nbs/lessons

docs: $(EXPORTED)
	@$(BIN)/python docs/build.py

bench-bcg: $(EXPORTED)
	@$(BIN)/python benchmarks/bench_bcg.py --peers $(BENCH)

bench-imaging: $(EXPORTED)
	@$(BIN)/python benchmarks/bench_imaging.py $(BENCH)

bench-stages: $(EXPORTED)
	@$(BIN)/python benchmarks/bench_stages.py $(BENCH)

bench-teach: $(EXPORTED)
	@$(BIN)/python benchmarks/bench_teach.py $(BENCH)

bench-gpu: $(EXPORTED)
	@$(BIN)/python benchmarks/bench_gpu.py $(BENCH)

bench-dicom: $(EXPORTED)
	@$(BIN)/python benchmarks/bench_dicom.py $(BENCH)

bench: $(EXPORTED)
	@for f in benchmarks/bench_*.py; do echo "== $$f"; $(BIN)/python $$f || exit 1; done

render: $(EXPORTED)
	@$(BIN)/python docs/render.py

weights: $(EXPORTED)
	@$(BIN)/python docs/weights.py

readme: $(EXPORTED)
	@$(BIN)/python docs/readme.py

hooks: $(INSTALLED)
	@$(BIN)/nbdev_install_hooks

wheel: $(EXPORTED)
	@$(BIN)/python -m build --wheel --outdir dist

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
