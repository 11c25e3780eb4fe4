# pneumocam: `make` alone prints what there is.
#
#   make train archive serve                    the whole road, on phantoms where no data is given
#   make train archive serve DATA=folder        on your X-rays

SHELL := bash
.NOTPARALLEL:  # train, archive and serve follow each other, -j or not
.DEFAULT_GOAL := help
.PHONY: help setup data train evaluate crosscheck archive publish serve token tls stop predict \
        versions promote retire rollback tune tune-server test lint bench audit lock

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python

# What may stand on the make line. Empty: the script chooses, and says so.
DATA     ?=
INIT     ?=
PRESET   ?=
NETWORKS ?=
VERSION  ?= 1.0
SEED     ?= 0
SPLIT_SEED ?=
PATIENT  ?=
ENGINE   ?=
PRECISION ?=
MASKS    ?=
TWINS    ?=
JUDGE    ?= test
TRAIN_FLAGS ?=
TUNE_FLAGS ?=
AUTH     ?=
TLS      ?=
ADDRESS  ?=
REPLAY   ?=
WATCH    ?=
SHADOW   ?=
IMAGE    ?=
IMAGES   ?=
BENCH_FLAGS ?=
NETWORK  ?= resnet50

# An option is passed on only where it was given.
option = $(if $(2),--$(1) "$(2)")

help:  ## print this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12
	@echo 'options: DATA= INIT= PRESET= NETWORKS= VERSION= SEED= SPLIT_SEED= PATIENT= ENGINE= PRECISION= MASKS= TWINS= JUDGE= TRAIN_FLAGS= TUNE_FLAGS= AUTH= TLS= ADDRESS= REPLAY= WATCH=; see README.md'

setup: $(VENV)/.done  ## install the exact environment into .venv (the others do it by themselves)

$(VENV)/.done: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, $(PYTHON) is older: PYTHON=python3.11 make …"; exit 1; }
	@echo "set-up: about 3 GB to fetch and 6 GB on disk, some minutes, once"
	@$(PYTHON) -m venv $(VENV)
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@touch $@

data: setup  ## fetch Kaggle's chest X-rays into data/chest_xray
	@$(RUN) -m train data

train: setup  ## train both networks, judge them, cross-check their maps
	@$(RUN) -m train train $(call option,data,$(DATA)) $(call option,init,$(INIT)) \
	  $(call option,preset,$(PRESET)) $(call option,networks,$(NETWORKS)) \
	  $(call option,seed,$(SEED)) $(call option,split-seed,$(SPLIT_SEED)) \
	  $(call option,patient,$(PATIENT)) $(call option,masks,$(MASKS)) --judge $(JUDGE) $(TRAIN_FLAGS)

evaluate: setup  ## judge the last run again
	@$(RUN) -m train evaluate --judge $(JUDGE) $(call option,twins,$(TWINS))

tune: setup  ## search the recipe's numbers with Optuna; goes on where it was
	@$(RUN) -m train tune $(call option,data,$(DATA)) $(call option,seed,$(SEED)) \
	  $(call option,patient,$(PATIENT)) $(call option,masks,$(MASKS)) $(TUNE_FLAGS)

tune-server: setup  ## measure the server's settings here; what wins goes into config.properties
	@$(RUN) -m benchmarks.tune_server $(if $(NETWORKS),--networks $(NETWORKS))

crosscheck: setup  ## hook maps against Captum's, on the last run
	@$(RUN) -m train crosscheck --judge $(JUDGE)

archive: setup  ## pack the last run's networks, or those of weights/, into model_store/
	@$(RUN) -m train archive --version $(VERSION) $(call option,networks,$(NETWORKS)) \
	  $(call option,engine,$(ENGINE)) $(call option,precision,$(PRECISION)) \
	  $(call option,data,$(DATA))

publish: setup  ## round the last run's networks to half precision, judge them so, copy to weights/
	@$(RUN) -m train publish $(call option,networks,$(NETWORKS))

serve: setup  ## start TorchServe on loopback and wait until every network answers
	@$(RUN) -m client serve $(if $(NETWORKS),--networks $(NETWORKS)) \
	  $(call option,data,$(DATA)) $(call option,auth,$(AUTH)) $(call option,tls,$(TLS)) \
	  $(call option,address,$(ADDRESS))

token: setup  ## print a token that the running server takes (AUTH=token), for an hour
	@$(RUN) -m client token

tls:  ## a key and a certificate for this machine in TLS= (default: tls/), for tests
	@mkdir -p "$(or $(TLS),tls)"
	@openssl req -x509 -newkey rsa:3072 -nodes -days 30 -subj /CN=localhost \
	  -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
	  -keyout "$(or $(TLS),tls)/server.key" -out "$(or $(TLS),tls)/server.pem" 2>/dev/null
	@chmod 600 "$(or $(TLS),tls)/server.key"
	@echo "next: make serve AUTH=token TLS=$(or $(TLS),tls)"

stop: setup  ## stop that server
	@$(RUN) -m client stop

predict: setup  ## ask the server about IMAGE=file-or-folder; overlays into predictions/
	@[ -n "$(IMAGE)" ] || { echo "which image? make predict IMAGE=file-or-folder"; exit 2; }
	@$(RUN) -m client predict $(IMAGE) --network $(NETWORK) --save predictions

versions: setup  ## what the server serves
	@$(RUN) -m client versions

promote: setup  ## make VERSION= of NETWORK= the default; with REPLAY=folder only if it passes
	@$(RUN) -m client promote $(NETWORK) $(VERSION) $(call option,replay,$(REPLAY)) \
	  $(call option,shadow,$(SHADOW)) $(call option,watch,$(WATCH))

retire: setup  ## take VERSION= of NETWORK= off the server once its last answer is out
	@$(RUN) -m client retire $(NETWORK) $(VERSION)

rollback: setup  ## make the version before the last promotion of NETWORK= the default again
	@$(RUN) -m client rollback $(NETWORK)

test: setup  ## every test, those with a real TorchServe too
	@$(RUN) -m pytest

lint: setup  ## ruff, mypy, import-linter
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@$(VENV)/bin/lint-imports

bench: setup  ## how fast it serves, draws and trains: docs/results/speed.md
	@rm -rf cache/bench
	@for precision in f32 int8; do \
	  $(RUN) -m train archive --store cache/bench/$$precision --precision $$precision \
	    $(call option,networks,$(NETWORKS)) $(call option,data,$(DATA)) \
	  || echo "NOT ALL IS MEASURED IN $$precision: see above"; done
	@$(RUN) -m benchmarks.serving --archive f32=cache/bench/f32 --archive int8=cache/bench/int8 \
	  $(call option,images,$(IMAGES)) $(BENCH_FLAGS)
	@$(RUN) -m benchmarks.overlay
	@$(RUN) -m benchmarks.training

audit: setup  ## known vulnerabilities of what requirements.lock pins, by pip-audit
	@$(RUN) .ci/audit.py

lock: setup  ## make requirements.lock anew from pyproject.toml
	@$(RUN) .ci/lock.py
