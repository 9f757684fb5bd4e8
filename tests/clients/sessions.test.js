// Appending to several streams at once: AppendSession and AppendRecords.
// clients: kurrentdb
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, test } from "node:test";
import { collect, kind, numbers, range, serve, unused } from "./support.js";

const server = await serve();
const {
    ANY, NO_STREAM, STREAM_EXISTS, STREAM_STATE, StreamNotFoundError, WrongExpectedVersionError, StreamTombstonedError,
    AppendConsistencyViolationError, AppendRecordSizeExceededError, TransactionMaxSizeExceededError,
} = kind.library;
const client = kind.connect(server);
const read = async (stream) => collect(client.readStream(stream));
const absent = (stream) => assert.rejects(read(stream), StreamNotFoundError);
const request = (streamName, events, expectedState = ANY) => ({ streamName, events, expectedState });
const MiB = 1024 * 1024;

describe("multiStreamAppend", () => {
    test("stores all of it, at neighbouring places", async () => {
        const [a, b] = [unused(), unused()];
        const done = await client.multiStreamAppend([request(a, kind.events(3), NO_STREAM), request(b, kind.events(2))]);
        assert.deepEqual(done.responses, [{ streamName: a, revision: 2n }, { streamName: b, revision: 1n }]);
        assert.deepEqual(numbers(await read(a)), [0, 1, 2]);
        assert.deepEqual(numbers(await read(b)), [0, 1]);
        assert.equal((await read(b)).at(-1).event.position.commit, done.position);
    });
    test("keeps ids, types, data and metadata", async () => {
        const stream = unused();
        const event = kind.event({ text: "å" }, { id: randomUUID(), type: "Something-happened", metadata: { who: "anna", why: "ä" } });
        const binary = kind.bytes(Buffer.from([0, 255]), { type: "Bytes" });
        await client.multiStreamAppend([request(stream, [event, binary])]);
        const [first, second] = (await read(stream)).map((each) => each.event);
        assert.equal(first.id, event.id);
        assert.equal(first.type, "Something-happened");
        assert.deepEqual(first.data, { text: "å" });
        assert.equal(first.metadata.who, "anna");
        assert.equal(first.metadata.why, "ä");
        assert.equal(second.isJson, false);
        assert.deepEqual([...second.data], [0, 255]);
    });
    test("one that is wrong stores nothing", async () => {
        const [a, b] = [unused(), unused()];
        await kind.append(client, b, kind.events(2));
        for (const [expected, told] of [[NO_STREAM, NO_STREAM], [7n, 7n]]) {
            await assert.rejects(client.multiStreamAppend([request(a, kind.events(3)), request(b, kind.events(1), expected)]), (error) => {
                assert.ok(error instanceof WrongExpectedVersionError, `${error}`);
                assert.equal(error.streamName, b);
                assert.equal(error.expectedState, told);
                assert.equal(error.actualState, 1n);
                return true;
            });
        }
        await assert.rejects(client.multiStreamAppend([request(a, kind.events(3), STREAM_EXISTS)]), (error) =>
            error instanceof WrongExpectedVersionError && error.actualState === NO_STREAM);
        await absent(a);
        assert.equal((await read(b)).length, 2);
    });
    test("a tombstone stops it", async () => {
        const [a, b] = [unused(), unused()];
        await client.tombstoneStream(b);
        await assert.rejects(client.multiStreamAppend([request(a, kind.events(1)), request(b, kind.events(1))]), (error) => {
            assert.ok(error instanceof StreamTombstonedError, `${error}`);
            assert.equal(error.stream, b);
            return true;
        });
        await absent(a);
    });
    test("a stream comes at most once, and something must come", async () => {
        const stream = unused();
        await assert.rejects(client.multiStreamAppend([request(stream, kind.events(1)), request(stream, kind.events(1))]));
        await assert.rejects(client.multiStreamAppend([]));
        await assert.rejects(client.multiStreamAppend([request(stream, [])]));
        await absent(stream);
    });
    test("a retry is answered as before", async () => {
        const requests = [request(unused(), kind.events(2), NO_STREAM), request(unused(), kind.events(3), NO_STREAM)];
        const first = await client.multiStreamAppend(requests);
        assert.deepEqual(await client.multiStreamAppend(requests), first);
        assert.equal((await read(requests[1].streamName)).length, 3);
    });
    test("a record that is too big is named", async () => {
        const stream = unused();
        const event = kind.bytes(Buffer.alloc(16 * MiB));
        await assert.rejects(client.multiStreamAppend([request(stream, [event])]), (error) => {
            assert.ok(error instanceof AppendRecordSizeExceededError, `${error}`);
            assert.equal(error.recordId, event.id);
            assert.ok(error.size > error.maxSize);
            return true;
        });
        await absent(stream);
    });
    test("a session that is too big as a whole is refused", async () => {
        const streams = range(0, 5).map(() => unused());
        await assert.rejects(client.multiStreamAppend(streams.map((each) => request(each, [kind.bytes(Buffer.alloc(12 * MiB))]))),
            (error) => error instanceof TransactionMaxSizeExceededError && error.size > error.maxSize);
        for (const each of streams) await absent(each);
    });
});

