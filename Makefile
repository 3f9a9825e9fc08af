# Everything that is done with this repository by hand or by a machine. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Whatever the environment says: the scripts look for the programs here.
export CARGO_TARGET_DIR := $(CURDIR)/target
# LOCKED= lets cargo change Cargo.lock.
LOCKED ?= --locked
CARGO_DENY := target/tools/bin/cargo-deny
CARGO_DENY_VERSION := 0.20.2
CARGO_FUZZ := target/tools/bin/cargo-fuzz
CARGO_FUZZ_VERSION := 0.13.2
AZURITE := target/tools/azurite
AZURITE_VERSION := 3.37.0
VCSIM := target/tools/vcsim
VCSIM_SOURCES := $(wildcard engine/peers/vcsim/*)
# Go keeps what it downloads in its own directory, and what it builds here. It changes go.mod and go.sum only by hand.
GO := GOFLAGS="-mod=readonly -buildvcs=false" GOCACHE=$(CURDIR)/target/go-build CGO_ENABLED=0 go -C engine/peers/vcsim
FUZZ_TARGETS ?= $(patsubst fuzz/fuzz_targets/%.rs,%,$(wildcard fuzz/fuzz_targets/*.rs))
FUZZ_SECONDS ?= 240
# Seconds that one input may take. Most take far less than a millisecond, but a whole repository on a busy machine more.
FUZZ_TIMEOUT ?= 30
MIRI_TARGETS := blob_name intent decision index session_objects page node changes_file
SCHEDULES ?= 20000
PART ?= 0/1
FAULTS ?= 10000
SCRIPTS := .ci/run $(wildcard cli/demo/*.sh benches/compare/*.sh)

.PHONY: help demo build test unit smoke azurite vcsim check go fmt lint docs scripts deny audit bench bench-azure bench-chunkers bench-compare bench-index bench-nbd bench-prune bench-replicate bench-restore bench-scale bench-serve fuzz crash shuttle simulate miri campaign faults model azure-test bench-replica

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-13s %s\n", $$1, $$2 }'

demo: ## build the release binary and run the main job on real disks (DEMO_MIB=560, KEEP=1 keeps target/demo)
	cli/demo/need.sh cc:gcc
	cargo build $(LOCKED) --release -p keepstone --bin keepstone --example changed_areas
	BIN=target/release cli/demo/run.sh

build: ## build the release binary, target/release/keepstone
	cargo build $(LOCKED) --release -p keepstone --bin keepstone

test: unit smoke ## all tests, and a short run of the demo; installs the Debian packages, Azurite and vcsim that they need

unit: azurite vcsim
	cli/demo/need.sh cc:gcc mke2fs:e2fsprogs mkfs.vfat:dosfstools mcopy:mtools mkntfs:ntfs-3g mkfs.xfs:xfsprogs \
	  sgdisk:gdisk sfdisk:fdisk python3:python3 \
	  cryptography.py:python3-cryptography argon2.py:python3-argon2 \
	  setpriv:util-linux qemu-img:qemu-utils qemu-storage-daemon:qemu-system-common nbdkit:nbdkit \
	  nbdinfo:libnbd-bin chromium:chromium
	cargo test $(LOCKED) --workspace
	cargo test $(LOCKED) -p keepstone-engine --features shuttle --test shuttle --test simulation --test crash_states

# `cargo test` has built the binary and the examples in the same profile.
smoke: unit
	DEMO_MIB=64 BIN=target/debug cli/demo/run.sh

azurite: $(AZURITE) ## install Azurite, which tests of the Azure backend talk to, into target/tools (365 MB)
	cli/demo/need.sh node:nodejs

# It asks for Node 22 and runs on 18.20, Debian 12's, and 20 as well. Moved when it is whole: half of it is nothing.
$(AZURITE):
	cli/demo/need.sh node:nodejs npm:npm
	rm -rf $(AZURITE).partial
	mkdir -p $(AZURITE).partial
	npm install --prefix $(AZURITE).partial --no-package-lock --no-audit --no-fund --loglevel=error \
	  azurite@$(AZURITE_VERSION)
	mv $(AZURITE).partial $(AZURITE)

vcsim: $(VCSIM) ## build the simulator of a vCenter that tests of vSphere talk to, into target/tools (Go fetches govmomi)

$(VCSIM): $(VCSIM_SOURCES)
	cli/demo/need-go.sh engine/peers/vcsim/go.mod
	mkdir -p $(@D)
	$(GO) build -trimpath -o $(CURDIR)/$@ .

check: fmt lint docs scripts go deny ## format, clippy, documentation, shellcheck, go vet and cargo-deny, with no warning left

fmt:
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check

lint:
	cargo clippy $(LOCKED) --workspace --all-targets -- -D warnings
	cargo clippy $(LOCKED) -p keepstone-engine --features shuttle --lib --test shuttle --test simulation \
	  --test crash_states -- -D warnings

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc $(LOCKED) --workspace --no-deps

scripts:
	cli/demo/need.sh shellcheck:shellcheck
	shellcheck $(SCRIPTS)

go:
	cli/demo/need-go.sh engine/peers/vcsim/go.mod
	files=$$(gofmt -l engine/peers/vcsim) && test -z "$$files" || { echo "gofmt would change: $$files" >&2; exit 1; }
	$(GO) vet ./...

deny: $(CARGO_DENY)
	$(CARGO_DENY) check bans licenses sources

audit: $(CARGO_DENY) ## ask the RustSec database, which is fetched from GitHub, about the dependencies
	$(CARGO_DENY) check advisories

# An unoptimised build takes half the time and is fast enough.
$(CARGO_DENY):
	cargo install --locked --debug --root target/tools cargo-deny@$(CARGO_DENY_VERSION)

bench: ## measure every stage beside the bare speed of its primitive (IMAGE=a raw disk image, else a synthetic one)
	cargo bench $(LOCKED) -p keepstone-benches
	cargo run $(LOCKED) --release -p keepstone-benches --bin limits -- $(if $(IMAGE),"$(IMAGE)",--repository target)

# Azurite itself is measured too, by a plain client; the image should fit the page cache twice.
bench-azure: azurite ## measure a repository in Azurite beside a local one, and restores over slow links (IMAGE=a raw disk image)
	cargo run $(LOCKED) --release -p keepstone-benches --bin azure -- "$(or $(IMAGE),$(error say IMAGE=a raw disk image))"

bench-index: ## measure a local index of SESSIONS=100 sessions of 100,000 chunks (SCRATCH=a directory with 160 bytes for each chunk)
	cargo run $(LOCKED) --release -p keepstone-benches --bin index -- --sessions $(or $(SESSIONS),100) \
	  $(if $(SCRATCH),--scratch "$(SCRATCH)")

bench-scale: ## measure disks of up to 62 TiB of which little changes, and a repository of 365,000 snapshots (some GB in /tmp)
	cargo run $(LOCKED) --release -p keepstone-benches --bin scale -- disk
	cargo run $(LOCKED) --release -p keepstone-benches --bin scale -- fleet

bench-prune: ## measure pruning ten million chunks, backups beside it, and restores before and after (SCRATCH=a directory with 16 GB)
	cargo build $(LOCKED) --release -p keepstone-benches --bin prune
	for what in large beside restores; do \
	  $(CARGO_TARGET_DIR)/release/prune $$what --repository "$(or $(SCRATCH),$(error say SCRATCH=a directory with 16 GB))"; \
	done

bench-replica: ## measure telling what is whole in a replica of 100,000 restore points and a million packs (SCRATCH=a directory with 8 GB and 1.2 million inodes)
	cargo run $(LOCKED) --release -p keepstone-benches --bin scale -- replica $(if $(SCRATCH),--repository "$(SCRATCH)")

# kopia is in no Debian package: it is measured too if it is in PATH, or KOPIA says where it is.
bench-compare: build ## back up and restore with restic and borg too (IMAGE=a raw disk image, IMAGE2=another one)
	cli/demo/need.sh restic:restic borg:borgbackup python3:python3 cmp:diffutils column:bsdextrautils
	benches/compare/compare.sh "$(or $(IMAGE),$(error say IMAGE=a raw disk image))" $(if $(IMAGE2),"$(IMAGE2)")

bench-chunkers: ## compare chunkers on disk images: what is stored, processor time, what is read (IMAGES="day0.raw day1.raw other.raw")
	cargo run $(LOCKED) --release -p keepstone-benches --bin chunkers -- $(or $(IMAGES),$(error say IMAGES=raw disk images))

bench-serve: ## measure a served disk beside a restore (IMAGE=a raw disk image)
	cli/demo/need.sh nbdcopy:libnbd-bin
	cargo run $(LOCKED) --release -p keepstone-benches --bin serve -- "$(or $(IMAGE),$(error say IMAGE=a raw disk image))"

bench-nbd: ## measure reading and writing over NBD beside nbdcopy (IMAGE=a raw disk image)
	cli/demo/need.sh setpriv:util-linux qemu-nbd:qemu-utils nbdkit:nbdkit nbdcopy:libnbd-bin
	cargo run $(LOCKED) --release -p keepstone-benches --bin nbd -- "$(or $(IMAGE),$(error say IMAGE=a raw disk image))"

bench-replicate: azurite ## measure copies between two accounts in Azurite, by the service and through the host (IMAGE=a raw disk image)
	cargo run $(LOCKED) --release -p keepstone-benches --bin replicate -- "$(or $(IMAGE),$(error say IMAGE=a raw disk image))"

bench-restore: ## measure restores of an image and of the last of 200 incremental backups of it (IMAGE=a raw disk image)
	cargo run $(LOCKED) --release -p keepstone-benches --bin restore -- "$(or $(IMAGE),$(error say IMAGE=a raw disk image))"

# The stable compiler has what cargo-fuzz asks for and hides it. The corpus is kept between runs; a finding is written
# to fuzz/artifacts and ends the run, and `FUZZ_TARGETS=name FUZZ_SECONDS=0` goes on with one target until then.
fuzz: $(CARGO_FUZZ) ## fuzz each decoder for FUZZ_SECONDS=240, an hour for all (FUZZ_TARGETS="page node" for some)
	cli/demo/need.sh c++:g++
	cargo run $(LOCKED) -p keepstone-fuzz-bodies --example seeds -- fuzz/corpus
	for target in $(FUZZ_TARGETS); do \
	  RUSTC_BOOTSTRAP=1 $(CARGO_FUZZ) run --target-dir target/fuzz $$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -timeout=$(FUZZ_TIMEOUT) -malloc_limit_mb=512 -print_final_stats=1; \
	done

crash: ## fail every store call of a sequence of backups in every way: some thousand states, each to its end
	KEEPSTONE_CRASH_STATES=all cargo test $(LOCKED) -p keepstone-engine --test crash -- --nocapture

faults: azurite ## harm requests to Azurite until FAULTS=10000 faults have happened; every snapshot must restore
	KEEPSTONE_FAULTS=$(FAULTS) cargo test $(LOCKED) -p keepstone-engine --test azure campaign -- --nocapture

azure-test: ## test the Azure backend with a real account (KEEPSTONE_TEST_AZURE_URL; see docs/azure.md)
	cargo test $(LOCKED) -p keepstone-engine --test azure_account

model: ## visit the large models of the commit and prune protocol: more than 10^8 states (RUN="part of a name" for some)
	cargo run $(LOCKED) --release -p keepstone-model -- large $(if $(RUN),"$(RUN)")

shuttle: ## run backups with their threads in SCHEDULES=20000 orders for each kind of failure
	KEEPSTONE_SCHEDULES=$(SCHEDULES) cargo test $(LOCKED) -p keepstone-engine --features shuttle --test shuttle

simulate: ## simulate hosts, pruners and a failing store, seed after seed FROM=2000 on until one fails; or one SEED=n with all its calls
	$(if $(SEED),KEEPSTONE_SEED=$(SEED),KEEPSTONE_SEEDS_FROM=$(or $(FROM),2000)) \
	  cargo test $(LOCKED) -p keepstone-engine --features shuttle --test simulation whatever -- --nocapture

campaign: ## damage every byte and every length of a repository of 2 MiB, one by one (PART=0/20 for a twentieth)
	KEEPSTONE_CAMPAIGN=$(PART) cargo test $(LOCKED) --release -p keepstone-engine --test damage campaign -- --nocapture

# Miri runs no foreign code: what compresses or seals is left out. It needs a nightly compiler: rustup toolchain install
# nightly --component miri,rust-src.
miri: export MIRIFLAGS := -Zmiri-disable-isolation
miri: ## run the format's parsers on valid, cut and mutated bytes under Miri, which finds undefined behaviour
	cargo +nightly miri test $(LOCKED) -p repo-format --test format --target-dir target/miri -- names:: map_rules::
	cargo +nightly miri test $(LOCKED) -p keepstone-fuzz-bodies --test short --target-dir target/miri -- \
	  $(addprefix hostile_bytes_are_survived_by::,$(MIRI_TARGETS))

$(CARGO_FUZZ):
	cargo install --locked --debug --root target/tools cargo-fuzz@$(CARGO_FUZZ_VERSION)
