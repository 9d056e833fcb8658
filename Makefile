# What people and CI run. `make` alone lists the targets.

CARGO ?= cargo

# For `make demo`: COUNT=1000 records (default: endless), RATE=5 a second or max, LAKE=a folder or s3://bucket/prefix,
# DATA_DIR=the broker's directory, FORMAT=json, csv or parquet, ENDPOINT_URL=of a store that speaks S3.
demo_flags = $(if $(COUNT),--count $(COUNT)) $(if $(RATE),--rate $(RATE)) \
             $(if $(LAKE),--lake $(LAKE)) $(if $(DATA_DIR),--data-dir $(DATA_DIR)) \
             $(if $(FORMAT),--format $(FORMAT)) $(if $(ENDPOINT_URL),--endpoint-url $(ENDPOINT_URL))

.DEFAULT_GOAL := help
.PHONY: help demo build test test-kafka setup lint fmt clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## Stream ticks through a broker into a folder laid out like a bucket (COUNT= RATE= LAKE= DATA_DIR=)
	$(CARGO) build --release --bins
	@target/release/mini-broker demo $(demo_flags)

build: ## Build the release binaries: mini-broker, producer, consumer
	$(CARGO) build --release --bins

test: setup ## Run every test (sets up the Python and Java clients first)
	$(CARGO) build --workspace --bins
	$(CARGO) test --workspace

test-kafka: setup ## Run the same suites against Apache Kafka instead of mini-broker
	MINI_BROKER_TEST_AGAINST=kafka $(CARGO) test -p tests --test compat --test protocol --test pipeline

setup: ## Fetch what the client tests need: Python environments, Apache Kafka's jars (quick when there already)
	@tests/setup.sh

lint: ## Check formatting, and clippy without warnings
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

fmt: ## Format the Rust code
	$(CARGO) fmt --all

clean: ## Remove everything built
	$(CARGO) clean
