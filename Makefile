# make reproduce | test | check | lab | docs | benchmark | verify | clean: each sets up what it needs.
# PROFILE=full chooses another run, PART=codec (or all) more than the paper, PYTHON=... the interpreter.
PYTHON ?= python3
PROFILE ?= quick
PART ?= paper
BIN = .venv/bin
# nbval reads a cell's messages only when it has ended, and thousands of progress bars crowd out the end
NBVAL = TQDM_DISABLE=1 $(BIN)/python -m pytest -q --nbval-lax --nbval-cell-timeout=1800 \
	--override-ini=timeout=0 -p no:cacheprovider
# what make reproduce has trained: with that the paper's notebooks are also run as they are, and
# compared with the published ones (training it here would take longer than all other tests)
TRAINED = data/quick/predictions_finetuned_test/provenance.json
AS_QUICK = PAPER_FIGURES=data/nbval/figures
AS_TINY = PAPER_DATA=data/nbval/data PAPER_FIGURES=data/nbval/figures
IN_BROWSER = PAPER_LAB=data/nbval $(BIN)/python -m pytest -q tests/test_browser.py
OTHERS = $(wildcard notebooks/0[6-9]_*.ipynb notebooks/[1-9][0-9]_*.ipynb notebooks/A*_*.ipynb)

.PHONY: setup setup-test reproduce verify test test-lab check format lab docs benchmark clean

setup:
	@$(PYTHON) paper_lib/bootstrap.py $(if $(filter proxies all,$(PART)),--synth) \
		$(if $(filter tokens all,$(PART)),--voices)

setup-test:
	@$(PYTHON) paper_lib/bootstrap.py --test

reproduce: setup
	@$(BIN)/paper reproduce -p $(PROFILE) --part $(PART)

verify: setup
	@$(BIN)/paper verify -p $(PROFILE)

test: setup-test lint
	@rm -rf data/nbval
	@PAPER_KEEP_TINY=data/nbval $(BIN)/python -m pytest -q tests -n 2 --dist worksteal --durations=12 \
		--cov --cov-report=
	@if [ -f $(TRAINED) ]; then $(AS_QUICK) $(NBVAL) notebooks/0[1-5]_*.ipynb && $(AS_QUICK) $(BIN)/paper verify; \
		else echo "no run of quick is here: make reproduce, and this also compares its notebooks and tables"; fi
	@$(AS_TINY) TQDM_DISABLE=1 $(BIN)/paper reproduce -p tiny
	@$(BIN)/python tests/with_profile.py tiny data/nbval/notebooks $(OTHERS)
	@$(MAKE) -s test-others
	@PAPER_LAB_ONLY="01 12" $(IN_BROWSER)
	@$(BIN)/coverage report --skip-covered --sort=cover | tail -n 40

# Parts III and V beside Parts II and IV: neither reads what the other makes
TINY = data/nbval/notebooks
ONE_HALF = $(wildcard $(TINY)/1[3-7]_*.ipynb $(TINY)/2[2-9]_*.ipynb)
OTHER_HALF = $(filter-out $(ONE_HALF),$(wildcard $(TINY)/*.ipynb))
.PHONY: test-others
test-others:
	@$(AS_TINY) sh -c '$(NBVAL) $(ONE_HALF) & first=$$!; $(NBVAL) $(OTHER_HALF); second=$$?; \
		wait $$first && exit $$second'

# every notebook in JupyterLab, in a browser (after make test, on its tiny run): wants 20 GB of memory
test-lab: setup-test
	@$(IN_BROWSER) -n 2

# for daily work: format, lint, floors, types and the fast tests, in under two minutes
check: setup-test lint
	@$(BIN)/python -m pytest -q tests -n 2 -m "not slow"

.PHONY: lint
lint:
	@$(BIN)/ruff format --check -q . || (echo "run make format"; exit 1)
	@$(BIN)/ruff check -q .
	@said=$$($(BIN)/lint-imports --no-logo 2>&1) || { echo "$$said"; exit 1; }; \
		echo "$$said" | tail -n 4
	@$(BIN)/mypy

format: setup-test
	@$(BIN)/ruff check -q --fix . && $(BIN)/ruff format -q .

# every notebook as it is stored, with its sounds, as a site in docs/_build; executes nothing
docs: setup-test
	@$(BIN)/sphinx-build -q -W -c docs . docs/_build
	@echo "docs/_build/docs/index.html"

lab: setup
	@$(BIN)/jupyter lab notebooks

benchmark: setup
	@$(BIN)/python benchmarks/speed.py
	@$(BIN)/python benchmarks/listeners.py
	@$(BIN)/python benchmarks/adapters.py
	@$(BIN)/python benchmarks/tokens.py

# keeps what took hours: data/full and data/paper have to be removed by hand
clean:
	rm -rf .venv build paper_lib.egg-info .mypy_cache .ruff_cache data/quick data/quick-* data/tiny data/tiny-* data/nbval figures/quick figures/tiny
	@for run in data/*/; do case $$run in data/weights/|data/real/) ;; *) echo "kept: $$run (rm -r it yourself)";; esac; done
