// Appending: sizes, every expectation in every state of a stream, retries, what cannot be stored.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, test } from "node:test";
import { appends, collect, kind, numbers, range, revisions, serve, unused } from "./support.js";

const server = await serve();
const MiB = 1024 * 1024;

/** How many events a stream holds; 0 also if it is not there. */
async function length(kind, client, stream) {
    try {
        return (await collect(client.readStream(stream))).length;
    } catch (error) {
        if (error instanceof kind.library.StreamNotFoundError) return 0;
        throw error;
    }
}

const states = {
    missing: async () => {},
    present: async (kind, client, stream) => {
        await kind.append(client, stream, kind.events(2));
    },
    "softly deleted": async (kind, client, stream) => {
        await kind.append(client, stream, kind.events(2));
        await client.deleteStream(stream);
    },
    tombstoned: async (kind, client, stream) => {
        await kind.append(client, stream, kind.events(2));
        await client.tombstoneStream(stream);
    },
};

/* What comes of appending one event: the revision it got, what the stream is at instead
 * ("no_stream" or a revision), or "deleted". */
const outcomes = {
    missing: { any: 0n, no_stream: 0n, stream_exists: { actual: "no_stream" }, 1: { actual: "no_stream" }, 5: { actual: "no_stream" } },
    present: { any: 2n, no_stream: { actual: 1n }, stream_exists: 2n, 1: 2n, 0: { actual: 1n }, 5: { actual: 1n } },
    "softly deleted": { any: 2n, no_stream: 2n, stream_exists: "deleted", 1: 2n },
    tombstoned: { any: "deleted", no_stream: "deleted", stream_exists: "deleted", 1: "deleted" },
};

async function outcomeOf(kind, appending) {
    try {
        return (await appending).nextExpectedRevision;
    } catch (error) {
        if (error instanceof kind.library.StreamDeletedError) return "deleted";
        if (error instanceof kind.library.WrongExpectedVersionError) return { actual: kind.expectedOf(error).actual };
        throw error;
    }
}

