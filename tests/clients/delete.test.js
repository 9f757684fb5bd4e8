// Deleting: soft and hard, every expectation, positions, errors.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { collect, kind, numbers, serve, unused } from "./support.js";

const server = await serve();

const { StreamDeletedError, StreamNotFoundError, WrongExpectedVersionError, BACKWARDS, END } = kind.library;
const client = kind.connect(server);

for (const verb of ["deleteStream", "tombstoneStream"]) {
    describe(`${kind.name}, ${verb}`, () => {
        const remove = (stream, expectedRevision) => client[verb](stream, expectedRevision === undefined ? {} : { expectedRevision });

        test("takes any revision, or the right one, and says where it was written", async () => {
            for (const expected of [undefined, 2n]) {
                const stream = unused();
                const written = await kind.append(client, stream, kind.events(3));
                const { position } = await remove(stream, expected);
                assert.ok(position.commit > written.position.commit);
                await assert.rejects(collect(client.readStream(stream)), verb === "deleteStream" ? StreamNotFoundError : StreamDeletedError);
            }
        });
        test("refuses a wrong revision, and says which is right", async () => {
            const stream = unused();
            await kind.append(client, stream, kind.events(3));
            for (const wrong of [0n, 7n]) {
                await assert.rejects(remove(stream, wrong), (error) => {
                    assert.ok(error instanceof WrongExpectedVersionError, `${error}`);
                    assert.equal(error.streamName, stream);
                    assert.deepEqual(kind.expectedOf(error), { expected: wrong, actual: 2n });
                    assert.match(error.message, /WrongExpectedVersion/);
                    return true;
                });
            }
            await assert.rejects(remove(stream, "no_stream"), WrongExpectedVersionError);
            assert.equal((await collect(client.readStream(stream))).length, 3);
        });
        test("refuses what has a tombstone", async () => {
            const stream = unused();
            await kind.append(client, stream, kind.events(3));
            await client.tombstoneStream(stream);
            await assert.rejects(remove(stream), (error) => {
                assert.ok(error instanceof StreamDeletedError, `${error}`);
                assert.equal(error.streamName, stream);
                assert.match(error.message, /is deleted/);
                return true;
            });
        });
        test("takes what is deleted already", async () => {
            const stream = unused();
            await kind.append(client, stream, kind.events(3));
            await client.deleteStream(stream);
            await remove(stream);
        });
    });
}

describe(`${kind.name}, after a deletion`, () => {
    test("a stream that never was cannot be deleted", async () => {
        await assert.rejects(client.deleteStream(unused()), (error) => {
            assert.ok(error instanceof WrongExpectedVersionError, `${error}`);
            assert.match(error.message, /Actual version: -1/);
            return true;
        });
    });
    test("a stream that never was can be given a tombstone", async () => {
        for (const expected of ["any", "no_stream"]) {
            const stream = unused();
            await client.tombstoneStream(stream, { expectedRevision: expected });
            await assert.rejects(kind.append(client, stream, kind.event()), StreamDeletedError);
        }
    });
    test("deletion is metadata, which can be taken back", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(3));
        await client.deleteStream(stream);
        assert.equal((await client.getStreamMetadata(stream)).metadata.truncateBefore, 3);
        await client.setStreamMetadata(stream, {});
        await collect(client.readStream(stream)); // It is there again.
        await assert.rejects(kind.append(client, stream, kind.event(), "no_stream"), WrongExpectedVersionError);
    });
    test("a stream that is written again goes on counting, and keeps its metadata", async () => {
        const stream = unused();
        await client.setStreamMetadata(stream, { maxCount: 100, mine: true });
        await kind.append(client, stream, kind.events(3));
        await client.deleteStream(stream);
        assert.equal((await kind.append(client, stream, kind.event({ n: 3 }), "no_stream")).nextExpectedRevision, 3n);
        assert.deepEqual(numbers(await collect(client.readStream(stream, { direction: BACKWARDS, fromRevision: END }))), [3]);
        const { metadata } = await client.getStreamMetadata(stream);
        assert.equal(metadata.mine, true);
        assert.equal(metadata.truncateBefore, 3);
        await client.setStreamMetadata(stream, { ...metadata, mine: false }); // does not delete it again
        assert.deepEqual(numbers(await collect(client.readStream(stream))), [3]);
    });
    test("metadata of a stream with a tombstone is refused", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.event());
        await client.tombstoneStream(stream);
        await assert.rejects(client.setStreamMetadata(stream, { maxCount: 1 }), StreamDeletedError);
    });
});
