# Deedbook. `make run` serves the orders example, `make test` runs every test, `make help` lists the rest.
#
# Sources are found by folder, so adding a file changes nothing here. A variant is the same code
# under other flags in a folder of its own: make VARIANT=asan | tsan | clang | failpoints.

VARIANT ?=
PREFIX  ?= /usr/local
DESTDIR ?=
B       := build$(if $(VARIANT),/$(VARIANT))

CC      := $(if $(filter clang fuzz,$(VARIANT)),clang,$(if $(filter default,$(origin CC)),gcc,$(CC)))
WARN    := -Wall -Wextra -Wconversion -Wshadow $(if $(WERROR),-Werror)
DEFS    := -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 $(if $(filter failpoints,$(VARIANT)),-DDEED_FAILPOINTS)
INCS    := -Iinclude -Isrc -Itests
OPT_    := -O2 -fno-strict-aliasing
OPT_asan := -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
OPT_tsan := -O1 -fsanitize=thread -fno-omit-frame-pointer
OPT_clang := -O2
OPT_failpoints := -O1
OPT_fuzz := -O1 -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
OPT     := $(OPT_$(VARIANT))
CFLAGS  += -std=c17 -g -fPIC -fvisibility=hidden $(WARN) $(OPT) -MMD -MP
LDFLAGS += $(filter -fsanitize=% -fno-sanitize-recover=%,$(OPT:fuzzer-no-link,%=%))

