# What a person types. The work is in scripts/, which also run alone and from any directory.
.PHONY: help demo test bench setup
.DEFAULT_GOAL := help

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)$$/  make \1\t\2/p' Makefile | expand -t 16

demo: ## back up, break and recover a throw-away PostgreSQL on this machine (ARGS="--keep" leaves it)
	@scripts/setup demo
	@scripts/demo $(ARGS)

test: ## install what is missing, then run every check and test
	@scripts/setup test
	@scripts/test

bench: ## measure backup and restore beside pgBackRest and pg_basebackup (some minutes)
	@scripts/setup bench
	@scripts/bench

setup: ## only install what the tests need
	@scripts/setup test
