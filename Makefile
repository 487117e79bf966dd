# make reproduce | test | lab | clean; each sets up what it needs. PROFILE=full chooses another run, PYTHON=... the interpreter.
PYTHON ?= python3
PROFILE ?= quick

.PHONY: setup reproduce verify test lab clean

setup:
	@$(PYTHON) paper_lib/bootstrap.py

reproduce: setup
	@.venv/bin/paper reproduce -p $(PROFILE)

verify: setup
	@.venv/bin/paper verify -p $(PROFILE)

test:
	@$(PYTHON) paper_lib/bootstrap.py --test
	@.venv/bin/python -m pytest -q tests/test_runs.py tests -n 2 --dist worksteal --durations=12
	@rm -rf data/nbval_figures
	@# no progress bars: nbval reads a cell's messages only when it has ended, and thousands of them crowd out the one that says so
	@TQDM_DISABLE=1 PAPER_FIGURES=data/nbval_figures .venv/bin/python -m pytest -q --nbval-lax --nbval-cell-timeout=1800 notebooks/[0-9A][0-9]_*.ipynb --override-ini=timeout=0
	@PAPER_FIGURES=data/nbval_figures .venv/bin/paper verify --tolerance 0.15

lab: setup
	@.venv/bin/jupyter lab notebooks

clean:
	rm -rf .venv build paper_lib.egg-info data/quick data/full data/paper data/tiny figures/tiny
