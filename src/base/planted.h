/* planted.h - bugs on demand, to see whether the tests find them.
 *
 * The product has none of them: PLANTED(X) is constant and false, and compiles to nothing. With
 * -DDEED_PLANTED=PLANTED_X a file has bug X. tests/sim/planted.sh builds each in turn, and fails
 * for each that survives: a survivor is a blind spot of the simulator or its checkers. */
#ifndef BASE_PLANTED_H
#define BASE_PLANTED_H

#ifndef DEED_PLANTED
#define DEED_PLANTED PLANTED_NONE
#endif

#define PLANTED(name) (DEED_PLANTED == PLANTED_##name)

#define PLANTED_MAP(X)                                                                             \
    X(PLANTED_SKIP_SYNC, "groups are not synced")                                                  \
    X(PLANTED_PUBLISH_BEFORE_SYNC, "a group is published and answered, then synced")               \
    X(PLANTED_SYNC_AGAIN, "after a failed write or sync the sync is tried again, and believed")    \
    X(PLANTED_UNKNOWN_AS_REFUSED, "a failed write is answered as if nothing had been written")     \
    X(PLANTED_UNALIGNED_GROUPS, "a group begins in the sector where the one before ends")          \
    X(PLANTED_FORGET_KEEPS_HASH, "a group that was not written leaves its hash in the chain")      \
    X(PLANTED_ROLL_INTO_OLD, "after a segment could not be made, appends go on in the old one")    \
    X(PLANTED_ROLL_CUTS_TOO_MUCH, "the old segment is cut a sector before its end")                \
    X(PLANTED_SEAM_OFF_BY_ONE, "a new segment claims to begin one position later")                 \
    X(PLANTED_SEAM_WITHOUT_CHAIN, "a new segment does not name the hash it continues")             \
    X(PLANTED_ROLL_WITHOUT_DIR_SYNC, "a new segment's name is not synced")                         \
    X(PLANTED_MARK_TOO_MUCH, "the commit mark claims a position that was not given yet")           \
    X(PLANTED_MARK_BEFORE_SYNC, "the commit mark is written before what it claims is synced")      \
    X(PLANTED_MARKS_IN_ONE_SLOT, "each commit mark overwrites the one before")                     \
    X(PLANTED_MARK_NOT_SYNCED, "the commit mark is written, not synced")                           \
    X(PLANTED_OLDER_MARK, "of two commit marks the older one is taken")                            \
    X(PLANTED_FILL_TOO_LOW, "the zeros ahead begin inside of the newest group")                    \
    X(PLANTED_DURABLE_BEFORE_TOO_HIGH,                                                             \
      "a commit claims that those before it in its group were durable")                            \
    X(PLANTED_TIME_OFF_BY_ONE, "of commits recorded at the time asked for, none counts")           \
    X(PLANTED_TIME_GOES_BACK, "after opening, recorded_at follows the clock, also back")           \
    X(PLANTED_IGNORE_CHAIN, "recovery accepts a commit whose previous hash does not match")        \
    X(PLANTED_IGNORE_DURABLE_BEFORE, "recovery takes for debris what proves a loss")               \
    X(PLANTED_DEBRIS_PROVES_LOSS, "recovery takes for a loss what is debris")                      \
    X(PLANTED_STOP_AT_FIRST_GAP, "recovery does not go on behind what is no commit")               \
    X(PLANTED_KEEP_TAIL, "the torn tail is not overwritten")                                       \
    X(PLANTED_KEEP_HALF_SECTOR, "what only the cache shows behind the last commit stays there")    \
    X(PLANTED_TAIL_FROM_CACHE, "recovery reads the tail from the page cache")                      \
    X(PLANTED_HEADER_FROM_CACHE, "recovery reads segments' headers from the page cache")           \
    X(PLANTED_OPEN_WITHOUT_SYNC, "recovery serves what was never synced")                          \
    X(PLANTED_IGNORE_MARK, "recovery does not miss what the commit mark claims")                   \
    X(PLANTED_REUSE_LOST_POSITIONS, "a repair gives lost positions out again")                     \
    X(PLANTED_KEEP_UNBORN_SEGMENT, "a segment that a crash left without a header stays")           \
    X(PLANTED_DROP_HEADERLESS_SEGMENT,                                                             \
      "a last segment whose header is damaged is taken for unborn, whatever it holds")             \
    X(PLANTED_ANY_HEADER, "a header that belongs to another segment is believed")                  \
    X(PLANTED_ACCEPT_UNSYNCED, "a repair does not sync what it writes down")                       \
    X(PLANTED_ANY_FOOTER, "a sealed file's footer is believed without its checksum")               \
    X(PLANTED_TABLE_SEAM,                                                                          \
      "a look-up at the end of a block of the table ends at the segment's end")                    \
    X(PLANTED_SEAL_WITHOUT_SYNC, "a sealed file is not synced")                                    \
    X(PLANTED_SEAL_UNCHECKED, "a sealed file is not read back before the old one goes")            \
    X(PLANTED_SEAL_WITHOUT_DIR_SYNC, "a sealed file's name is not synced before the old one goes") \
    X(PLANTED_REMOVE_BEFORE_RENAME, "the old file goes before the sealed one has its name")        \
    X(PLANTED_REPACK_LOSES_COMMIT, "sealing leaves out a commit")                                  \
    X(PLANTED_OLD_GENERATION_WINS,                                                                 \
      "of a segment's files the oldest is opened, also one that came back")                        \
    X(PLANTED_ERASE_RESTS_ON_STUBS, "an erasure that finds stubs takes their old file for gone")   \
    X(PLANTED_NEW_GENERATION_WINS,                                                                 \
      "of a segment's files the newest is opened, and the rest removed")                           \
    X(PLANTED_REPLACED_LET_GO,                                                                     \
      "a file that another replaces loses its bytes before that is durable")                       \
    X(PLANTED_NAME_TRUSTED,                                                                        \
      "an empty segment that was found is written into as if its name were durable")               \
    X(PLANTED_OLDER_UNREAD,                                                                        \
      "of a segment's two newest files the older is opened, whatever it holds")                    \
    X(PLANTED_UNSEEDED_CRC, "a commit's checksum says nothing about its place")                    \
    X(PLANTED_HEAD_ONLY_CRC, "a commit's checksum covers its head alone")                          \
    X(PLANTED_ACK_BEFORE_SYNC, "a group is answered, then written")                                \
    X(PLANTED_REFUSE_BEFORE_SYNC, "a refusal is answered before what it rests on is synced")       \
    X(PLANTED_KEEP_REFUSALS, "a refusal that rests on a group stays when the group fails")         \
    X(PLANTED_KEEP_INDEXED, "a group that was not written stays in the index")                     \
    X(PLANTED_KEY_NOT_IN_GROUP, "an idempotency key is not looked for in the group")               \
    X(PLANTED_KEY_FOR_ANY_REQUEST, "an idempotency key answers another request too")               \
    X(PLANTED_IDS_NOT_IN_GROUP, "event ids are not looked for in the group")                       \
    X(PLANTED_CONDITION_BEFORE_RETRY, "a retry is refused when its condition fails by now")        \
    X(PLANTED_STALE_REVISION, "a revision is counted without the group")                           \
    X(PLANTED_CONDITION_WITHOUT_GROUP, "a stream condition does not see the group")                \
    X(PLANTED_CONDITION_SKIPS_ONE, "a condition does not see the first event after its position")  \
    X(PLANTED_CONDITION_SEES_ONE_MORE, "a condition sees the event at its position too")           \
    X(PLANTED_CONDITION_IGNORES_TYPE, "a condition by tag and type compares the tag alone")        \
    X(PLANTED_LOSE_POSTING, "one event in 64 is not indexed by its tags")                          \
    X(PLANTED_FILTER_FORGETS, "a run's filter denies one term in 64 that is there")                \
    X(PLANTED_RUN_UNCHECKED, "a run's blocks are believed whatever their checksums say")           \
    X(PLANTED_RUN_NOT_SYNCED, "a run gets its name before it is synced")                           \
    X(PLANTED_HASH_DECIDES, "two terms of one length and one hash are the same")                   \
    X(PLANTED_BLOCK_SEAM_LOST, "the last position of a long list is not written to its run")       \
    X(PLANTED_MERGE_DROPS_PART,                                                                    \
      "of eight runs that have a term, the newest one's part is dropped")                          \
    X(PLANTED_RUN_FORGETS_BASE, "a stream's part in a run begins at revision 0")                   \
    X(PLANTED_NEXT_MISSES_NEWEST, "the next position is not looked for in the newest run")         \
    X(PLANTED_ORDINALS_OVERLAP, "a run's last position has the place of the next one's first")     \
    X(PLANTED_FIRST_STAYS, "a stream's first event that was not written stays in $streams")        \
    X(PLANTED_FIRST_NOT_MERGED,                                                                    \
      "merged runs know streams' first events though one of them did not")                         \
    X(PLANTED_ANY_RUN_BELONGS, "a run of another log is believed")                                 \
    X(PLANTED_MEND_SKIPS_DAMAGE, "an index made anew leaves out what cannot be read just now")     \
    X(PLANTED_FENCE_AT_HASH, "a look-up begins behind terms that share its hash")                  \
    X(PLANTED_GROUP_SEAM, "the first position of each further group of a list is wrong")           \
    X(PLANTED_COUNT_PAST_END, "a list shows what is not published")                                \
    X(PLANTED_OPEN_WITHOUT_KEYS, "opening does not index idempotency keys")                        \
    X(PLANTED_LOST_REVISIONS_CLOSE_UP,                                                             \
      "revisions that damage took are given to the events behind")                                 \
    X(PLANTED_WINDOW_OF_ANY_SEGMENT, "a cursor reads one segment from the bytes of another")       \
    X(PLANTED_FOLLOW_OLD_WINDOW,                                                                   \
      "a following cursor goes on in bytes it read before they were published")                    \
    X(PLANTED_FOLLOW_SKIPS_ONE, "a following cursor that waited goes on one too far")              \
    X(PLANTED_BACKWARDS_LOSES_FIRST, "reading backwards ends before the first event")              \
    X(PLANTED_FILTER_HIDES_LOSS, "a filtered read says nothing of lost positions in its way")      \
    X(PLANTED_BACKUP_MANIFEST_FIRST, "the manifest is replaced before the copies are checked")     \
    X(PLANTED_BACKUP_MANIFEST_UNSYNCED, "a backup's manifest is renamed before it is synced")      \
    X(PLANTED_BACKUP_UNSYNCED_COPY, "a backup's files are not synced")                             \
    X(PLANTED_BACKUP_UNSYNCED_NAMES, "the names of a backup's files are not synced")               \
    X(PLANTED_BACKUP_REMOVES_EARLY,                                                                \
      "the older backup's files are removed before there is a newer")                              \
    X(PLANTED_BACKUP_PAST_END, "a backup holds what was not published")                            \
    X(PLANTED_BACKUP_TRUSTS_NAMES, "a file of a name that the backup has is not copied again")     \
    X(PLANTED_BACKUP_NOT_READ_AGAIN, "what a backup copied is not read again")                     \
    X(PLANTED_RESTORE_WITHOUT_MARKER, "an unfinished restore is not marked")                       \
    X(PLANTED_RESTORE_MARKER_EARLY, "a restore is called done before it was checked")              \
    X(PLANTED_RESTORE_UNCHECKED, "a restore does not compare hashes")                              \
    X(PLANTED_RESTORE_KEEPS_EPOCH, "a restore goes on in the epoch of the backup")                 \
    X(PLANTED_RESTORE_WITHOUT_MARK, "no mark holds a restored log's epoch")                        \
    X(PLANTED_RESTORE_EPOCH_PLUS_ONE, "two restores of one backup have the same epoch")            \
    X(PLANTED_OPEN_UNFINISHED_RESTORE, "a restore that was not finished can be opened")            \
    X(PLANTED_TOKEN_OF_ANY_EPOCH, "a token of another epoch is taken")                             \
    X(PLANTED_CHECKPOINT_OF_ANY_EPOCH, "a read model of another epoch goes on")                    \
    X(PLANTED_STUB_WITHOUT_TAGS, "a removed event loses its tags, too")                            \
    X(PLANTED_ERASE_KEEPS_SALT, "an erased event keeps its salt, to guess its content with")       \
    X(PLANTED_RETRY_IGNORES_STUB, "a retry of a removed event may bring other content")            \
    X(PLANTED_SERVE_STUBS, "a removed event is served as one without data")                        \
    X(PLANTED_COMPACT_ONE_TOO_MANY, "compaction removes one event more than is hidden")            \
    X(PLANTED_COMPACT_TOMBSTONES, "compaction removes the event that closes a stream, too")        \
    X(PLANTED_DELETED_FOR_EVER, "a $tb that hides what was there hides what comes later, too")     \
    X(PLANTED_COMPACT_METADATA, "compaction removes streams' newest metadata")                     \
    X(PLANTED_ERASE_REMOVES, "an erased event is only removed: its salt and actor stay")           \
    X(PLANTED_ERASE_WITHOUT_ROLL, "an erasure leaves out the segment that is being written")       \
    X(PLANTED_ERASE_WHAT_CAME_LATER, "an erasure takes what was written after it was asked for")   \
    X(PLANTED_HORIZON_STAYS, "a compaction does not move the horizon")                             \
    X(PLANTED_FORGET_HORIZON, "a log whose first events were removed reads as if it had had none") \
    X(PLANTED_FOLD_STUBS, "a projection passes over removed events without a word")                \
    X(PLANTED_STATE_ACROSS_STUBS, "an aggregate is folded without its removed events")             \
    X(PLANTED_REFUSAL_FORGETS_METADATA, "a refusal that rests on a failed group's metadata stays") \
    X(PLANTED_CHECKPOINT_AHEAD, "a read model's checkpoint is one ahead of its rows")              \
    X(PLANTED_CHECKPOINT_APART, "a read model's rows are committed before their checkpoint")       \
    X(PLANTED_MANIFEST_BEFORE_SETTLE, "a rebuilt generation is named before it is durable")        \
    X(PLANTED_SWITCH_WITHOUT_SETTLE, "a rebuilt generation is never made durable")                 \
    X(PLANTED_REBUILD_SKIPS_LAST, "a rebuild takes over the live checkpoint an event too early")   \
    X(PLANTED_FOLD_LAST_AGAIN, "a fold that goes on takes the last event once more")               \
    X(PLANTED_FOLD_KEEPS_POSITION, "a fold whose transaction failed goes on behind it")            \
    X(PLANTED_FOLD_SAVES_END, "a fold saves the log's end for what it has read")                   \
    X(PLANTED_CARRY_ON_ANYWAY, "another text carries on with rows it would not have made")         \
    X(PLANTED_WAL_NOT_PADDED, "what a checkpoint of SQLite's log relies on is written around")     \
    X(PLANTED_WAL_CUT_WHOLE, "SQLite's log is cut with a header that still counts")                \
    X(PLANTED_WAL_TRUSTED, "what a failed sync left of SQLite's log is brought over")              \
    X(PLANTED_WAL_SETTLED_IN_DOUBT, "SQLite's log is brought over after a sync of it failed")      \
    X(PLANTED_PAGE_UNCHECKED, "a read model's pages are believed whatever their checksums say")    \
    X(PLANTED_PAGE_OF_ANY_PLACE, "a read model's page is believed in another one's place")         \
    X(PLANTED_FRAME_UNCHECKED, "what SQLite's log holds is believed after it was recovered")       \
    X(PLANTED_DAMAGE_STANDS, "a read model that is damaged waits for somebody to rebuild it")      \
    X(PLANTED_SNAPSHOT_OF_LATER, "a question about the past is answered from a later fold")        \
    X(PLANTED_SNAPSHOT_OF_ANY_TEXT,                                                                \
      "a question about the past is answered from another text's rows")                            \
    X(PLANTED_SNAPSHOT_ONE_TOO_FAR, "a question about the past sees one event more")               \
    X(PLANTED_CHECKPOINT_AT_READ,                                                                  \
      "a group's checkpoint is what it has read, not what was dealt with")                         \
    X(PLANTED_CHECKPOINT_ONE_TOO_FAR, "a group's checkpoint passes the event that is still out")   \
    X(PLANTED_LEAVE_LOSES, "what a consumer had when it left counts as dealt with")                \
    X(PLANTED_LANE_DOES_NOT_HOLD, "an event that is retried does not hold back its stream")        \
    X(PLANTED_LANE_MOVES_EARLY, "a stream moves to another consumer while it has events out")      \
    X(PLANTED_GROUP_INHERITS, "a new group goes on at the checkpoint of a deleted one")            \
    X(PLANTED_PARK_BEFORE_DURABLE, "a parked event is done with before its link is durable")       \
    X(PLANTED_REPLAY_CUTS_EARLY, "replayed events leave the parked ones when they are read")

enum planted {
    PLANTED_NONE,
#define PLANTED_ENUM(name, what) name,
    PLANTED_MAP(PLANTED_ENUM)
#undef PLANTED_ENUM
};

#endif
