# Thin on purpose: each target is a script of the same name in tools/.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup build test test-interop lint audit demo bench scenarios soak coverage wheel-check docs docs-check clean compare faults ladder

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## .venv and what it needs; the other targets do it by themselves
	@tools/bootstrap demo

build: setup ## the extension, optimized, into .venv
	@. tools/env.sh && maturin develop --release

test: ## all tests: Rust, Python, and the wheel on every Python here
	@tools/test

test-interop: ## against nginx, curl, wrk, h2load, MLServer, KServe, Triton's and the openai client, grpcio, httpx, schemathesis, Prometheus, Chromium
	@tools/test-interop $(ARGS)

lint: ## formatting, clippy, types, documentation
	@tools/lint

audit: ## licences, sources and known weaknesses of dependencies
	@tools/audit

demo: ## the demo
	@tools/demo

bench: ## the benchmarks
	@tools/bench

scenarios: ## load within capacity and beyond it; ARGS="--quick"
	@tools/scenarios $(ARGS)

soak: ## ten minutes of load, in which nothing may grow; ARGS="--minutes 2"
	@tools/soak $(ARGS)

compare: ## beside other servers, clients and readers of weights; ARGS="--write" writes docs/comparison.md
	@tools/compare $(ARGS)

faults: ## faults by a seed over 100,000 requests, and what became of each; ARGS="--seed 7"
	@tools/faults $(ARGS)

ladder: ## the four optimizations one by one; ARGS="--quick", ARGS="--write docs/ladder.md"
	@tools/ladder $(ARGS)

coverage: ## line coverage of Rust and Python; ARGS="--fail-under 95"
	@tools/coverage $(ARGS)

wheel-check: ## the release wheel, tried on every Python here
	@tools/wheel-check

docs: ## the site of the guides and the API reference, into target/docs/html
	@tools/docs

docs-check: setup ## links in the documentation
	@.venv/bin/python tools/docs_check.py

clean: ## all that was built, and .venv
	rm -rf target dist .venv .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .benchmarks
	rm -f python/penstock/_native*.so
	find . -name __pycache__ -prune -exec rm -rf {} +
