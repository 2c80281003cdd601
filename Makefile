# `make help` lists what there is. Nothing here needs more than python3 with venv, make, and (for the demo) a C compiler.
PYTHON ?= python3
VENV := .venv
# How many tests run side by side, in processes with servers of their own; chaos and the stores
# of data, whose silence is measured, have the machine to themselves.
JOBS ?= 2
PEERS := build/peers

.DEFAULT_GOAL := help
.PHONY: help venv test test-core test-docs test-chaos test-runners test-data test-launch test-server chaos venv-on test-on demo bench peers couchdb clean

help:  ## list what there is
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 12

venv: $(VENV)/stamp  ## make .venv with all that tests and demo need, where it is missing or stale

# The stamp also names this folder: a moved tree has a .venv whose scripts point elsewhere.
$(VENV)/stamp: pyproject.toml setup.py
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test,test-runners,test-data,test-launch,test-server,demo]'
	@pwd > $@

ifneq ($(wildcard $(VENV)/stamp),)
ifneq ($(shell cat $(VENV)/stamp),$(CURDIR))
.PHONY: $(VENV)/stamp
endif
endif

# Folders of tests with targets of their own.
GROUPS := docs chaos container cwl functions data launch launch_grid snakemake cloud services server browser

test: test-core test-docs test-runners test-data test-launch test-server test-chaos  ## run all tests

test-core: venv  ## unit, conformance, acceptance, picas compatibility
	@began=$$(date +%s); $(VENV)/bin/python -m pytest --numprocesses $(JOBS) $(foreach group,$(GROUPS),--ignore=tests/$(group)) \
		&& echo "core: $$(( $$(date +%s) - began )) s of 480 s"

test-docs: venv  ## the pages and the examples run; lint, format, types, import contracts, the shape of the code
	@began=$$(date +%s); $(VENV)/bin/python -m pytest --numprocesses $(JOBS) tests/docs \
		&& echo "docs and examples: $$(( $$(date +%s) - began )) s of 240 s"

test-chaos: venv  ## the promise, while workers, servers, lines, clocks and disks fail
	@began=$$(date +%s); $(VENV)/bin/python -m pytest tests/chaos \
		&& echo "chaos: $$(( $$(date +%s) - began )) s of 600 s"

test-runners: venv  ## containers, CWL workflows, Python functions, with the real engines
	@began=$$(date +%s); $(VENV)/bin/python -m pytest --numprocesses $(JOBS) tests/container tests/cwl tests/functions \
		&& echo "runners: $$(( $$(date +%s) - began )) s of 480 s"

test-data: venv  ## inputs, outputs, shared files, with real servers of every kind
	@began=$$(date +%s); $(VENV)/bin/python -m pytest tests/data \
		&& echo "data: $$(( $$(date +%s) - began )) s of 480 s"

test-launch: venv  ## workers anywhere: real Slurm, ARC, HTCondor, OpenStack, Snakemake
	@began=$$(date +%s); $(VENV)/bin/python -m pytest --numprocesses $(JOBS) --dist loadscope \
	    tests/launch tests/launch_grid tests/snakemake tests/cloud tests/services \
		&& echo "launch: $$(( $$(date +%s) - began )) s of 840 s"

test-server: venv  ## the server: pages in a real browser, both APIs, access, with real clients and proxies
	@began=$$(date +%s); $(VENV)/bin/python -m pytest --numprocesses $(JOBS) tests/server tests/browser \
		&& echo "server: $$(( $$(date +%s) - began )) s of 360 s"

OTHER = build/venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

venv-on:  ## make the environment for another Python: make venv-on PYTHON=python3.9
	$(PYTHON) -m venv --clear $(OTHER)
	$(OTHER)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[test,web,demo]'

test-on: venv-on  ## unit and conformance tests on another Python: make test-on PYTHON=python3.9
	$(OTHER)/bin/python -m pytest tests/unit tests/conformance

chaos: venv  ## the same for longer: make chaos TOKENS=5000 KILLS=500 SECONDS=600
	$(VENV)/bin/python -m pytest tests/chaos --chaos-tokens $(or $(TOKENS),1000) --chaos-kills $(or $(KILLS),100) \
	    --chaos-seconds $(or $(SECONDS),120)

demo: venv examples/bin/fractals  ## draw 24 fractals in parallel into demo/contact-sheet.png
	$(VENV)/bin/python examples/demo.py --folder demo

examples/bin/fractals: examples/src/fractals.c
	mkdir -p $(@D)
	$(CC) $< -o $@ -lm

bench: venv $(PEERS)/stamp  ## measure beside the peers: make bench COUCHDB=http://admin:secret@127.0.0.1:5984 BENCH="--only shell"
	$(VENV)/bin/python benchmarks/bench.py --couchdb "$(COUCHDB)" --peers-python $(PEERS)/bin/python $(BENCH)
	$(if $(BENCH),,$(VENV)/bin/python benchmarks/map.py --peers-python $(PEERS)/bin/python)
	$(if $(BENCH),,$(VENV)/bin/python benchmarks/staging.py --peers $(PEERS)/bin)

peers: $(PEERS)/stamp  ## install what the benchmark compares with, as far as it can be had

# One by one: a peer that cannot be installed is skipped, and named by the benchmark.
$(PEERS)/stamp: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv --clear $(PEERS)
	while read -r peer; do \
		$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check "$$peer" || echo "skipped: $$peer"; \
	done < $<
	@touch $@

couchdb:  ## start a CouchDB on 127.0.0.1:5984
	docker compose up --detach --wait

clean:  ## remove what the other targets made
	rm -rf $(VENV) build demo examples/bin/fractals
