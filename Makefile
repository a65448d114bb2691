# The commands stand in scripts/setup.py, so that `python scripts/setup.py test` works where there is no make.
PYTHON ?= python3
COMPOSE = docker compose --profile $(or $(PROFILE),prod)

.PHONY: demo up test lint check constraints chaos mutations start stop restart clean

demo up test lint check constraints chaos mutations:  # chaos takes MINUTES=10 and SEED=n
	@$(PYTHON) scripts/setup.py $@

start:
	@mkdir -p corpus artifacts logs
	$(COMPOSE) up --detach --build

stop restart:
	$(COMPOSE) $@

clean:  # this stack's containers, images and volumes go; ./artifacts and ./corpus stay
	$(COMPOSE) down --rmi local --volumes --remove-orphans
	@$(MAKE) --no-print-directory start
