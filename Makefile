# SPDX-License-Identifier: Apache-2.0
# Sets up everything by itself; safe to interrupt and to repeat. `make help` lists the targets.
PYTHON ?= python3
# What pip installs as torch; empty: what was chosen last, at first torch==2.13.0, which brings the CUDA libraries (2.7 GB).
# The CPU build alone is 0.2 GB; INDEX is PyTorch's package index of CPU builds, which its install page names:
#   make demo TORCH="torch==2.13.0+cpu --extra-index-url INDEX"
TORCH ?=
# Further arguments of pytest: make test ARGS="test/geometry -k plane"
ARGS ?=

.PHONY: help build demo test bench clean
help:
	@echo "make demo    set up everything (once), run the phantom session, report in build/demo"
	@echo "make test    set up everything (once) and run all tests          [ARGS=arguments of pytest]"
	@echo "make bench   run every benchmark; tables here, JSON in build/bench"
	@echo "make build   set up only: .venv with pinned packages, colcon build"
	@echo "make clean   remove .venv and build"
	@echo "PYTHON=python3.12 chooses the interpreter, TORCH=... the torch build (see the Makefile's head)."
	@echo "With a ROS 2 distribution sourced, that ROS is used instead of the wheels."

build:
	@PYTHON='$(PYTHON)' TORCH='$(TORCH)' tools/setup.sh

demo: build
	@.venv/bin/usreg run phantom --report build/demo

test: build
	@tools/in_env.sh python -m pytest -n auto --dist loadgroup $(ARGS)

bench: build
	@mkdir -p build/bench
	@tools/in_env.sh tools/bench.sh

clean:
	@rm -rf .venv build
