# Sluice's habits, one command each; `make help` lists them. Every target sets up what it needs first, on a Debian 12 with
# Node 20, npm and git, and a second run does only what has changed. Stamps and what is compiled lie in build/ and dist/.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

CLANG := clang-19
LLVM_STRIP := llvm-strip-19
CLANG_FORMAT := clang-format-19
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)

# Loading BPF and making namespaces takes root; compiling and linting does not.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo env "PATH=$$PATH")

# node-gyp downloads Node's headers unless it is told where they are; most packages of Node bring them along.
NODE_PREFIX := $(shell node -p 'path.dirname(path.dirname(fs.realpathSync(process.execPath)))' 2>/dev/null)
ifneq ($(wildcard $(NODE_PREFIX)/include/node/node.h),)
export npm_config_nodedir := $(NODE_PREFIX)
endif
# npm 11 warns about that variable, which is node-gyp's own.
NPM_QUIET := --loglevel=error --no-audit --no-fund

BPF_SOURCES := $(wildcard bpf/*.bpf.c) $(shell find test -name '*.bpf.c' 2>/dev/null)
BPF_OBJECTS := $(patsubst %.bpf.c,build/%.bpf.o,$(BPF_SOURCES))
BPF_STYLED := $(shell find bpf test -name '*.[ch]' 2>/dev/null)
LIBBPF_TS_SOURCES := $(shell find src/libbpf-ts -type f -not -path '*/node_modules/*' -not -path '*/dist/*' -not -path '*/build/*')
# Checked in, and compared with what the objects, proto/ and scripts/ say today: folder/NAME.bpf.ts is made from
# bpf/NAME.bpf.c.
GENERATED := src/dataplane/sluice.bpf.ts src/real-server/decapsulate.bpf.ts
GENERATED_API := src/api/gen
GENERATED_TABLES := bpf/crc32c_tables.h
TS_SOURCES := $(shell find src test -name '*.ts' -not -path 'src/libbpf-ts/*')
SHELL_SCRIPTS := .ci/run $(shell find scripts test -name '*.sh' 2>/dev/null)

.PHONY: all
all: build

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: build/apt.stamp node_modules/.package-lock.json ## install Debian packages (apt-packages.txt) and npm's (package-lock.json)

.PHONY: build
build: build/libbpf-ts.stamp $(BPF_OBJECTS) build/tsc.stamp ## compile libbpf-ts, the BPF programs and the TypeScript (default)

.PHONY: test
test: build build/fixtures.stamp build/tap.stamp bpffs ## run all tests as root; SUITES="unit packet" runs only those
	@$(AS_ROOT) node dist/test/runner.js $(SUITES)

.PHONY: demo
demo: build bpffs ## balance real HTTP and UDP traffic in namespaces by all four forwarding methods
	@$(AS_ROOT) node dist/test/demo/main.js

.PHONY: bench
bench: build bpffs ## measure ns a packet beside reference programs, and the control plane with 10,000 services; BENCH=--help says what to choose
	@$(AS_ROOT) node dist/test/bench/main.js $(BENCH)

.PHONY: replay
replay: build bpffs ## compare with traces of the kernel's IPVS; TRACES="FOLDER FILE" names them
	@$(AS_ROOT) node dist/test/replay/main.js $(TRACES)

.PHONY: test-kernel
test-kernel: build ## check the BPF objects and run the packet tests on Linux 6.1, and the daemon on 5.10, in an emulated machine
	@node dist/test/kernel/main.js $(FILES)

.PHONY: lint
lint: lint-types lint-imports lint-format lint-generated lint-shell ## check types, import direction, format, generated code, scripts

.PHONY: format
format: setup ## rewrite all sources in the project's format
	biome check --write .
	$(CLANG_FORMAT) -i $(BPF_STYLED)

.PHONY: generate
generate: build/libbpf-ts.stamp $(BPF_OBJECTS) ## write the checked-in code that is made from BTF, from proto/ and by scripts/
	for file in $(GENERATED); do libbpf-ts generate build/bpf/$$(basename $$file .ts).o -o $$file; done
	buf generate
	node scripts/crc32c-tables.js > $(GENERATED_TABLES)

.PHONY: clean
clean: ## remove all that was installed or compiled here: back to a fresh clone
	rm -rf build dist .tap node_modules src/libbpf-ts/{build,dist,.tap,node_modules}

# ---- set up

build/apt.stamp: apt-packages.txt scripts/install-packages.sh
	@scripts/install-packages.sh apt-packages.txt
	@mkdir -p $(@D) && touch $@

# npm ci on a fresh clone. Later npm install, which changes only what differs.
node_modules/.package-lock.json: package.json package-lock.json src/libbpf-ts/package.json | build/apt.stamp
	@echo 'npm: installing the packages of package-lock.json into node_modules and compiling libbpf-ts'\''s addon'
	@if [ -d node_modules ]; then npm install $(NPM_QUIET); else npm ci $(NPM_QUIET); fi
	@touch $@

.PHONY: bpffs
bpffs:
	@if ! mountpoint -q /sys/fs/bpf; then \
		echo 'mounting the BPF file system at /sys/fs/bpf: programs and maps are pinned there'; \
		$(AS_ROOT) mount -t bpf bpf /sys/fs/bpf; \
	fi

# ---- compile

build/libbpf-ts.stamp: $(LIBBPF_TS_SOURCES) node_modules/.package-lock.json
	npm run --silent build -w libbpf-ts
	@mkdir -p $(@D) && touch $@

build/fixtures.stamp: build/libbpf-ts.stamp
	npm run --silent build:fixtures -w libbpf-ts
	@touch $@

# tap is put together for the plugins that package.json names. Left to itself it does so during its first run, which then
# still goes through the TypeScript compiler.
build/tap.stamp: package.json node_modules/.package-lock.json
	tap build
	@mkdir -p $(@D) && touch $@

# -g makes BTF, which names every field for bpftool and libbpf-ts. The DWARF that comes with it is of no use afterwards.
build/%.bpf.o: %.bpf.c | build/apt.stamp
	@mkdir -p $(@D)
	$(CLANG) -target bpf -mcpu=v3 -O2 -g -Wall -Wextra -Werror -Ibpf -isystem /usr/include/$$(gcc -dumpmachine) \
		-MMD -MP -MT $@ -MF $(@:.o=.d) -c $< -o $@
	$(LLVM_STRIP) -g $@

-include $(BPF_OBJECTS:.o=.d)

build/tsc.stamp: tsconfig.json build/ts-sources.txt $(TS_SOURCES) build/libbpf-ts.stamp
	tsc -p .
	@chmod +x dist/src/cli/main.js
	@touch $@

# The list of sources changes when a file goes, too; what was compiled from it must not be run as a test any more.
build/ts-sources.txt: FORCE
	@mkdir -p $(@D) dist
	@printf '%s\n' $(sort $(TS_SOURCES)) | cmp -s - $@ || { \
		printf '%s\n' $(sort $(TS_SOURCES)) > $@; \
		find dist -name '*.js' | while read -r output; do \
			source=$${output#dist/}; \
			[ -e "$${source%.js}.ts" ] || rm -f "$$output" "$$output.map"; \
		done; \
	}

.PHONY: FORCE
FORCE:

# ---- lint

.PHONY: lint-types
lint-types: build
	eslint --max-warnings 0 .

.PHONY: lint-imports
lint-imports: build
	depcruise --config .dependency-cruiser.js src test

.PHONY: lint-format
lint-format: setup
	biome check .
	$(CLANG_FORMAT) --dry-run -Werror $(BPF_STYLED)

.PHONY: lint-generated
lint-generated: build/libbpf-ts.stamp $(BPF_OBJECTS)
	for file in $(GENERATED); do libbpf-ts generate build/bpf/$$(basename $$file .ts).o --check $$file; done
	node scripts/crc32c-tables.js | diff - $(GENERATED_TABLES)
	buf lint
	@rm -rf build/generated
	buf generate -o build/generated
	diff -r build/generated/$(GENERATED_API) $(GENERATED_API)

.PHONY: lint-shell
lint-shell: setup
	shellcheck --exclude=SC2187 $(SHELL_SCRIPTS) # which says that busybox sh is checked as dash
