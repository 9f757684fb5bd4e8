// Catch-up subscriptions: where they start, that they miss nothing, filters and checkpoints, slow readers.
// sanitize: tsan
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { collect, delay, Following, kind, numbers, range, serve, unused, until } from "./support.js";

const server = await serve();

const { START, END, StreamDeletedError, streamNameFilter, eventTypeFilter, excludeSystemEvents } = kind.library;
const client = kind.connect(server);
const follow = (stream, options) => new Following(client.subscribeToStream(stream, options));
const followAll = (options) => new Following(client.subscribeToAll(options));

describe(`${kind.name}, subscriptions to a stream`, () => {
    const starts = { "the start": [START, 0], "revision 0": [0n, 1], "revision 4": [4n, 5], "its last": [9n, 10], "the end": [END, 10] };
    for (const [name, [fromRevision, first]] of Object.entries(starts)) {
        test(`from ${name}: what is behind it, then what comes`, async () => {
            const stream = unused();
            await kind.append(client, stream, kind.events(10));
            const following = follow(stream, { fromRevision });
            await following.confirmed;
            assert.match(following.subscription.id, /^[0-9a-f-]{36}$/);
            await until("it has caught up", () => following.caughtUp > 0);
            for (const n of range(10, 13)) await kind.append(client, stream, kind.event({ n }));
            assert.deepEqual(numbers(await following.receives(13 - first)), range(first, 13));
            assert.deepEqual(following.errors, []);
            await following.stop();
        });
    }
    test("to a stream that is not there yet", async () => {
        for (const fromRevision of [START, END]) {
            const stream = unused();
            const following = follow(stream, { fromRevision });
            await following.confirmed;
            await until("it has caught up", () => following.caughtUp > 0);
            await kind.append(client, stream, kind.events(2));
            assert.deepEqual(numbers(await following.receives(2)), [0, 1]);
            await following.stop();
        }
    });
    test("to a deleted stream: waits for it to be written again", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(3));
        await client.deleteStream(stream);
        const following = follow(stream, { fromRevision: START });
        await until("it has caught up", () => following.caughtUp > 0);
        await kind.append(client, stream, kind.event({ n: 3 }));
        assert.deepEqual(numbers(await following.receives(1)), [3]);
        await following.stop();
    });
    test("to a stream with a tombstone: ends", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(3));
        await client.tombstoneStream(stream);
        const error = await follow(stream).fails();
        assert.ok(error instanceof StreamDeletedError, `${error}`);
        assert.equal(error.streamName, stream);
    });
    test("a tombstone while it is followed comes as an event, then it ends", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(2));
        const following = follow(stream);
        await until("it has caught up", () => following.caughtUp > 0);
        await client.tombstoneStream(stream);
        const error = await following.fails();
        assert.ok(error instanceof StreamDeletedError, `${error}`);
        assert.deepEqual(following.events.map((each) => each.event.type), ["Noted", "Noted", "$streamDeleted"]);
    });
    test("begins behind what retention has hidden", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(10));
        await client.setStreamMetadata(stream, { maxCount: 3 });
        const following = follow(stream);
        assert.deepEqual(numbers(await following.receives(3)), [7, 8, 9]);
        await following.stop();
    });
    test("follows a category", async () => {
        const category = unused("cat").split("-")[0];
        await kind.append(client, `${category}-1`, kind.event({ n: 0 }));
        const following = follow(`$ce-${category}`, { resolveLinkTos: true });
        await until("it has caught up", () => following.caughtUp > 0);
        await kind.append(client, `${category}-2`, kind.event({ n: 1 }));
        await kind.append(client, `${category}-1`, kind.event({ n: 2 }));
        assert.deepEqual(numbers(await following.receives(3)), [0, 1, 2]);
        assert.deepEqual(following.events.map((each) => [each.link.streamId, each.link.revision]),
            range(0, 3).map((n) => [`$ce-${category}`, BigInt(n)]));
        await following.stop();
    });
    test("is left by the client whenever it likes", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(100));
        for (let turn = 0; turn < 50; turn += 1) {
            const following = follow(stream);
            if (turn % 2) await following.receives(turn);
            await following.stop();
        }
        assert.equal((await collect(client.readStream(stream))).length, 100);
    });
    if (kind.isCurrent) {
        test("being caught up says where", async () => {
            const stream = unused();
            await kind.append(client, stream, kind.events(5));
            const following = follow(stream);
            await until("it has caught up", () => following.caughtUp > 0);
            assert.equal(following.caughtUpInfo.revision, 4n);
            assert.ok(Math.abs(following.caughtUpInfo.date.getTime() - Date.now()) < 60000);
            await following.stop();
        });
    }
});

