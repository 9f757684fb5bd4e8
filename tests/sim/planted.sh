#!/usr/bin/env bash
# Plant each bug of src/base/planted.h into the engine and see that the simulator finds it.
#
#   tests/sim/planted.sh [NAME ...]   all of them, or those named (with or without PLANTED_)
#   PLANTED_SEEDS=2500                so many seeds a bug may live through
#   JOBS=2                            bugs at a time
#   BUILD=build                       where the library's and the tests' objects are
#
# Of each bug only the file that holds it is compiled, and put before the library in linking. A line
# a bug says which seed found it and how. A survivor fails the script: the simulator is blind there.
set -uo pipefail
cd "$(dirname "$0")/../.."

build=${BUILD:-build}
seeds=${PLANTED_SEEDS:-2500}
jobs=${JOBS:-2}
out=build/planted
mkdir -p "$out"

if [ ! -e "$build/libdeedbook.a" ] || [ ! -e "$build/tests/sim/sim_store.o" ] ||
    [ ! -e "$build/tests/sim/sim_world.o" ]; then
    echo "build first: make lib sim unit"
    exit 1
fi

# The rest is for sim_store. What no machine's history shows in so few seeds, a story in a unit test
# does.
declare -A by_test=(
    [ROLL_INTO_OLD]=test_store_faults
    [DROP_HEADERLESS_SEGMENT]=test_store_faults
    [FOLLOW_OLD_WINDOW]=test_cursor
    [HEADER_FROM_CACHE]=test_store_faults
    [IGNORE_CHAIN]=test_store_faults
    [KEEP_TAIL]=test_store_faults
    [KEEP_HALF_SECTOR]=test_store_faults
    [ANY_HEADER]=test_store_faults
    [OLDER_MARK]=test_log
    [NAME_TRUSTED]=test_seal
    [REPLACED_LET_GO]=test_os
    [UNSEEDED_CRC]=test_store_faults
    [FILTER_FORGETS]=test_run
    [RUN_UNCHECKED]=test_run
    [RUN_NOT_SYNCED]=test_run
    [HASH_DECIDES]=test_run
    [BLOCK_SEAM_LOST]=test_run
    [MERGE_DROPS_PART]=test_run
    [RUN_FORGETS_BASE]=test_run
    [NEXT_MISSES_NEWEST]=test_run
    [ANY_RUN_BELONGS]=test_run
    [MEND_SKIPS_DAMAGE]=test_run
    [FIRST_NOT_MERGED]=test_virtual
    [FENCE_AT_HASH]=test_run
    [GROUP_SEAM]=test_run
    [ANY_FOOTER]=test_seal
    [TABLE_SEAM]=test_seal
    [SEAL_UNCHECKED]=test_seal
    [BACKUP_MANIFEST_FIRST]=test_backup
    [BACKUP_MANIFEST_UNSYNCED]=test_backup
    [BACKUP_UNSYNCED_COPY]=test_backup
    [BACKUP_UNSYNCED_NAMES]=test_backup
    [BACKUP_REMOVES_EARLY]=test_backup
    [BACKUP_PAST_END]=test_backup
    [BACKUP_TRUSTS_NAMES]=test_backup
    [BACKUP_NOT_READ_AGAIN]=test_backup
    [RESTORE_WITHOUT_MARKER]=test_backup
    [RESTORE_MARKER_EARLY]=test_backup
    [RESTORE_UNCHECKED]=test_backup
    [RESTORE_KEEPS_EPOCH]=test_backup
    [RESTORE_WITHOUT_MARK]=test_backup
    [RESTORE_EPOCH_PLUS_ONE]=test_backup
    [OPEN_UNFINISHED_RESTORE]=test_backup
    [TOKEN_OF_ANY_EPOCH]=test_api
    [CHECKPOINT_OF_ANY_EPOCH]=test_projections
    [COMPACT_TOMBSTONES]=test_compaction
    [COMPACT_METADATA]=test_compaction
    [HORIZON_STAYS]=test_compaction
    [ERASE_RESTS_ON_STUBS]=test_compaction
    [ERASE_KEEPS_SALT]=test_log
    [RETRY_IGNORES_STUB]=test_retention
    [SERVE_STUBS]=test_retention
    [FORGET_HORIZON]=test_retention
    [FOLD_STUBS]=test_projections
    [STATE_ACROSS_STUBS]=test_executor
    [REFUSAL_FORGETS_METADATA]=test_store_faults
    [CHECKPOINT_AHEAD]=sim_world
    [CHECKPOINT_APART]=sim_world
    [MANIFEST_BEFORE_SETTLE]=test_projection_loops
    [SWITCH_WITHOUT_SETTLE]=sim_world
    [REBUILD_SKIPS_LAST]=sim_world
    [FOLD_LAST_AGAIN]=sim_world
    [FOLD_KEEPS_POSITION]=sim_world
    [FOLD_SAVES_END]=sim_world
    [CARRY_ON_ANYWAY]=sim_world
    [WAL_NOT_PADDED]=test_projection_loops
    [WAL_TRUSTED]=test_projection_loops
    [WAL_SETTLED_IN_DOUBT]=test_projection_loops
    [WAL_CUT_WHOLE]=sim_world
    [PAGE_UNCHECKED]=test_page_check
    [PAGE_OF_ANY_PLACE]=test_page_check
    [FRAME_UNCHECKED]=test_page_check
    [DAMAGE_STANDS]=test_projections
    [SNAPSHOT_OF_LATER]=sim_world
    [SNAPSHOT_OF_ANY_TEXT]=sim_world
    [SNAPSHOT_ONE_TOO_FAR]=sim_world
    [CHECKPOINT_AT_READ]=sim_groups
    [CHECKPOINT_ONE_TOO_FAR]=sim_groups
    [LEAVE_LOSES]=sim_groups
    [LANE_DOES_NOT_HOLD]=sim_groups
    [LANE_MOVES_EARLY]=sim_groups
    [GROUP_INHERITS]=sim_groups
    [PARK_BEFORE_DURABLE]=sim_groups
    [REPLAY_CUTS_EARLY]=sim_groups
)
libraries=(-lsqlite3 -lcrypto -lxxhash -lzstd -lisal -ldl -lpthread -lm)

