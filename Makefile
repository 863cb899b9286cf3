# make        what there is
# make demo   the main job, on a real disk, on this machine
# make test   everything that is tested; needs root, for it freezes filesystems

GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
BENCHSTAT     := golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da
FUZZTIME      ?= 30s
BENCHCOUNT    ?= 7

# Packages whose tests mostly wait for something: they are tested beside each other, the
# longest first. The others, which would overload a small machine, come one after the other.
WAITING := ./agent ./quiesce/systemd ./quiesce/monit ./cpi/local ./quiesce/jobs ./quiesce/fscheck \
  ./agent/api ./agent/boshvm ./agent/diskcopy ./agent/httpapi ./agent/journal ./agent/natsapi \
  ./agent/retention ./agent/schedule ./cmd/quiesce-cpi ./cpi ./cpi/front

VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
REVISION := $(shell git rev-parse --verify -q HEAD 2>/dev/null || echo unknown)
PKG      := github.com/prometheus/common/version
LDFLAGS  := -s -w -X $(PKG).Version=$(VERSION) -X $(PKG).Revision=$(REVISION)
BINARIES := quiesced quiesced-guard quiesce-cpi local-cpi

.DEFAULT_GOAL := help
.PHONY: help build test test-faults test-postgres campaign demo lint fuzz bench bench-freeze bench-jobs bench-director deps testbed-monit testbed-nats testbed-postgres root clean

help: ## show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build the binaries into build/
	@mkdir -p build
	@for b in $(BINARIES) quiesced-demo; do CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o build/$$b ./cmd/$$b || exit 1; done

test: root deps ## run every test, those that freeze real filesystems too (root)
	@mkdir -p build
	go vet ./...
	@( go test -race -p 4 -count=1 -timeout 5m -v $(WAITING); waiting=$$?; \
	  go test -race -p 1 -count=1 -timeout 12m -v $$(go list ./... | grep -vxF "$$(go list $(WAITING))"); others=$$?; \
	  [ $$waiting = 0 ] && [ $$others = 0 ] ) > build/test.log 2>&1; status=$$?; \
	grep -E '^(ok|FAIL|---? FAIL|panic:|# )' build/test.log; \
	grep -qE '^ *--- SKIP' build/test.log && { grep -E '^ *--- SKIP' build/test.log; echo "a test was skipped"; status=1; }; \
	[ $$status = 0 ] || { grep -vE '^ *(=== |ok |\?|PASS|--- PASS)' build/test.log | tail -n 300; echo "the whole log: build/test.log"; }; \
	exit $$status

test-faults: root deps ## daemon, guard and CPI killed, stopped and starved at every boundary of a run, with jobs too (root)
	go test -count=1 -timeout 20m -run TestMatrix ./agent/faults -thin 1

test-postgres: root deps ## snapshots of a PostgreSQL at work restored, N at each level under each supervisor, 20 if not given (root)
	@mkdir -p build
	@go test -count=1 -timeout 2h -v -run TestPostgreSQL ./cmd/quiesced -postgres-runs $(or $(N),20) > build/postgres.log 2>&1; status=$$?; \
	grep -E 'postgres: |^(ok|FAIL|--- |panic:)' build/postgres.log; [ $$status = 0 ] || echo "the whole log: build/postgres.log"; exit $$status

campaign: root deps ## N random faults, 1000 if not given; SEED repeats them (root)
	@mkdir -p build
	@go test -count=1 -timeout 0 -v -run TestCampaign ./agent/faults -campaign $(or $(N),1000) -seed $(or $(SEED),0) > build/campaign.log 2>&1; status=$$?; \
	grep -E 'to repeat it|campaign: |^(ok|FAIL|panic:)' build/campaign.log; [ $$status = 0 ] || echo "the whole log: build/campaign.log"; exit $$status

demo: root deps build ## show the main job on a real disk (root)
	@build/quiesced-demo

lint: ## check style and common mistakes
	gofmt -l . | (! grep .)
	go vet ./...
	go vet -tags failpoints ./...
	go run $(GOLANGCI_LINT) run

fuzz: ## run each fuzz target for FUZZTIME (30s)
	@go list ./... | while read -r pkg; do \
	  go test -list '^Fuzz' "$$pkg" | grep '^Fuzz' | while read -r target; do \
	    echo "$$pkg $$target"; go test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "$$pkg" || exit 1; \
	  done || exit 1; \
	done

bench: root deps ## measure, print medians and ratios to what the bare kernel or bus needs (root)
	@mkdir -p build
	@go test -run '^$$' -bench . -benchtime 30x -count $(BENCHCOUNT) ./cmd/quiesced ./agent ./agent/schedule ./agent/retention > build/bench.log || { cat build/bench.log; exit 1; }
	@go run $(BENCHSTAT) build/bench.log