describe(`${kind.name}, subscriptions to $all`, () => {
    test("from the start: everything, in order", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(5));
        const all = await collect(client.readAll());
        const following = followAll({ fromPosition: START });
        const seen = await following.receives(all.length);
        assert.deepEqual(seen.slice(0, all.length).map((each) => each.event.position), all.map((each) => each.event.position));
        await following.stop();
    });
    test("from a position: strictly behind it", async () => {
        const stream = unused();
        const { position } = await kind.append(client, stream, kind.event({ n: 0 }));
        await kind.append(client, stream, kind.event({ n: 1 }));
        const following = followAll({ fromPosition: position });
        await until("it has caught up", () => following.caughtUp > 0);
        await kind.append(client, stream, kind.event({ n: 2 }));
        assert.deepEqual(numbers(await following.receives(2)), [1, 2]);
        await following.stop();
    });
    test("from the end: only what is new", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.event({ n: 0 }));
        const following = followAll({ fromPosition: END });
        await until("it has caught up", () => following.caughtUp > 0);
        await kind.append(client, stream, kind.event({ n: 1 }));
        assert.deepEqual(numbers(await following.receives(1)), [1]);
        await following.stop();
    });
    const filters = {
        "a prefix of the name": (stream) => streamNameFilter({ prefixes: [stream.slice(0, -2)] }),
        "an expression over the name": (stream) => streamNameFilter({ regex: `^(?!x)${stream}$` }),
        "a prefix of the type": (stream) => eventTypeFilter({ prefixes: [`T${stream}`] }),
        "an expression over the type": (stream) => eventTypeFilter({ regex: `${stream}$` }),
    };
    for (const [name, filterOf] of Object.entries(filters)) {
        test(`by ${name}: what was and what comes`, async () => {
            const stream = unused();
            const write = async (n) => {
                await kind.append(client, stream, kind.event({ n }, { type: `T${stream}` }));
                await kind.append(client, unused("other"), kind.event());
            };
            for (const n of range(0, 5)) await write(n);
            const following = followAll({ fromPosition: START, filter: filterOf(stream) });
            await until("it has caught up", () => following.caughtUp > 0);
            for (const n of range(5, 10)) await write(n);
            assert.deepEqual(numbers(await following.receives(10)), range(0, 10));
            await following.stop();
        });
    }
    test("without the system's own events", async () => {
        await client.setStreamMetadata(unused(), { maxCount: 3 });
        const following = followAll({ fromPosition: START, filter: excludeSystemEvents() });
        await until("it has caught up", () => following.caughtUp > 0);
        assert.ok(following.events.length > 0);
        following.events.forEach((each) => assert.doesNotMatch(each.event.type, /^\$/));
        await following.stop();
    });
    test("checkpoints never run backwards, and going on from any of them misses nothing", async () => {
        const wanted = unused();
        const checkpoints = [];
        const filter = (options) => streamNameFilter({ prefixes: [wanted], ...options });
        const write = async (first, end) => {
            for (const n of range(first, end)) {
                await kind.append(client, wanted, kind.event({ n }));
                await kind.append(client, unused("noise"), kind.events(7));
            }
        };
        const start = (await kind.append(client, unused("noise"), kind.event())).position;
        await write(0, 20);
        const following = followAll({
            fromPosition: start,
            filter: filter({ maxSearchWindow: 5, checkpointInterval: 2, checkpointReached: async (_, position) => void checkpoints.push(position.commit) }),
        });
        await following.receives(20);
        await write(20, 30);
        await following.receives(30);
        await until("checkpoints come", () => checkpoints.length >= 20);
        await following.stop();
        assert.deepEqual(numbers(following.events), range(0, 30));
        checkpoints.slice(1).forEach((checkpoint, n) => assert.ok(checkpoint > checkpoints[n], `${checkpoint} after ${checkpoints[n]}`));
        for (const checkpoint of [checkpoints[0], checkpoints[5], checkpoints.at(-1)]) {
            const behind = following.events.filter((each) => each.commitPosition > checkpoint).length;
            const again = followAll({ fromPosition: { commit: checkpoint, prepare: checkpoint }, filter: filter() });
            await until("it has caught up", () => again.caughtUp > 0);
            assert.deepEqual(numbers(again.events), range(30 - behind, 30));
            await again.stop();
        }
    });
});

