# `make` prints the targets. `make run` and `make test` do all set-up by themselves.
#
# Two environments: .venv has everything; .venv-core has the core's packages alone, so that tests/core notices
# a core that leans on more. Stamp files make a second run start at once. Two more come to be where they are asked for:
# .venv-flet builds the phone app, .venv-phone has what that brings along.

PYTHON := $(shell for p in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
UV := $(shell command -v uv)
BIN := .venv/bin

# Versions are written in pyproject.toml only.
LLAMA := $(shell sed -n 's/.*"\(llama-cpp-python==[0-9.]*\); platform_system != .*/\1/p' pyproject.toml)
TORCH := $(shell sed -n 's/.*"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
PYTEST := $(shell sed -n 's/.*"\(pytest==[^"]*\)".*/\1/p' pyproject.toml)

# The compiled wheel is kept outside the clone, so that it is compiled once per machine and version.
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/impchat/wheels
LLAMA_WHEEL = $(CACHE)/$(subst -,_,$(firstword $(subst ==, ,$(LLAMA))))-$(lastword $(subst ==, ,$(LLAMA)))-*.whl

PIP = $(@D)/bin/python -m pip install --quiet --disable-pip-version-check
INSTALL = $(if $(UV),$(UV) pip install --quiet --python $(@D)/bin/python,$(PIP))
LOCKED = --constraint requirements.lock
NODE = PATH="$(CURDIR)/.venv/bin:$(CURDIR)/.venv/page/node_modules/.bin:$$PATH"
heading = @printf '\n== %s ==\n' "$(1)"

# Android and iOS want a number that grows with each version: 1.2.3 is 10203.
BUILD := $(shell sed -n 's/^version = "\([0-9.]*\)"/\1/p' pyproject.toml | awk -F. '{ print $$1 * 10000 + $$2 * 100 + $$3 }')
FLET := $(shell sed -n 's/.*"\(flet\[all\]==[^"]*\)".*/\1/p' pyproject.toml)
NEEDED := $(shell sed -n "/^dependencies = \[$$/,/^\]/s/^ *\"\([^\";]*\)\",\( *#.*\)\{0,1\}$$/'\1'/p" pyproject.toml)
APP := $(shell sed -n '/^\[tool.flet.android\]/,/^$$/s/^dependencies = \[\(.*\), "impchat"\]$$/\1/p' pyproject.toml | tr -d ,)
PHONE_LLAMA := $(shell sed -n 's/.*"\(llama-cpp-python==[0-9.]*\); platform_system == .*/\1/p' pyproject.toml)

.PHONY: help run mobile test lint test-core test-all phone-env test-phone demo load bench-history peers lock wheel clean chromium icons apk aab ipa
.NOTPARALLEL:

help: ## print this list
	@sed -n 's/^\([a-z][a-z -]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r names about; do \
		for name in $$names; do printf 'make %-13s %s\n' "$$name" "$$about"; done; done

run: .venv/.web ## open ImpChat-Web at http://127.0.0.1:7860
	$(BIN)/impchat web

mobile: .venv/.mobile ## the phone app in a browser, at http://127.0.0.1:7862
	$(BIN)/impchat mobile

test: lint test-core test-all ## every check and test, as CI runs them

lint: .venv/.dev .venv/.page ## ruff, mypy, the import directions, the page's modules
	$(call heading,Lint: ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(call heading,Types: mypy)
	$(BIN)/mypy
	$(call heading,Import directions: import-linter)
	$(BIN)/lint-imports
	$(call heading,The page's modules: tsc and oxlint)
	$(NODE) tsc -p web
	$(NODE) oxlint --config web/.oxlintrc.json --tsconfig web/tsconfig.json --type-aware web/impchat_web/static

test-core: .venv-core/.core ## the core's tests, with the core's packages alone
	$(call heading,Tests of the core with its packages alone)
	.venv-core/bin/python -m pytest tests/core

test-all: .venv/.dev chromium ## all other tests
	$(call heading,All other tests)
	$(BIN)/python -m pytest --ignore=tests/core

demo: .venv/.dev ## train the bundled demo model again
	$(BIN)/python -m tools.demo_model.train

load: .venv/.web ## fifty clients at impchat serve, for a minute
	$(BIN)/python -m benchmarks.load

bench-history: .venv/.dev ## how fast a history of 100,000 messages is
	$(BIN)/python -m pytest benchmarks/test_history.py --benchmark-columns=min,median,max,rounds --benchmark-sort=name

# The folder that `impchat bench peers` looks in (impchat/bench/programs.py).
PEERS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/impchat/peers
LLAMA_SOURCE = $(subst -,_,$(firstword $(subst ==, ,$(LLAMA))))-$(lastword $(subst ==, ,$(LLAMA)))

peers: .venv/.made ## build llama.cpp's own programs for `impchat bench peers`, in the user's cache
	@for tool in cmake g++; do command -v $$tool >/dev/null || { echo "make peers compiles llama.cpp and finds no $$tool; install it (on Debian: apt-get install cmake g++) and start make again."; exit 1; }; done
	$(call heading,llama-server and llama-bench of $(LLAMA): ten minutes or more; once; kept in $(PEERS))
	@mkdir -p "$(PEERS)"
	@test -f "$(PEERS)/$(LLAMA_SOURCE).tar.gz" || $(BIN)/python -m pip download --quiet --disable-pip-version-check \
		--no-deps --no-binary llama-cpp-python --dest "$(PEERS)" $(LLAMA)
	tar -xzf "$(PEERS)/$(LLAMA_SOURCE).tar.gz" -C "$(PEERS)"
	cmake -S "$(PEERS)/$(LLAMA_SOURCE)/vendor/llama.cpp" -B "$(PEERS)/build" -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF \
		-DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF
	cmake --build "$(PEERS)/build" --config Release --target llama-server llama-bench --parallel $$(getconf _NPROCESSORS_ONLN)
	@ln -sfn build/bin "$(PEERS)/bin" && ls "$(PEERS)/bin/llama-server" "$(PEERS)/bin/llama-bench"

lock: .venv/.made ## write requirements.lock anew, with the newest versions that pyproject.toml allows
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --quiet --upgrade --universal --all-extras --python-version 3.11 --no-annotate --no-header \
		--output-file requirements.lock pyproject.toml

wheel: .venv/.web ## the wheel, into dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

icons: .venv/.dev chromium ## draw the app's icons again
	$(BIN)/python assets/icon/draw.py

apk aab ipa: .venv-flet/.flet ## package the phone app, into build/ (ipa: on a Mac)
	@[ $@ != ipa ] || [ "$$(uname -s)" = Darwin ] || { echo "make ipa needs a Mac with Xcode; .github/workflows/mobile.yml has one."; exit 1; }
	@command -v flutter >/dev/null || ls $(HOME)/flutter/*/bin/flutter >/dev/null 2>&1 || \
		.venv-flet/bin/python -c 'import socket; socket.getaddrinfo("storage.googleapis.com", 443)' 2>/dev/null || { \
		echo "make $@ needs Flutter$(if $(filter ipa,$@),,, a JDK and the Android SDK), which Flet fetches from the network, and there is none here; .github/workflows/mobile.yml builds the same file."; exit 1; }
	.venv-flet/bin/flet build $@ . --yes --build-number $(BUILD)

phone-env: .venv-phone/.phone

test-phone: phone-env ## core and app with the versions of a phone's packages
	$(call heading,Tests of the core and the app with the phone's versions of their packages)
	.venv-phone/bin/python -m pytest tests/core $(addprefix tests/mobile/test_,chat.py screens.py handlers.py)

clean: ## remove what make made in this folder
	rm -rf .venv .venv-core .venv-flet .venv-phone dist build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.made .venv-core/.made .venv-flet/.made .venv-phone/.made:
	@test -n "$(PYTHON)" || { echo "ImpChat needs Python 3.11 or newer; install it (on Debian: apt-get install python3 python3-venv) and start make again."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv module is missing; install it (on Debian: apt-get install python3-venv) and start make again."; exit 1; }
	$(call heading,A virtual environment in $(@D))
	$(PYTHON) -m venv $(@D)
	@touch $@

# llama-cpp-python has no ready wheel on the package index.
.venv-phone/.llama: LLAMA := $(PHONE_LLAMA)
.venv/.llama .venv-core/.llama .venv-phone/.llama: %/.llama: %/.made pyproject.toml requirements.lock
	@ls $(LLAMA_WHEEL) >/dev/null 2>&1 || { \
		for tool in gcc g++; do command -v $$tool >/dev/null || { echo "ImpChat compiles llama.cpp and finds no $$tool; install a compiler (on Debian: apt-get install gcc g++) and start make again."; exit 1; }; done; \
		printf '\n== Compiling $(LLAMA): five to ten minutes, once; the wheel is then kept in %s ==\n' "$(CACHE)"; \
		mkdir -p "$(CACHE)" && CMAKE_BUILD_PARALLEL_LEVEL=$$(getconf _NPROCESSORS_ONLN) \
			$(@D)/bin/python -m pip wheel --no-deps --wheel-dir "$(CACHE)" $(LLAMA); }
	$(INSTALL) $(LLAMA_WHEEL)
	@touch $@

.venv-core/.core: .venv-core/.llama
	$(call heading,The core's packages)
	$(INSTALL) $(LOCKED) -e . $(PYTEST)
	@touch $@

.venv/.mobile: .venv/.llama
	$(call heading,The packages of ImpChat-Mobile)
	$(INSTALL) $(LOCKED) -e '.[mobile]'
	@touch $@

.venv-flet/.flet: .venv-flet/.made pyproject.toml
	$(call heading,Flet's packager)
	$(INSTALL) '$(FLET)' $(PYTEST)
	@touch $@

# impchat alone by --no-deps: on this machine its own requirements name the desktop's llama.cpp.
.venv-phone/.phone: .venv-phone/.llama tests/package/phone_wheels.txt
	$(call heading,The phone's packages)
	$(INSTALL) -c tests/package/phone_wheels.txt $(NEEDED) $(APP) rich jinja2 $(PYTEST)
	$(INSTALL) --no-deps -e .
	@touch $@

.venv/.web: .venv/.llama
	$(call heading,The packages of ImpChat-Web and of the phone app that it shows)
	$(INSTALL) $(LOCKED) -e '.[web,mobile]'
	@touch $@

# torch by pip alone: pip's configuration decides which build, and uv does not read it.
.venv/.dev: .venv/.web
	$(call heading,The packages for converting and testing)
	$(PIP) $(LOCKED) $(TORCH)
	$(INSTALL) $(LOCKED) -e '.[web,mobile,cluster,convert,dev]'
	@touch $@

# node and npm come from PyPI with the packages above, so that no machine needs them. node would trust only the
# certificates that it brings; behind a company's proxy, the system's are needed too.
.venv/.page: .venv/.dev web/package.json web/package-lock.json
	$(call heading,The linters of the page's modules)
	@mkdir -p .venv/page && cp web/package.json web/package-lock.json .venv/page
	cd .venv/page && $(NODE) NODE_USE_SYSTEM_CA=1 npm ci --cache cache --ignore-scripts --no-audit --no-fund --no-update-notifier
	@rm -rf .venv/page/cache
	@touch $@

chromium:
	@command -v chromium >/dev/null || { \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			printf '\n== Installing Chromium for the tests of the page ==\n'; \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium; \
		else echo "The tests of the page need Chromium; install it (on Debian: sudo apt-get update && sudo apt-get install -y chromium) and start make again."; exit 1; fi; }