LIB_LAYERS := base os json log index store groups domain projection query embed
BIN_LAYERS := http1 http2 grpc api server cli
LIB_SRC := $(foreach l,$(LIB_LAYERS),$(wildcard src/$(l)/*.c))
BIN_SRC := $(foreach l,$(BIN_LAYERS),$(wildcard src/$(l)/*.c))
LIB_OBJ := $(LIB_SRC:%.c=$(B)/%.o)
BIN_OBJ := $(filter-out $(B)/src/cli/main.o,$(BIN_SRC:%.c=$(B)/%.o))
MAIN_OBJ := $(filter $(B)/src/cli/main.o,$(BIN_SRC:%.c=$(B)/%.o))

LIB_LIBS := -lsqlite3 -lcrypto -lxxhash -lzstd -lisal -ldl -lpthread -lm
BIN_LIBS := -lnghttp2 -lprotobuf-c -lpcre2-8 -lsodium -luv -lcurl -lsmartcols

# Node's HTTP/1.1 parser, C inside Debian's node-llhttp package. Without its strict mode it accepts
# bytes that other parsers read otherwise (a CR followed by anything ends a line).
LLHTTP_DIR ?= /usr/share/llhttp
LLHTTP_INC ?= /usr/share/include/llhttp
LLHTTP_OBJ := $(B)/llhttp/api.o $(B)/llhttp/http.o $(B)/llhttp/llhttp.o

# What gRPC's messages are, and the C that protoc-c makes of it: #include "proto/NAME.pb-c.h".
PROTO_DIR := src/grpc/proto
PROTO_C   := $(patsubst $(PROTO_DIR)/%.proto,$(B)/proto/%.pb-c.c,$(wildcard $(PROTO_DIR)/*.proto))
PROTO_OBJ := $(PROTO_C:.c=.o)

UNIT   := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(wildcard tests/unit/test_*.c))
SIM    := $(patsubst tests/sim/%.c,$(B)/tests/sim/%,$(wildcard tests/sim/sim_*.c))
FUZZ   := $(patsubst tests/fuzz/%.c,build/fuzz/tests/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
SUPPORT := $(patsubst %.c,$(B)/%.o,$(wildcard tests/support/*.c))
DRIVE  := $(patsubst tests/drive/%.c,$(B)/tests/drive/%,$(wildcard tests/drive/*.c))
BENCH  := $(patsubst bench/%.c,$(B)/bench/%,$(wildcard bench/*.c))
# A peer whose client library is missing is not built; tools/bench says so.
PEERS  := $(filter-out $(if $(wildcard /usr/include/postgresql/libpq-fe.h),,%/postgres),\
          $(patsubst bench/%.c,$(B)/bench/%,$(wildcard bench/peers/*.c)))
DOMAINS := $(patsubst %.c,%.so,$(wildcard examples/*/*.c))
DOMAINS := $(filter-out examples/embed/%,$(DOMAINS))
# Domains that tests misuse; the example's too, since tests load it.
TEST_DOMAINS := $(patsubst %.c,$(B)/%.so,$(wildcard tests/domains/*.c)) examples/orders/orders.so

.DEFAULT_GOAL := all
.PHONY: all lib domains examples unit sim fuzz drive bench-programs test run bench plots soak install deps format clean help
.DELETE_ON_ERROR:
.SECONDARY:

all: lib $(if $(MAIN_OBJ),$(B)/deedbook) domains examples ## library, program, example domains

lib: $(B)/libdeedbook.a $(B)/libdeedbook.so

$(B)/libdeedbook.a: $(LIB_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

$(B)/libdeedbook.so: $(LIB_OBJ)
	$(CC) -shared -Wl,-soname,libdeedbook.so.0 $(LDFLAGS) -o $@ $^ $(LIB_LIBS)

$(B)/libserver.a: $(BIN_OBJ) $(LLHTTP_OBJ) $(PROTO_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

$(B)/deedbook: $(MAIN_OBJ) $(B)/libserver.a $(B)/libdeedbook.a
	$(CC) $(LDFLAGS) -rdynamic -o $@ $^ $(BIN_LIBS) $(LIB_LIBS)

$(B)/llhttp/%.o: $(LLHTTP_DIR)/%.c
	@mkdir -p $(@D)
	$(CC) -std=c17 -g -fPIC $(OPT) -w -DLLHTTP_STRICT_MODE=1 -I$(LLHTTP_INC) -c -o $@ $<

# A message may hold those of another file: when one changes, all are made again.
$(B)/proto/%.pb-c.c $(B)/proto/%.pb-c.h &: $(PROTO_DIR)/%.proto $(wildcard $(PROTO_DIR)/*.proto)
	@mkdir -p $(@D)
	protoc-c -I$(PROTO_DIR) --c_out=$(B)/proto $<

$(B)/proto/%.o: $(B)/proto/%.c
	$(CC) -std=c17 -g -fPIC $(OPT) -w -c -o $@ $<

$(B)/%.o: %.c | $(PROTO_C)
	@mkdir -p $(@D)
	$(CC) $(DEFS) $(INCS) -isystem $(B) -I$(LLHTTP_INC) $(CFLAGS) -c -o $@ $<

# Domains are shared objects beside their source, as an app folder has them.
domains: $(DOMAINS) ## the example apps' domains
examples/%.so: examples/%.c include/deedbook.h include/deedbook_domain.h
	$(CC) -std=c17 -g -O2 -fPIC -shared $(WARN) -Iinclude -o $@ $<

examples: $(B)/examples/embed/orders
$(B)/examples/embed/orders: $(wildcard examples/embed/*.c) $(B)/libdeedbook.a
	@mkdir -p $(@D)
	$(if $(wildcard examples/embed/*.c),$(CC) -std=c17 -g -O2 $(WARN) -Iinclude $(LDFLAGS) -o $@ $^ $(LIB_LIBS))

# Tests.
unit: $(UNIT) $(TEST_DOMAINS) ## build the unit tests
sim: $(SIM)
drive: $(DRIVE)
$(B)/tests/unit/%: $(B)/tests/unit/%.o $(SUPPORT) $(B)/libserver.a $(B)/libdeedbook.a
	$(CC) $(LDFLAGS) -rdynamic -o $@ $^ $(BIN_LIBS) $(LIB_LIBS) -lcmocka
# This one makes the engine's allocations fail.
$(B)/tests/unit/test_store_loops: private LDFLAGS += -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
# This one has a device that does not answer.
$(B)/tests/unit/test_os: private LDFLAGS += -Wl,--wrap=pread64,--wrap=ioctl
# This one lets two threads' syncs meet.
$(B)/tests/unit/test_store_syncs: private LDFLAGS += -Wl,--wrap=fdatasync
# This one hides files from those who list a directory.
$(B)/tests/unit/test_backup: private LDFLAGS += -Wl,--wrap=readdir64
# This one has methods of its own, and takes the memory for calls away.
$(B)/tests/unit/test_stream: private LDFLAGS += -Wl,--wrap=rpc_method_find,--wrap=calloc
# This one has an OpenSSL without SHA-1.
$(B)/tests/unit/test_serve_sha1: private LDFLAGS += -Wl,--wrap=EVP_MD_fetch
# This one takes the memory for a connection away.
$(B)/tests/unit/test_server: private LDFLAGS += -Wl,--wrap=calloc
# And these too, beside SQLite's.
$(B)/tests/unit/test_projection_loops $(B)/tests/unit/test_groups_loops $(B)/tests/unit/test_grpc_loops $(B)/tests/sim/sim_world: private LDFLAGS += -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc
$(B)/tests/domains/%.so: tests/domains/%.c include/deedbook.h include/deedbook_domain.h
	@mkdir -p $(@D)
	$(CC) -std=c17 -g -O1 -fPIC -shared $(DEFS) $(WARN) -Iinclude -o $@ $<
$(B)/tests/sim/%: $(B)/tests/sim/%.o $(B)/libdeedbook.a
	$(CC) $(LDFLAGS) -o $@ $^ $(LIB_LIBS)
$(B)/tests/drive/%: $(B)/tests/drive/%.o $(SUPPORT) $(B)/libserver.a $(B)/libdeedbook.a
	$(CC) $(LDFLAGS) -o $@ $^ $(BIN_LIBS) $(LIB_LIBS)
fuzz: ## build the libFuzzer targets
	$(MAKE) VARIANT=fuzz $(FUZZ)
build/fuzz/tests/fuzz/%: build/fuzz/tests/fuzz/%.o build/fuzz/libserver.a build/fuzz/libdeedbook.a
	$(CC) -fsanitize=fuzzer,address,undefined -o $@ $^ $(BIN_LIBS) $(LIB_LIBS)

bench-programs: $(BENCH) $(PEERS) $(B)/bench/delay.so
$(B)/bench/peers/%: $(B)/bench/peers/%.o $(B)/libserver.a $(B)/libdeedbook.a
	$(CC) $(LDFLAGS) -o $@ $^ $(BIN_LIBS) $(LIB_LIBS) $(PEER_LIBS)
$(B)/bench/peers/postgres $(B)/bench/peers/postgres.o: private INCS += -isystem /usr/include/postgresql
$(B)/bench/peers/postgres: private PEER_LIBS := -lpq
$(B)/bench/peers/%.o: private INCS += -I.
$(B)/bench/delay.so: bench/preload/delay.c
	@mkdir -p $(@D)
	$(CC) -std=c17 -O2 -fPIC -shared $(DEFS) $(WARN) -o $@ $<
$(B)/bench/%: $(B)/bench/%.o $(B)/libserver.a $(B)/libdeedbook.a
	$(CC) $(LDFLAGS) -o $@ $^ $(BIN_LIBS) $(LIB_LIBS)

test: ## every test, with the sanitizers; what CI runs
	@tools/deps
	@tools/run-tests

soak: ## the same for hours: more seeds, more fuzzing, more deaths (SIM_SEEDS, FUZZ_SECONDS, KILLS, …)
	@tools/deps
	@SIM_SEEDS=$${SIM_SEEDS:-200000} FUZZ_SECONDS=$${FUZZ_SECONDS:-1800} TEST_TIMEOUT=$${TEST_TIMEOUT:-14400} \
		KILLS=$${KILLS:-10000} HISTORY_KILLS=$${HISTORY_KILLS:-300} POWER_CUTS=$${POWER_CUTS:-500} \
		FAILPOINT_ROUNDS=$${FAILPOINT_ROUNDS:-10} tools/run-tests

run: ## install what is missing, build, serve the orders example on port 2113
	@tools/deps run
	@$(MAKE) all
	$(B)/deedbook serve examples/orders --data $${DEEDBOOK_DATA:-data/orders}

bench: ## measure this machine, and the peers beside us (docs/performance.md; QUICK=1 to try)
	@tools/deps bench
	@$(MAKE) all bench-programs
	@tools/bench

plots: ## the cost of an event as the log grows, into docs/plots
	@$(MAKE) all bench-programs
	@tools/bench growth

install: all ## into PREFIX (default /usr/local): library, header, pkg-config, program, man page
	@tools/install "$(DESTDIR)" "$(PREFIX)" "$(B)"

deps: ## install Debian's packages that the build needs
	@tools/deps

format: ## clang-format every source
	clang-format -i $$(git ls-files '*.c' '*.h')

clean:
	rm -rf build examples/*/*.so

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  \1  /p' Makefile | column -t -l 2

-include $(LIB_OBJ:.o=.d) $(BIN_OBJ:.o=.d) $(MAIN_OBJ:.o=.d) $(patsubst %,%.d,$(UNIT) $(SIM) $(SUPPORT:.o=) $(DRIVE) $(BENCH) $(PEERS) $(FUZZ))
