// One database under both protocols: written over gRPC and read over HTTP, and the other way round.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, test } from "node:test";
import { collect, Following, kind, numbers, range, serve, unused } from "./support.js";

const server = await serve();

const { START, NO_STREAM, StreamNotFoundError, StreamDeletedError, WrongExpectedVersionError } = kind.library;
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
    test("no log grows because somebody reads", async () => {
        const before = (await server.http("GET", "/events?limit=1")).headers.get("deedbook-position");
        const streams = await collect(client.readStream("$streams"));
        assert.ok(streams.length > 0);
        const after = (await server.http("GET", "/events?limit=1")).headers.get("deedbook-position");
        assert.equal(after, before);
    });
});
