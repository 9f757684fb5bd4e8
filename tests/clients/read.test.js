// Reading: streams and $all, both directions, links, retention, filters, the streams of the system.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { before, describe, test } from "node:test";
import { collect, kind, numbers, range, revisions, serve, unused, until } from "./support.js";

const server = await serve();

const { BACKWARDS, FORWARDS, START, END, StreamNotFoundError, StreamDeletedError } = kind.library;
const client = kind.connect(server);

describe(`${kind.name}, a stream of ten`, () => {
    const stream = unused();
    before(() => kind.append(client, stream, kind.events(10)));
    const read = async (options) => numbers(await collect(client.readStream(stream, options)));

    test("forwards from the start", async () => {
        assert.deepEqual(await read({ direction: FORWARDS, fromRevision: START }), range(0, 10));
    });
    test("forwards from the middle, which is included", async () => {
        assert.deepEqual(await read({ fromRevision: 4n }), range(4, 10));
    });
    test("forwards from the last", async () => {
        assert.deepEqual(await read({ fromRevision: 9n }), [9]);
    });
    test("forwards from beyond", async () => {
        assert.deepEqual(await read({ fromRevision: 10n }), []);
        assert.deepEqual(await read({ fromRevision: 1000n }), []);
    });
    test("backwards from the end", async () => {
        assert.deepEqual(await read({ direction: BACKWARDS, fromRevision: END }), range(0, 10).reverse());
    });
    test("backwards from the middle, which is included", async () => {
        assert.deepEqual(await read({ direction: BACKWARDS, fromRevision: 4n }), [4, 3, 2, 1, 0]);
    });
    // The newer client reads forwards from START and backwards from END, whatever it is asked for.
    test("backwards from the start", { skip: kind.isCurrent }, async () => {
        assert.deepEqual(await read({ direction: BACKWARDS, fromRevision: START }), [0]);
    });
    test("backwards from beyond starts at the last", async () => {
        assert.deepEqual(await read({ direction: BACKWARDS, fromRevision: 1000n }), range(0, 10).reverse());
    });
    for (const count of [1, 3, 10, 11]) {
        test(`at most ${count}`, async () => {
            assert.deepEqual(await read({ maxCount: count }), range(0, Math.min(count, 10)));
            assert.deepEqual(await read({ maxCount: count, direction: BACKWARDS, fromRevision: END }),
                range(0, 10).reverse().slice(0, count));
            assert.deepEqual(await read({ maxCount: count, fromRevision: 8n }), [8, 9].slice(0, count));
        });
    }
    test("every event says where it stands", async () => {
        const all = await collect(client.readStream(stream));
        all.forEach((each, n) => {
            assert.equal(each.event.streamId, stream);
            assert.equal(each.event.revision, BigInt(n));
            assert.equal(each.link, undefined);
            assert.equal(each.event.position.commit, each.event.position.prepare);
            assert.equal(each.commitPosition, each.event.position.commit);
        });
        const positions = all.map((each) => each.event.position.commit);
        positions.slice(1).forEach((position, n) => assert.ok(position > positions[n]));
    });
    test("a reader may leave early", async () => {
        const seen = [];
        for await (const event of client.readStream(stream)) {
            seen.push(event.event.data.n);
            if (seen.length === 3) break;
        }
        assert.deepEqual(seen, [0, 1, 2]);
    });
});

describe(`${kind.name}, streams that are not there`, () => {
    test("one that was never written is not found", async () => {
        const stream = unused();
        for (const direction of [FORWARDS, BACKWARDS]) {
            const from = direction === FORWARDS ? START : END;
            await assert.rejects(collect(client.readStream(stream, { direction, fromRevision: from })), (error) =>
                error instanceof StreamNotFoundError && error.streamName === stream);
        }
    });
    test("one that was deleted is not found", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(3));
        await client.deleteStream(stream);
        await assert.rejects(collect(client.readStream(stream)), StreamNotFoundError);
    });
    test("one with a tombstone is deleted", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(3));
        await client.tombstoneStream(stream);
        for (const options of [{}, { direction: BACKWARDS, fromRevision: END }]) {
            await assert.rejects(collect(client.readStream(stream, options)), (error) =>
                error instanceof StreamDeletedError && error.streamName === stream);
        }
    });
});