describe(`${kind.name}, crowds`, () => {
    test("10,000 live events reach 20 subscribers, none lost, none twice", async () => {
        const stream = unused();
        const others = kind.connect(server);
        const crowd = range(0, 20).map((n) => n % 2
            ? new Following((n % 4 === 1 ? client : others).subscribeToStream(stream, { fromRevision: START }))
            : new Following((n % 4 === 0 ? client : others).subscribeToAll({ fromPosition: END, filter: streamNameFilter({ prefixes: [stream] }) })));
        await Promise.all(crowd.map((each) => each.confirmed));
        await until("all have caught up", () => crowd.every((each) => each.caughtUp > 0));
        let n = 0;
        while (n < 10000) {
            const size = 1 + n % 97;
            const batch = range(n, Math.min(10000, n + size)).map((each) => kind.event({ n: each }));
            await kind.append(client, stream, batch);
            n += batch.length;
        }
        await Promise.all(crowd.map((each) => each.receives(10000, 120000)));
        for (const each of crowd) {
            assert.deepEqual(numbers(each.events), range(0, 10000));
            assert.deepEqual(each.errors, []);
        }
        await Promise.all(crowd.map((each) => each.stop()));
    });
    test("a reader that stops reading holds nobody up, and misses nothing", async () => {
        const stream = unused();
        const slow = client.subscribeToStream(stream, { fromRevision: START }, { highWaterMark: 1 });
        const quick = follow(stream);
        await quick.confirmed;
        const events = range(0, 400).map((n) => kind.bytes(Buffer.alloc(64 * 1024, `${n}`)));
        for (const event of events) await kind.append(client, stream, event);
        await quick.receives(400, 120000);
        const seen = [];
        for await (const event of slow) {
            seen.push(Number(event.event.revision));
            if (seen.length % 50 === 0) await delay(20);
            if (seen.length === 400) break;
        }
        assert.deepEqual(seen, range(0, 400));
        await quick.stop();
    });
    test("writers beside readers that catch up: no gap where old meets new", async () => {
        const stream = unused();
        let written = 0;
        let writing = true;
        const writer = (async () => {
            while (writing) {
                await kind.append(client, stream, [kind.event({ n: written }), kind.event({ n: written + 1 })]);
                written += 2;
            }
        })();
        await until("some are written", () => written > 200);
        const crowd = [];
        for (let n = 0; n < 12; n += 1) {
            crowd.push(n % 2 ? follow(stream) : followAll({ fromPosition: START, filter: streamNameFilter({ prefixes: [stream] }) }));
            await delay(20);
        }
        await until("all have caught up", () => crowd.every((each) => each.caughtUp > 0));
        writing = false;
        await writer;
        for (const each of crowd) {
            await each.receives(written);
            assert.deepEqual(numbers(each.events), range(0, written));
            await each.stop();
        }
    });
});