for (const by of appends) {
    describe(`${kind.name}, ${by}`, () => {
        const client = kind.connect(server);
        const append = (stream, events, expected, options) =>
            kind.append(client, stream, events, expected, { by, ...options });

        for (const count of [1, 2, 1000]) {
            test(`appends ${count} at once`, async () => {
                const stream = unused();
                const written = await append(stream, kind.events(count));
                assert.equal(written.nextExpectedRevision, BigInt(count - 1));
                const read = await collect(client.readStream(stream));
                assert.deepEqual(numbers(read), range(0, count));
                assert.deepEqual(revisions(read), range(0, count));
                assert.deepEqual(read.at(-1).event.position, written.position);
                assert.equal(written.position.commit, written.position.prepare);
            });
        }

        for (const [state, prepare] of Object.entries(states)) {
            for (const [expected, outcome] of Object.entries(outcomes[state])) {
                test(`expecting ${expected} of a stream that is ${state}`, async () => {
                    const stream = unused();
                    await prepare(kind, client, stream);
                    const expectation = /^\d+$/.test(expected) ? BigInt(expected) : expected;
                    assert.deepEqual(await outcomeOf(kind, append(stream, kind.event({ late: true }), expectation)), outcome);
                    if (typeof outcome === "bigint") {
                        const last = (await collect(client.readStream(stream))).at(-1);
                        assert.deepEqual(last.event.data, { late: true });
                        assert.equal(last.event.revision, outcome);
                    }
                });
            }
        }

        test("a deleted stream that is written again shows only what is new", async () => {
            const stream = unused();
            await states["softly deleted"](kind, client, stream);
            await append(stream, kind.events(3));
            assert.deepEqual(revisions(await collect(client.readStream(stream))), [2, 3, 4]);
        });

        test("a wrong expectation may be an answer instead of an error", async () => {
            const lenient = kind.connect(server, undefined, "&throwOnAppendFailure=false");
            const stream = unused();
            await kind.append(lenient, stream, kind.events(2), "any", { by });
            const answer = await kind.append(lenient, stream, kind.event(), "no_stream", { by });
            assert.equal(answer.success, false);
            assert.equal(await length(kind, client, stream), 2);
        });

        for (const expected of ["any", "no_stream"]) {
            test(`a retry is stored once and answered as before, expecting ${expected}`, async () => {
                const stream = unused();
                const events = kind.events(3);
                const first = await append(stream, events, expected);
                const second = await append(stream, events, expected);
                assert.deepEqual(second, first);
                assert.equal(await length(kind, client, stream), 3);
            });
        }

        test("a retry is stored once, expecting that the stream exists", async () => {
            const stream = unused();
            await append(stream, kind.events(2));
            const events = kind.events(3);
            const first = await append(stream, events, "stream_exists");
            assert.deepEqual(await append(stream, events, "stream_exists"), first);
            assert.equal(await length(kind, client, stream), 5);
        });

        test("a retry is stored once, expecting the revision before it", async () => {
            const stream = unused();
            await append(stream, kind.events(2));
            const events = kind.events(3);
            const first = await append(stream, events, 1n);
            assert.deepEqual(await append(stream, events, 1n), first);
            await append(stream, kind.events(2));
            assert.deepEqual(await append(stream, events, 1n), first);
            assert.equal(await length(kind, client, stream), 7);
        });

        test("a retry of which some is new is refused", async () => {
            const stream = unused();
            const events = kind.events(3);
            await append(stream, events.slice(0, 2), "no_stream");
            await assert.rejects(append(stream, events, "no_stream"));
            assert.equal(await length(kind, client, stream), 2);
        });

        test("no events are a question about the revision", async () => {
            const stream = unused();
            await append(stream, [], "no_stream");
            assert.equal(await length(kind, client, stream), 0);
            await append(stream, kind.events(2));
            assert.equal((await append(stream, [], "any")).nextExpectedRevision, 1n);
            assert.equal((await append(stream, [], 1n)).nextExpectedRevision, 1n);
            await assert.rejects(append(stream, [], 7n), kind.library.WrongExpectedVersionError);
            assert.equal(await length(kind, client, stream), 2);
        });

        test("keeps ids, types, data and metadata as they came", async () => {
            const stream = unused();
            const json = kind.event({ text: "Räksmörgås ☃", list: [1, null, { deep: true }] },
                { id: randomUUID(), type: "Något-hänt", metadata: { who: "anna", $correlationId: "c-1" } });
            const binary = kind.bytes(Uint8Array.from(range(0, 256)), { id: randomUUID(), metadata: Uint8Array.from([0, 255, 1, 254]) });
            const bare = kind.bytes(new Uint8Array(0), { id: randomUUID() });
            const before = Date.now();
            await append(stream, [json, binary, bare]);
            const [a, b, c] = (await collect(client.readStream(stream))).map((each) => each.event);
            assert.equal(a.id, json.id);
            assert.equal(a.type, "Något-hänt");
            assert.equal(a.streamId, stream);
            assert.equal(a.isJson, true);
            assert.deepEqual(a.data, json.data);
            assert.deepEqual(a.metadata, json.metadata);
            assert.ok(Math.abs(a.created.getTime() - before) < 60000, `${a.created} is not now`);
            assert.equal(b.isJson, false);
            assert.deepEqual([...b.data], range(0, 256));
            assert.deepEqual([...b.metadata], [0, 255, 1, 254]);
            assert.equal(c.id, bare.id);
            assert.equal(c.data.length, 0);
            assert.equal(c.metadata, undefined);
        });

        test("takes names with any letters", async () => {
            for (const name of ["å/ä ö?&=%-#1", "日本語-流れ", "with space", "emoji-🦆", "a".repeat(1000)]) {
                const stream = `${name}${randomUUID()}`.slice(-1000);
                await append(stream, kind.events(2), "no_stream");
                const read = await collect(client.readStream(stream));
                assert.deepEqual(read.map((each) => each.event.streamId), [stream, stream]);
            }
        });

        test("takes an event of 15 MiB", async () => {
            const stream = unused();
            const data = Buffer.alloc(15 * MiB, "deed");
            await append(stream, kind.bytes(data), "no_stream", { deadline: 60000 });
            const [read] = await collect(client.readStream(stream));
            assert.ok(Buffer.from(read.event.data).equals(data));
        });

        test("refuses an event of 17 MiB, and goes on", async () => {
            const stream = unused();
            await assert.rejects(answered(append(stream, kind.bytes(Buffer.alloc(17 * MiB)), "any", { deadline: 60000 })));
            assert.equal(await length(kind, client, stream), 0);
            const fresh = kind.connect(server);
            await kind.append(fresh, stream, kind.event(), "no_stream", { by });
            assert.equal(await length(kind, fresh, stream), 1);
        });

        test("refuses an append of many events that is too big as a whole", async () => {
            const stream = unused();
            const events = range(0, 12).map(() => kind.bytes(Buffer.alloc(4 * MiB)));
            await assert.rejects(answered(append(stream, events, "any", { deadline: 60000 })));
            assert.equal(await length(kind, kind.connect(server), stream), 0);
        });

        test("refuses names that are kept for virtual streams", async () => {
            for (const stream of ["$ce-note", "$et-Noted", "$bc-1", "$streams"]) {
                await assert.rejects(append(stream, kind.event()), `${stream}`);
            }
        });

        test("many appends at once each get their own answer", async () => {
            const streams = range(0, 100).map(() => unused());
            const answers = await Promise.all(streams.map((stream, n) => append(stream, kind.events(n % 5 + 1), "no_stream")));
            answers.forEach((answer, n) => assert.equal(answer.nextExpectedRevision, BigInt(n % 5)));
            const lengths = await Promise.all(streams.map((stream) => length(kind, client, stream)));
            assert.deepEqual(lengths, streams.map((_, n) => n % 5 + 1));
        });

        test("appends to one stream keep the order in which they were sent", async () => {
            const stream = unused();
            const ordered = by === "BatchAppend" ? range(0, 200).map((n) => append(stream, kind.event({ n }))) : [];
            await Promise.all(ordered);
            if (by === "Append") for (const n of range(0, 50)) await append(stream, kind.event({ n }), n ? BigInt(n - 1) : "no_stream");
            assert.deepEqual(numbers(await collect(client.readStream(stream))), range(0, by === "Append" ? 50 : 200));
        });
    });
}