describe(`${kind.name}, many events`, () => {
    test("10,000 come whole and in order", async () => {
        const stream = unused();
        for (const part of range(0, 10)) {
            await kind.append(client, stream, range(0, 1000).map((n) => kind.event({ n: part * 1000 + n })));
        }
        assert.deepEqual(numbers(await collect(client.readStream(stream))), range(0, 10000));
        assert.deepEqual(numbers(await collect(client.readStream(stream, { direction: BACKWARDS, fromRevision: END }))),
            range(0, 10000).reverse());
    });
    test("1 MiB events come whole", async () => {
        const stream = unused();
        const datas = range(0, 20).map((n) => Buffer.alloc(1024 * 1024, `${n}`));
        for (const data of datas) await kind.append(client, stream, kind.bytes(data));
        const read = await collect(client.readStream(stream));
        datas.forEach((data, n) => assert.ok(data.equals(Buffer.from(read[n].event.data))));
    });
});

describe(`${kind.name}, retention`, () => {
    test("$maxCount keeps the newest", async () => {
        const stream = unused();
        await client.setStreamMetadata(stream, { maxCount: 3 });
        await kind.append(client, stream, kind.events(10));
        assert.deepEqual(numbers(await collect(client.readStream(stream))), [7, 8, 9]);
        assert.deepEqual(numbers(await collect(client.readStream(stream, { direction: BACKWARDS, fromRevision: END }))), [9, 8, 7]);
        assert.deepEqual(numbers(await collect(client.readStream(stream, { fromRevision: 2n, maxCount: 2 }))), [7, 8]);
    });
    test("$tb hides what is before it", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(10));
        await client.setStreamMetadata(stream, { truncateBefore: 6 });
        assert.deepEqual(numbers(await collect(client.readStream(stream))), [6, 7, 8, 9]);
        assert.deepEqual(numbers(await collect(client.readStream(stream, { direction: BACKWARDS, fromRevision: 7n }))), [7, 6]);
    });
    test("$maxAge hides what is older", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(3));
        await client.setStreamMetadata(stream, { maxAge: 2 });
        await until("the events are too old", async () => (await collect(client.readStream(stream))).length === 0);
        await kind.append(client, stream, kind.event({ n: 3 }));
        assert.deepEqual(numbers(await collect(client.readStream(stream))), [3]);
    });
    test("metadata goes round", async () => {
        const stream = unused();
        assert.deepEqual(await client.getStreamMetadata(stream), { streamName: stream });
        const metadata = {
            maxAge: 3600, maxCount: 1000, cacheControl: 60, truncateBefore: 1, mine: { any: ["thing"] },
            acl: { readRoles: ["anna", "$admins"], writeRoles: "bo", deleteRoles: "$admins", metaReadRoles: "$all", metaWriteRoles: ["$ops"] },
        };
        await client.setStreamMetadata(stream, metadata);
        assert.deepEqual((await client.getStreamMetadata(stream)).metadata, metadata);
        await kind.setMetadata(client, stream, { maxCount: 5 }, 0n);
        assert.deepEqual((await client.getStreamMetadata(stream)).metadata, { maxCount: 5 });
        await assert.rejects(kind.setMetadata(client, stream, { maxCount: 6 }, 0n),
            kind.library.WrongExpectedVersionError);
    });
    test("metadata of a stream may come before the stream", async () => {
        const stream = unused();
        await kind.setMetadata(client, stream, { maxCount: 2 }, "no_stream");
        await kind.append(client, stream, kind.events(4), "no_stream");
        assert.deepEqual(numbers(await collect(client.readStream(stream))), [2, 3]);
    });
    test("default access lists are kept", async () => {
        const settings = kind.library.jsonEvent({ type: "$settings", data: { $userStreamAcl: { $r: "$all" }, $systemStreamAcl: { $r: "$admins" } } });
        await kind.append(client, "$settings", settings);
        const [last] = await collect(client.readStream("$settings", { direction: BACKWARDS, fromRevision: END, maxCount: 1 }));
        assert.deepEqual(last.event.data, settings.data);
    });
});

