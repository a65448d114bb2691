# The commands stand in scripts/setup.py, so that `python scripts/setup.py test` works where there is no make.
PYTHON ?= python3

COMMANDS = demo up test unit check lint bench browser docs pictures constraints chaos fuzz mutations scale-test slurm-test \
    start stop restart clean image

.PHONY: $(COMMANDS)

$(COMMANDS):  # start, stop, restart, clean: PROFILE=dev; chaos: MINUTES=10 SEED=n; fuzz: SEED=n CASES=n; scale-test: SEED=n RUNS=30; bench: QUICK=1
	@$(PYTHON) scripts/setup.py $@
