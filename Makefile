# pneumocam: `make` alone prints what there is.
#
#   make train archive serve                    the whole road, on phantoms where no data is given
#   make train archive serve DATA=folder        on your X-rays

SHELL := bash
.NOTPARALLEL:  # train, archive and serve follow each other, -j or not
.DEFAULT_GOAL := help
.PHONY: help setup data train evaluate crosscheck archive publish serve token tls stop predict \
        versions promote retire rollback tune tune-server test check lint bench audit lock

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

# A value reaches the script as it was typed: spaces, quotes, &, $ and parentheses included.
quote = '$(subst ','\'',$(1))'
# An option is passed on only where it was given.
option = $(if $(2),--$(1) $(call quote,$(2)))
# Several names, by spaces or commas.
comma := ,
names = $(foreach name,$(subst $(comma), ,$(1)),$(call quote,$(name)))

help:  ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-12s%s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo 'options, such as DATA=folder: docs/reference.md'

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

train: setup  ## train both networks, evaluate them, cross-check their maps
	@$(RUN) -m train train $(call option,data,$(DATA)) $(call option,init,$(INIT)) \
	  $(call option,preset,$(PRESET)) $(call option,networks,$(NETWORKS)) \
	  $(call option,seed,$(SEED)) $(call option,split-seed,$(SPLIT_SEED)) \
	  $(call option,patient,$(PATIENT)) $(call option,masks,$(MASKS)) --judge $(call quote,$(JUDGE)) $(TRAIN_FLAGS)

evaluate: setup  ## evaluate the last run again
	@$(RUN) -m train evaluate --judge $(call quote,$(JUDGE)) $(call option,twins,$(TWINS))

tune: setup  ## search the recipe's hyperparameters with Optuna; resumable
	@$(RUN) -m train tune $(call option,data,$(DATA)) $(call option,seed,$(SEED)) \
	  $(call option,patient,$(PATIENT)) $(call option,masks,$(MASKS)) $(TUNE_FLAGS)

tune-server: setup  ## try the server's settings; what is faster goes into config.properties
	@$(RUN) -m benchmarks.serving.tune_server $(if $(NETWORKS),--networks $(call names,$(NETWORKS)))

crosscheck: setup  ## hook maps against Captum's, on the last run
	@$(RUN) -m train crosscheck --judge $(call quote,$(JUDGE))

archive: setup  ## pack the last run's networks, or those of weights/, into model_store/
	@$(RUN) -m train archive --version $(call quote,$(VERSION)) $(call option,networks,$(NETWORKS)) \
	  $(call option,engine,$(ENGINE)) $(call option,precision,$(PRECISION)) \
	  $(call option,data,$(DATA))

publish: setup  ## round the last run's networks to half precision, evaluate them, copy to weights/
	@$(RUN) -m train publish $(call option,networks,$(NETWORKS))

serve: setup  ## start TorchServe on loopback and wait until every model answers
	@$(RUN) -m client serve $(if $(NETWORKS),--networks $(call names,$(NETWORKS))) \
	  $(call option,data,$(DATA)) $(call option,auth,$(AUTH)) $(call option,tls,$(TLS)) \
	  $(call option,address,$(ADDRESS))

token: setup  ## print a token that the running server accepts for an hour (AUTH=token)
	@$(RUN) -m client token

tls:  ## a key and a certificate for this machine in TLS= (default: tls/), for tests
	@mkdir -p $(call quote,$(or $(TLS),tls))
	@openssl req -x509 -newkey rsa:3072 -nodes -days 30 -subj /CN=localhost \
	  -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
	  -keyout $(call quote,$(or $(TLS),tls)/server.key) -out $(call quote,$(or $(TLS),tls)/server.pem) 2>/dev/null
	@chmod 600 $(call quote,$(or $(TLS),tls)/server.key)
	@echo next: make serve AUTH=token TLS=$(call quote,$(or $(TLS),tls))

stop: setup  ## stop that server
	@$(RUN) -m client stop

predict: setup  ## ask the server about IMAGE=file-or-folder; overlays into predictions/
	@[ -n $(call quote,$(IMAGE)) ] || { echo "which image? make predict IMAGE=file-or-folder"; exit 2; }
	@$(RUN) -m client predict $(call quote,$(IMAGE)) --network $(call quote,$(NETWORK)) --save predictions

versions: setup  ## list what the server serves
	@$(RUN) -m client versions

promote: setup  ## make VERSION= of NETWORK= the default; with REPLAY=folder only if it passes
	@$(RUN) -m client promote $(call quote,$(NETWORK)) $(call quote,$(VERSION)) $(call option,replay,$(REPLAY)) \
	  $(call option,shadow,$(SHADOW)) $(call option,watch,$(WATCH))

retire: setup  ## take VERSION= of NETWORK= off the server once its last answer is out
	@$(RUN) -m client retire $(call quote,$(NETWORK)) $(call quote,$(VERSION))

rollback: setup  ## make the version before the last promotion of NETWORK= the default again
	@$(RUN) -m client rollback $(call quote,$(NETWORK))

test: setup  ## every test, those with a real TorchServe too
	@$(RUN) -m pytest

check: lint  ## the linters, and the tests of handlers, documents, data and metrics
	@$(RUN) -m pytest -m "not minutes" tests/handlers tests/project tests/train/data tests/train/metrics

lint: setup  ## ruff, mypy, import-linter, and whether identifiers are words of the field
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@$(VENV)/bin/lint-imports
	@$(RUN) .ci/words.py

bench: setup  ## how fast it serves, draws and trains: docs/results/speed.md
	@rm -rf cache/bench
	@for precision in f32 int8; do \
	  $(RUN) -m train archive --store cache/bench/$$precision --precision $$precision \
	    $(call option,networks,$(NETWORKS)) $(call option,data,$(DATA)) \
	  || echo "NOT ALL IS MEASURED IN $$precision: see above"; done
	@$(RUN) -m benchmarks.serving --archive f32=cache/bench/f32 --archive int8=cache/bench/int8 \
	  $(call option,images,$(IMAGES)) $(BENCH_FLAGS)
	@$(RUN) -m benchmarks.micro.overlay_speed
	@$(RUN) -m benchmarks.micro.training_speed

audit: setup  ## list known vulnerabilities of the locked packages, by pip-audit
	@$(RUN) .ci/audit.py

lock: setup  ## make requirements.lock again from pyproject.toml
	@$(RUN) .ci/lock.py