describe(`${kind.name}, links`, () => {
    const link = (to) => kind.bytes(Buffer.from(to), { type: "$>" });

    test("a link is followed if that is asked for", async () => {
        const target = unused();
        const links = unused("links");
        await kind.append(client, target, kind.events(3));
        await kind.append(client, links, [link(`2@${target}`), link(`0@${target}`)]);
        const resolved = await collect(client.readStream(links, { resolveLinkTos: true }));
        assert.deepEqual(numbers(resolved), [2, 0]);
        assert.deepEqual(resolved.map((each) => each.event.streamId), [target, target]);
        assert.deepEqual(resolved.map((each) => each.link.streamId), [links, links]);
        assert.deepEqual(resolved.map((each) => each.link.revision), [0n, 1n]);
        const raw = await collect(client.readStream(links));
        assert.deepEqual(raw.map((each) => [each.event.type, Buffer.from(each.event.data).toString(), each.link]),
            [["$>", `2@${target}`, undefined], ["$>", `0@${target}`, undefined]]);
    });
    test("a link to nothing comes without its event", async () => {
        const links = unused("links");
        const gone = unused();
        await kind.append(client, gone, kind.event());
        await client.tombstoneStream(gone);
        await kind.append(client, links, [link(`0@${unused()}`), link(`0@${gone}`)]);
        const resolved = await collect(client.readStream(links, { resolveLinkTos: true }));
        assert.equal(resolved.length, 2);
        resolved.forEach((each) => {
            assert.equal(each.event, undefined);
            assert.equal(each.link.type, "$>");
        });
    });
});

describe(`${kind.name}, the streams of the system`, () => {
    const category = `cat${randomUUID().replaceAll("-", "")}`;
    const type = `Type${category}`;
    const correlation = randomUUID();
    const streams = [`${category}-a`, `${category}-b`];
    before(async () => {
        for (const n of range(0, 6)) {
            await kind.append(client, streams[n % 2], kind.event({ n }, { type, metadata: { $correlationId: correlation } }));
        }
    });

    for (const [what, name] of [["a category", `$ce-${category}`], ["an event type", `$et-${type}`], ["a correlation id", `$bc-${correlation}`]]) {
        test(`the events of ${what}, in order`, async () => {
            const resolved = await collect(client.readStream(name, { resolveLinkTos: true }));
            assert.deepEqual(numbers(resolved), range(0, 6));
            resolved.forEach((each, n) => {
                assert.equal(each.link.streamId, name);
                assert.equal(each.link.revision, BigInt(n));
                assert.equal(each.link.type, "$>");
                assert.equal(each.event.streamId, streams[n % 2]);
            });
            assert.deepEqual(numbers(await collect(client.readStream(name, { resolveLinkTos: true, direction: BACKWARDS, fromRevision: END, maxCount: 2 }))), [5, 4]);
            assert.deepEqual(numbers(await collect(client.readStream(name, { resolveLinkTos: true, fromRevision: 3n }))), [3, 4, 5]);
            const raw = await collect(client.readStream(name));
            assert.deepEqual(raw.map((each) => Buffer.from(each.event.data).toString()),
                range(0, 6).map((n) => `${Math.floor(n / 2)}@${streams[n % 2]}`));
            const again = await collect(client.readStream(name, { resolveLinkTos: true }));
            assert.deepEqual(again.map((each) => each.link.id), resolved.map((each) => each.link.id));
            assert.equal(new Set(again.map((each) => each.link.id)).size, 6);
        });
    }
    test("every stream is listed once", async () => {
        const all = await collect(client.readStream("$streams", { resolveLinkTos: true }));
        const ours = all.filter((each) => each.event?.streamId.startsWith(category));
        assert.deepEqual(ours.map((each) => [each.event.streamId, each.event.revision]), streams.map((name) => [name, 0n]));
    });
    test("a category that nobody has used is not found", async () => {
        await assert.rejects(collect(client.readStream(`$ce-${randomUUID()}`)), StreamNotFoundError);
    });
});

