# The commands stand in scripts/setup.py, so that `python scripts/setup.py test` works where there is no make.
PYTHON ?= python3
COMPOSE = docker compose --profile $(or $(PROFILE),prod)

COMMANDS = demo up test unit check lint bench browser docs pictures constraints chaos fuzz mutations scale-test slurm-test

.PHONY: $(COMMANDS) start stop restart clean

$(COMMANDS):  # chaos: MINUTES=10 SEED=n; fuzz: SEED=n CASES=n; scale-test: SEED=n RUNS=30; bench: QUICK=1
	@$(PYTHON) scripts/setup.py $@

# Only containers of this stack reach its Redis; still it has a password. .env keeps it, and the key of the HTTP API.
start:
	@mkdir -p corpus artifacts
	@test -e .env || { echo "There is no .env: copy .env.example to .env and set DISCORD__TOKEN in it." >&2; exit 1; }
	@test -n "$$REDIS_PASSWORD" || grep -q '^REDIS_PASSWORD=.' .env || \
	    printf '\nREDIS_PASSWORD=%s\n' "$$(od -A n -N 16 -t x1 /dev/urandom | tr -d ' \n')" >> .env
	@grep -Eq '^SECURITY__API_KEYS?=.' .env || \
	    printf '\nSECURITY__API_KEY=%s\n' "$$(od -A n -N 16 -t x1 /dev/urandom | tr -d ' \n')" >> .env
	$(COMPOSE) up --detach --build

stop restart:
	$(COMPOSE) $@

clean:  # this stack's containers, images and volumes go; ./artifacts and ./corpus stay
	$(COMPOSE) down --rmi local --volumes --remove-orphans
	@$(MAKE) --no-print-directory start