# One bug: build, run, and leave a line in NAME.line that begins with ok or FAIL.
plant() { # name without prefix
    local name=$1 begin=$SECONDS source objects=() flags log status
    flags=(-std=c17 -g -O1 -fPIC -fvisibility=hidden -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64)
    log=$out/$name.log
    for source in $(grep -lw "PLANTED($name)" src/*/*.c); do
        objects+=("$out/$name.$(basename "$source" .c).o")
        if ! gcc "${flags[@]}" -DDEED_PLANTED="PLANTED_$name" -Iinclude -Isrc -c \
            -o "${objects[-1]}" "$source" >"$log" 2>&1; then
            echo "FAIL $name: does not compile" >"$out/$name.line"
            return
        fi
    done
    if [ ${#objects[@]} -eq 0 ]; then
        echo "FAIL $name: is planted nowhere" >"$out/$name.line"
        return
    fi
    local test=${by_test[$name]:-sim_store} main=tests/sim/sim_store.o
    # shellcheck disable=SC2207 # one word each
    objects+=($(sed -n "s/.*$test.*: private LDFLAGS += //p" Makefile)) # what it wraps
    if [[ $test = sim_* ]]; then
        main=tests/sim/$test.o test=
    else
        main=tests/unit/$test.o
        objects+=("$build/libserver.a")
        libraries=(-luv -lcurl -lsmartcols -lcmocka "${libraries[@]}")
    fi
    if ! gcc -rdynamic -o "$out/$name" "$build/$main" "${objects[@]}" "$build/libdeedbook.a" \
        "${libraries[@]}" >"$log" 2>&1; then
        echo "FAIL $name: does not link" >"$out/$name.line"
        return
    fi
    # Bash would tell of each that aborts, as most should.
    {
        timeout 120 "$out/$name" $(if [ -z "$test" ]; then echo "$seeds"; fi) </dev/null >"$log" 2>&1 &
        wait $!
    } 2>/dev/null
    status=$?
    rm -f "$out/$name" "$out/$name".*.o
    if [ "$status" -eq 0 ]; then
        echo "FAIL $name: survived $seeds seeds" >"$out/$name.line"
    elif [ "$status" -eq 124 ]; then
        # A store that hangs is found too, but what only runs out of time is not.
        echo "FAIL $name: not found in 120 s" >"$out/$name.line"
    else
        printf 'ok   %-26s %3d s   %s\n' "$name" $((SECONDS - begin)) \
            "$(grep -m1 -E '^seed|Assertion|^\[  FAILED  \] [a-z]' "$log" | cut -c1-100)" >"$out/$name.line"
    fi
}

mapfile -t names < <(sed -n 's/^ *X(PLANTED_\([A-Z_]*\),.*/\1/p' src/base/planted.h)
if [ $# -gt 0 ]; then names=("${@#PLANTED_}"); fi
if [ ${#names[@]} -eq 0 ]; then
    echo "src/base/planted.h names no bugs"
    exit 1
fi
rm -f "$out"/*.line
for name in "${names[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
    plant "$name" &
done
wait

# Survivors first: of a long output often only the beginning is kept.
found=() missed=()
for name in "${names[@]}"; do
    if grep -q '^ok' "$out/$name.line"; then found+=("$out/$name.line"); else missed+=("$out/$name.line"); fi
done
cat "${missed[@]}" "${found[@]}"
echo "${#found[@]} of ${#names[@]} planted bugs found"
[ ${#missed[@]} -eq 0 ]