describe(`${kind.name}, $all`, () => {
    const streams = range(0, 3).map(() => unused("whole"));
    const positions = [];
    const ours = (all) => all.filter((each) => streams.includes(each.event?.streamId));
    before(async () => {
        for (const n of range(0, 30)) {
            positions.push((await kind.append(client, streams[n % 3], kind.event({ n }))).position);
        }
    });

    test("forwards is the order of the log", async () => {
        const all = await collect(client.readAll());
        assert.deepEqual(numbers(ours(all)), range(0, 30));
        assert.deepEqual(ours(all).map((each) => each.event.position), positions);
    });
    test("backwards is the other way round", async () => {
        assert.deepEqual(numbers(ours(await collect(client.readAll({ direction: BACKWARDS, fromPosition: END })))), range(0, 30).reverse());
    });
    test("forwards from a position includes it", async () => {
        assert.deepEqual(numbers(await collect(client.readAll({ fromPosition: positions[10], maxCount: 3 }))), [10, 11, 12]);
    });
    test("backwards from a position excludes it", async () => {
        assert.deepEqual(numbers(await collect(client.readAll({ direction: BACKWARDS, fromPosition: positions[10], maxCount: 3 }))), [9, 8, 7]);
    });
    test("pages of any size say the same", async () => {
        const seen = [];
        let from = positions[0];
        for (;;) {
            const page = await collect(client.readAll({ fromPosition: from, maxCount: 7 }));
            if (seen.length) page.shift();
            if (page.length === 0) break;
            seen.push(...page);
            from = page.at(-1).event.position;
        }
        assert.deepEqual(numbers(ours(seen)), range(0, 30));
    });
    test("from before the start, and from behind the end", async () => {
        assert.ok((await collect(client.readAll({ direction: FORWARDS, fromPosition: START, maxCount: 1 }))).length === 1);
        if (kind.isCurrent) return;
        assert.equal((await collect(client.readAll({ direction: BACKWARDS, fromPosition: START }))).length, 0);
        assert.equal((await collect(client.readAll({ direction: FORWARDS, fromPosition: END }))).length, 0);
    });
    test("shows metadata, tombstones and links", async () => {
        const stream = unused("whole");
        await kind.append(client, stream, kind.event());
        await client.setStreamMetadata(stream, { maxCount: 9 });
        await client.tombstoneStream(stream);
        const all = await collect(client.readAll({ direction: BACKWARDS, fromPosition: END, maxCount: 20 }));
        const types = all.filter((each) => [stream, `$$${stream}`].includes(each.event?.streamId)).map((each) => each.event.type);
        assert.deepEqual(types.slice(0, 3), ["$streamDeleted", "$metadata", "Noted"]);
    });
    if (kind.isCurrent) {
        const { streamNameFilter, eventTypeFilter, excludeSystemEvents } = kind.library;
        const filtered = async (filter, options) => collect(client.readAll({ filter, ...options }));
        test("filters by prefix of the stream's name", async () => {
            assert.deepEqual(numbers(await filtered(streamNameFilter({ prefixes: [streams[0], streams[2]] }))), range(0, 30).filter((n) => n % 3 !== 1));
        });
        test("filters by an expression over the stream's name", async () => {
            assert.deepEqual(numbers(await filtered(streamNameFilter({ regex: `^${streams[1]}$` }))), range(0, 30).filter((n) => n % 3 === 1));
            assert.deepEqual(numbers(await filtered(streamNameFilter({ regex: streams[1].slice(5) }))), range(0, 30).filter((n) => n % 3 === 1));
        });
        test("filters by type", async () => {
            const type = `Only${randomUUID()}`;
            await kind.append(client, unused(), kind.events(3, { type }));
            assert.equal((await filtered(eventTypeFilter({ prefixes: [type] }))).length, 3);
            assert.equal((await filtered(eventTypeFilter({ regex: `^(?=${type})(?!Other)` }))).length, 3);
        });
        test("leaves the system's events out", async () => {
            const all = await filtered(excludeSystemEvents());
            assert.ok(all.length > 0);
            all.forEach((each) => assert.ok(!each.event.type.startsWith("$")));
        });
        test("filters backwards, up to a count", async () => {
            assert.deepEqual(numbers(await filtered(streamNameFilter({ prefixes: streams }), { direction: BACKWARDS, fromPosition: END, maxCount: 4 })), [29, 28, 27, 26]);
        });
    }
});