bench-freeze: root deps build ## measure the application's pause beside fsfreeze, qemu-ga and the bare ioctls (root, 30 minutes)
	@command -v qemu-ga >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-guest-agent; } >/dev/null
	@CGO_ENABLED=0 go build -trimpath -o build/quiesced-bench ./cmd/quiesced-bench
	@build/quiesced-bench | tee build/bench-freeze.txt

bench-jobs: root deps build ## measure how long stopped jobs are down beside a driver that polls as bosh-agent does (root, 30 minutes)
	@CGO_ENABLED=0 go build -trimpath -o build/quiesced-bench ./cmd/quiesced-bench
	@build/quiesced-bench -parts jobs -reps 5 | tee build/bench-jobs.txt

bench-director: root deps build ## measure what a call of a director costs: through quiesce-cpi, and on the bus beside an echo (root, 5 minutes)
	@CGO_ENABLED=0 go build -trimpath -o build/quiesced-bench ./cmd/quiesced-bench
	@build/quiesced-bench -parts front,bus | tee build/bench-director.txt

root:
	@[ "$$(id -u)" = 0 ] || { echo "this needs root: it makes loop devices, mounts filesystems and freezes them"; exit 1; }

# What Debian packages the tests and the demonstration need; installed if missing.
deps:
	@missing=; \
	command -v mkfs.ext4  >/dev/null || missing="$$missing e2fsprogs"; \
	command -v mkfs.xfs   >/dev/null || missing="$$missing xfsprogs"; \
	command -v mkfs.btrfs >/dev/null || missing="$$missing btrfs-progs"; \
	command -v losetup    >/dev/null || missing="$$missing mount"; \
	command -v gcc        >/dev/null || missing="$$missing gcc libc6-dev"; \
	command -v pgrep      >/dev/null || missing="$$missing procps"; \
	command -v strace     >/dev/null || missing="$$missing strace"; \
	command -v ruby       >/dev/null || missing="$$missing ruby"; \
	command -v shellcheck >/dev/null || missing="$$missing shellcheck"; \
	command -v systemd-nspawn >/dev/null || missing="$$missing systemd-container"; \
	[ -e /lib/systemd/system/dbus.service ] || missing="$$missing dbus"; \
	[ -z "$$missing" ] || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; } >/dev/null
	@[ -x /usr/lib/postgresql/15/bin/postgres ] || $(MAKE) --no-print-directory testbed-postgres
	@command -v monit >/dev/null || build/testbed/usr/bin/monit -V >/dev/null 2>&1 || $(MAKE) --no-print-directory testbed-monit
	@[ -x /usr/sbin/nats-server ] || [ -x build/testbed/usr/sbin/nats-server ] || $(MAKE) --no-print-directory testbed-nats

# The package makes a cluster and starts its server, unless it is told not to. Its user is needed.
testbed-postgres:
	@conf=/etc/postgresql-common/createcluster.d/quiesced-tests.conf; trap 'rm -f "$$conf"' EXIT; \
	mkdir -p $${conf%/*} && echo 'create_main_cluster = false' >$$conf && \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql-15; } >/dev/null

# Installing the package would start a daemon: only its files are taken, and its libraries installed.
testbed-monit:
	@mkdir -p build/testbed; dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && chmod 755 "$$dir" && cd "$$dir" && \
	{ apt-get download -qq monit || { apt-get update -qq && apt-get download -qq monit; }; } >/dev/null 2>&1 && \
	dpkg -x monit_*.deb $(CURDIR)/build/testbed && \
	{ $(CURDIR)/build/testbed/usr/bin/monit -V >/dev/null 2>&1 || \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libssl3 libpam0g libcrypt1 zlib1g >/dev/null; } && \
	$(CURDIR)/build/testbed/usr/bin/monit -V >/dev/null || { echo "cannot get monit for the tests"; exit 1; }

# This package would start a daemon, too. It needs nothing but libc.
testbed-nats:
	@mkdir -p build/testbed; dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && chmod 755 "$$dir" && cd "$$dir" && \
	{ apt-get download -qq nats-server || { apt-get update -qq && apt-get download -qq nats-server; }; } >/dev/null 2>&1 && \
	dpkg -x nats-server_*.deb $(CURDIR)/build/testbed && \
	$(CURDIR)/build/testbed/usr/sbin/nats-server -v >/dev/null || { echo "cannot get nats-server for the tests"; exit 1; }

clean: ## remove what was built
	rm -rf build packaging/bosh/src
