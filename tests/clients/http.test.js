// One database under both protocols: written over gRPC and read over HTTP, and the other way round.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, test } from "node:test";
import { collect, Following, kind, numbers, range, serve, unused, until } from "./support.js";

const server = await serve();

const {
    START, NO_STREAM, StreamNotFoundError, StreamDeletedError, WrongExpectedVersionError, PersistentSubscriptionDoesNotExistError,
    persistentSubscriptionToStreamSettingsFromDefaults,
} = kind.library;
const client = kind.connect(server);

describe(kind.name, () => {
    test("written over gRPC, read over HTTP", async () => {
        const stream = unused();
        const correlation = randomUUID();
        const event = kind.event({ text: "å", n: 1 }, { id: randomUUID(), metadata: { who: "anna", $correlationId: correlation, $causationId: "c" } });
        const bytes = kind.bytes(Buffer.from([0, 1, 255]), { metadata: Buffer.from([9, 254]) });
        const written = await kind.append(client, stream, [event, bytes]);
        const { status, headers, body } = await server.http("GET", `/streams/${stream}`);
        assert.equal(status, 200);
        assert.equal(headers.get("etag"), '"1"');
        const [first, second] = body;
        assert.equal(first.id, event.id);
        assert.equal(first.type, "Noted");
        assert.equal(first.subject, stream);
        assert.equal(first.revision, "0");
        assert.deepEqual(first.data, { text: "å", n: 1 });
        assert.deepEqual(JSON.parse(first.metadata), { who: "anna", $correlationId: correlation, $causationId: "c" });
        assert.equal(first.correlationid, correlation);
        assert.equal(first.causationid, "c");
        assert.equal(second.data_base64, Buffer.from([0, 1, 255]).toString("base64"));
        assert.equal(second.datacontenttype, "application/octet-stream");
        assert.equal(BigInt(second.position), written.position.commit);
    });
    test("written over HTTP, read over gRPC", async () => {
        const stream = unused();
        const id = randomUUID();
        const { status, body } = await server.http("POST", `/streams/${stream}?expected=none`, [
            { id, type: "Noted", data: { n: 0 }, metadata: { who: "bo" }, tags: ["colour:red"], correlation_id: "c-9", actor: "bo" },
            { type: "Raw", data_base64: "AAH/", datacontenttype: "application/octet-stream" },
            { type: "Text", data: "plain", datacontenttype: "text/plain" },
        ]);
        assert.equal(status, 200, JSON.stringify(body));
        const [first, second, third] = (await collect(client.readStream(stream))).map((each) => each.event);
        assert.equal(first.id, id);
        assert.deepEqual(first.data, { n: 0 });
        assert.equal(first.metadata.who, "bo");
        assert.equal(second.isJson, false);
        assert.deepEqual([...second.data], [0, 1, 255]);
        assert.equal(third.isJson, false);
        assert.equal(Buffer.from(third.data).toString(), "plain");
        assert.equal(third.position.commit, BigInt(body.position));
    });
    test("revisions guard against writers on the other side", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(2), NO_STREAM);
        assert.equal((await server.http("POST", `/streams/${stream}?expected=0`, { type: "Noted", data: {} })).status, 409);
        assert.equal((await server.http("POST", `/streams/${stream}?expected=1`, { type: "Noted", data: {} })).status, 200);
        await assert.rejects(kind.append(client, stream, kind.event(), 1n), WrongExpectedVersionError);
        await kind.append(client, stream, kind.event(), 2n);
    });
    test("a subscription sees what comes over HTTP", async () => {
        const stream = unused();
        const following = new Following(client.subscribeToStream(stream, { fromRevision: START }));
        await following.confirmed;
        for (const n of range(0, 5)) await server.http("POST", `/streams/${stream}`, { type: "Noted", data: { n } });
        assert.deepEqual(numbers(await following.receives(5)), range(0, 5));
        await following.stop();
    });
    test("a follower over HTTP sees what comes over gRPC", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(1));
        const reply = await fetch(`http://${server.address}/streams/${stream}?follow=true&limit=4`, { headers: { accept: "application/x-ndjson" } });
        const text = reply.text();
        for (const n of range(1, 4)) await kind.append(client, stream, kind.event({ n }));
        assert.deepEqual((await text).trim().split("\n").map((line) => JSON.parse(line).data.n), range(0, 4));
    });
    test("a deletion on one side is one on the other", async () => {
        const [soft, hard, other] = [unused(), unused(), unused()];
        for (const stream of [soft, hard, other]) await kind.append(client, stream, kind.events(2));
        await client.deleteStream(soft);
        await client.tombstoneStream(hard);
        assert.equal((await server.http("GET", `/streams/${soft}`)).status, 404);
        assert.equal((await server.http("GET", `/streams/${hard}`)).status, 410);
        assert.equal((await server.http("DELETE", `/streams/${other}`)).status, 200);
        await assert.rejects(collect(client.readStream(other)), StreamNotFoundError);
        const removed = await server.http("DELETE", `/streams/${other}?tombstone=true`);
        assert.equal(removed.status, 200, JSON.stringify(removed.body));
        await assert.rejects(collect(client.readStream(other)), StreamDeletedError);
    });
    test("virtual streams are there on both sides", async () => {
        const category = unused("both").split("-")[0];
        await kind.append(client, `${category}-1`, kind.event({ n: 0 }));
        await server.http("POST", `/streams/${category}-2`, { type: "Noted", data: { n: 1 } });
        assert.deepEqual(numbers(await collect(client.readStream(`$ce-${category}`, { resolveLinkTos: true }))), [0, 1]);
        const { status, body } = await server.http("GET", `/streams/${encodeURIComponent(`$ce-${category}`)}`);
        assert.equal(status, 200, JSON.stringify(body));
        assert.equal(body.length, 2);
    });
    test("a group has consumers on both sides", async () => {
        const stream = unused();
        const group = `/subscriptions/${stream}/both`;
        await client.createPersistentSubscriptionToStream(stream, "both", persistentSubscriptionToStreamSettingsFromDefaults({ startFrom: START }));
        const known = await server.http("GET", group);
        assert.equal(known.status, 200);
        await kind.append(client, stream, kind.events(10));
        const taken = (await server.http("POST", `${group}/take?consumer=here&limit=4&timeout=10s`)).body;
        assert.deepEqual(taken.map((each) => each.event.data.n), [0, 1, 2, 3]);
        const consumer = new Following(client.subscribeToPersistentSubscriptionToStream(stream, "both"), (event, subscription) => subscription.ack(event));
        await consumer.receives(6);
        assert.deepEqual(numbers(consumer.events), range(4, 10));
        const ids = taken.map((each) => each.id);
        assert.deepEqual((await server.http("POST", `${group}/ack?consumer=here`, { ids: ids.slice(0, 3) })).body, { count: 3 });
        assert.deepEqual((await server.http("POST", `${group}/nack?consumer=here`, { ids: ids.slice(3), action: "park", reason: "later" })).body, { count: 1 });
        await until("it is parked", async () => (await client.getPersistentSubscriptionToStreamInfo(stream, "both")).stats.parkedMessageCount === 1n);
        await client.replayParkedMessagesToStream(stream, "both");
        await consumer.receives(7);
        assert.deepEqual(numbers(consumer.events.slice(6)), [3]);
        await consumer.stop();
        assert.equal((await server.http("DELETE", group)).status, 200);
        await assert.rejects(client.getPersistentSubscriptionToStreamInfo(stream, "both"), PersistentSubscriptionDoesNotExistError);
    });
    test("a group that is made over HTTP is one over gRPC", async () => {
        const stream = unused();
        assert.equal((await server.http("PUT", `/subscriptions/${stream}/made`, { strategy: "Pinned", retry_count_max: 3 })).status, 201);
        const info = await client.getPersistentSubscriptionToStreamInfo(stream, "made");
        assert.equal(info.settings.consumerStrategyName, "Pinned");
        assert.equal(info.settings.maxRetryCount, 3);
        const consumer = new Following(client.subscribeToPersistentSubscriptionToStream(stream, "made"), (event, subscription) => subscription.ack(event));
        await consumer.confirmed;
        await server.http("POST", `/streams/${stream}`, range(0, 3).map((n) => ({ type: "Noted", data: { n } })));
        await consumer.receives(3);
        assert.deepEqual(numbers(consumer.events), [0, 1, 2]);
        await consumer.stop();
    });
    test("what was erased over HTTP is gone over gRPC", async () => {
        const [stream, links] = [unused(), unused("links")];
        await kind.append(client, stream, kind.events(2));
        await kind.append(client, links, kind.bytes(Buffer.from(`0@${stream}`), { type: "$>" }));
        assert.equal((await server.http("POST", `/streams/${stream}/erase`)).status, 202);
        await until("it is erased", async () => (await server.http("GET", "/compact")).body.state === "done");
        await assert.rejects(collect(client.readStream(stream)), StreamNotFoundError);
        assert.ok((await collect(client.readAll())).every((each) => each.event.streamId !== stream));
        const [link] = await collect(client.readStream(links, { resolveLinkTos: true }));
        assert.equal(link.event, undefined);
        assert.equal(link.link.streamId, links);
    });
    test("no log grows because somebody reads", async () => {
        const before = (await server.http("GET", "/events?limit=1")).headers.get("deedbook-position");
        const streams = await collect(client.readStream("$streams"));
        assert.ok(streams.length > 0);
        const after = (await server.http("GET", "/events?limit=1")).headers.get("deedbook-position");
        assert.equal(after, before);
    });
});