describe(`${kind.name}, BatchAppend`, () => {
    const client = kind.connect(server);

    test("chunks of several appends come interleaved", async () => {
        const streams = range(0, 8).map(() => unused());
        const answers = await Promise.all(streams.map((stream) =>
            kind.append(client, stream, kind.events(300), "no_stream", { batchAppendSize: 4096 })));
        answers.forEach((answer) => assert.equal(answer.nextExpectedRevision, 299n));
        for (const stream of streams) assert.deepEqual(numbers(await collect(client.readStream(stream))), range(0, 300));
    });

    test("one that fails leaves the others alone", async () => {
        const taken = unused();
        await kind.append(client, taken, kind.event());
        const settled = await Promise.allSettled(range(0, 30).map((n) =>
            kind.append(client, n % 3 === 0 ? taken : unused(), kind.event(), "no_stream")));
        settled.forEach((each, n) => assert.equal(each.status, n % 3 === 0 ? "rejected" : "fulfilled"));
    });

    test("a deadline that has passed ends it, and nothing is stored", async () => {
        const stream = unused();
        await assert.rejects(kind.append(client, stream, kind.event(), "any", { deadline: -5000 }), kind.library.DeadlineExceededError);
        assert.equal(await length(kind, client, stream), 0);
    });
});

/* A client that never hears back would hold the whole file. */
function answered(promise) {
    return Promise.race([promise, new Promise((_, reject) => setTimeout(reject, 60000, new Error("no answer")).unref())]).catch((error) => {
        assert.notEqual(error.message, "no answer");
        throw error;
    });
}