describe("appendRecords", () => {
    const record = (streamName, n) => ({ streamName, record: kind.event({ n }) });
    const check = (streamName, expectedState) => ({ type: STREAM_STATE, streamName, expectedState });

    test("streams may interleave", async () => {
        const [a, b] = [unused(), unused()];
        const done = await client.appendRecords([record(a, 0), record(b, 1), record(a, 2), record(b, 3), record(a, 4)]);
        assert.deepEqual(new Map(done.responses.map((each) => [each.streamName, each.revision])), new Map([[a, 2n], [b, 1n]]));
        assert.deepEqual(numbers(await read(a)), [0, 2, 4]);
        assert.deepEqual(numbers(await read(b)), [1, 3]);
        const all = await collect(client.readAll({ filter: kind.library.streamNameFilter({ prefixes: [a, b] }) }));
        assert.deepEqual(numbers(all), range(0, 5));
    });
    test("checks hold for streams that are written and for others", async () => {
        const [a, b, c] = [unused(), unused(), unused()];
        await kind.append(client, b, kind.events(2));
        await client.appendRecords([record(a, 0)], [check(a, NO_STREAM), check(b, 1n), check(c, NO_STREAM)]);
        await client.appendRecords([record(a, 1)], [check(a, 0n), check(b, STREAM_EXISTS)]);
        assert.deepEqual(numbers(await read(a)), [0, 1]);
    });
    test("everything that is wrong is told at once, and nothing is stored", async () => {
        const [a, b, c, dead] = [unused(), unused(), unused(), unused()];
        await kind.append(client, b, kind.events(2));
        await client.tombstoneStream(dead);
        await assert.rejects(client.appendRecords([record(a, 0), record(dead, 0)], [check(b, 7n), check(b + "x", NO_STREAM), check(c, STREAM_EXISTS)]), (error) => {
            assert.ok(error instanceof AppendConsistencyViolationError, `${error}`);
            assert.deepEqual(error.violations, [
                { checkIndex: 0, streamName: b, expectedState: 7n, actualState: 1n },
                { checkIndex: 2, streamName: c, expectedState: STREAM_EXISTS, actualState: NO_STREAM },
                { checkIndex: 4, streamName: dead, expectedState: ANY, actualState: -6n },
            ]);
            return true;
        });
        await absent(a);
    });
    test("no records are refused", async () => {
        await assert.rejects(client.appendRecords([]));
    });
    test("a retry is answered as before", async () => {
        const [a, b] = [unused(), unused()];
        const records = [record(a, 0), record(b, 1)];
        const first = await client.appendRecords(records, [check(a, NO_STREAM)]);
        assert.deepEqual(await client.appendRecords(records, [check(a, NO_STREAM)]), first);
        assert.equal((await read(a)).length, 1);
    });
    test("is read over HTTP like everything else", async () => {
        const stream = unused();
        await client.appendRecords([{ streamName: stream, record: kind.event({ n: 1 }, { metadata: { who: "anna" } }) }]);
        const { body } = await server.http("GET", `/streams/${stream}`);
        assert.deepEqual(body.map((each) => [each.type, each.data]), [["Noted", { n: 1 }]]);
        assert.equal(JSON.parse(body[0].metadata).who, "anna");
    });
});
