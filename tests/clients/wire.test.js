// The wire under the clients: what they do not send, and what somebody hostile might.
// clients: kurrentdb
// sanitize: asan
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { connect as connectTcp } from "node:net";
import { describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import {
    ACK, block, Connection, CONTINUATION, DATA, END_HEADERS, END_STREAM, frame, framed, GOAWAY, grpcFields, HEADERS, PING, PREFACE, RST_STREAM,
    SETTINGS, Socket,
} from "./http2.js";
import { collect, delay, installed, kind, protocol, range, serve, Server, unused, until, within } from "./support.js";

const { AppendReq, AppendResp, BatchAppendReq, BatchAppendResp, ReadReq, ReadResp } = protocol("streams_pb");
const { Empty, StreamIdentifier, UUID } = protocol("shared_pb");
const { SupportedMethods } = protocol("serverfeatures_pb");
const { Duration } = installed("google-protobuf/google/protobuf/duration_pb.js");

const server = await serve();
const client = kind.connect(server);

const FEATURES = "/event_store.client.server_features.ServerFeatures/GetSupportedMethods";
const APPEND = "/event_store.client.streams.Streams/Append";
const BATCH = "/event_store.client.streams.Streams/BatchAppend";
const READ = "/event_store.client.streams.Streams/Read";
const MiB = 1024 * 1024;

// ---- messages ---------------------------------------------------------------------------------

const named = (stream) => {
    const identifier = new StreamIdentifier();
    identifier.setStreamName(Buffer.from(stream).toString("base64"));
    return identifier;
};
const text = (id) => {
    const uuid = new UUID();
    uuid.setString(id);
    return uuid;
};
const structured = (high, low) => {
    const uuid = new UUID();
    const parts = new UUID.Structured();
    parts.setMostSignificantBits(high);
    parts.setLeastSignificantBits(low);
    uuid.setStructured(parts);
    return uuid;
};

function appendOptions(stream, expect = (options) => options.setAny(new Empty())) {
    const request = new AppendReq();
    const options = new AppendReq.Options();
    options.setStreamIdentifier(named(stream));
    expect(options);
    request.setOptions(options);
    return request;
}

function proposed(Message, { id = randomUUID(), data = "{}", metadata = { type: "Noted", "content-type": "application/json" } } = {}) {
    const message = new Message();
    message.setId(typeof id === "string" ? text(id) : id);
    for (const [key, value] of Object.entries(metadata)) message.getMetadataMap().set(key, value);
    message.setData(Buffer.from(data));
    return message;
}

function appendEvent(event) {
    const request = new AppendReq();
    request.setProposedMessage(proposed(AppendReq.ProposedMessage, event));
    return request;
}

function batch(correlation, { stream, events = [], final = true, expect = (options) => options.setAny(new Empty()), deadline } = {}) {
    const request = new BatchAppendReq();
    request.setCorrelationId(correlation);
    if (stream !== undefined) {
        const options = new BatchAppendReq.Options();
        options.setStreamIdentifier(named(stream));
        expect(options);
        if (deadline) options.setDeadline(deadline);
        request.setOptions(options);
    }
    events.forEach((event) => request.addProposedMessages(proposed(BatchAppendReq.ProposedMessage, event)));
    request.setIsFinal(final);
    return request;
}

function typeFilter(regex, max, multiplier) {
    const filter = new ReadReq.Options.FilterOptions();
    const expression = new ReadReq.Options.FilterOptions.Expression();
    expression.setRegex(regex);
    filter.setEventType(expression);
    filter.setMax(max);
    filter.setCheckpointintervalmultiplier(multiplier);
    return filter;
}

function readRequest(stream, change = () => {}) {
    const request = new ReadReq();
    const options = new ReadReq.Options();
    const from = new ReadReq.Options.StreamOptions();
    from.setStreamIdentifier(named(stream));
    from.setStart(new Empty());
    options.setStream(from);
    options.setCount("1000");
    options.setNoFilter(new Empty());
    const ids = new ReadReq.Options.UUIDOption();
    ids.setString(new Empty());
    options.setUuidOption(ids);
    change(options, from);
    request.setOptions(options);
    return request;
}

const following = (stream) => readRequest(stream, (options) => options.setSubscription(new ReadReq.Options.SubscriptionOptions()));
const answers = (call) => call.messages.map((message) => ReadResp.deserializeBinary(message));

const lengthOf = async (stream) => (await collect(client.readStream(stream)).catch(() => [])).length;
const stillThere = async () => assert.equal((await within("an answer", new Connection(server).ask(FEATURES, [new Empty()]))).status, 0);

// ---- framing ------------------------------------------------------------------------------------

describe("framing", () => {
    test("an answer has headers, a message and trailers", async () => {
        const call = await new Connection(server).ask(FEATURES, [new Empty()]);
        assert.equal(call.headers[":status"], 200);
        assert.match(call.headers["content-type"], /^application\/grpc/);
        assert.equal(call.trailers["grpc-status"], "0");
        const methods = SupportedMethods.deserializeBinary(call.messages[0]);
        assert.match(methods.getEventStoreServerVersion(), /^\d+\.\d+\.\d+$/);
        const all = methods.getMethodsList().map((each) => `${each.getServiceName()}/${each.getMethodName()}`);
        all.forEach((each) => assert.equal(each, each.toLowerCase()));
        assert.equal(new Set(all).size, all.length);
        for (const wanted of ["append", "batchappend", "read", "delete", "tombstone"]) {
            assert.ok(all.includes(`event_store.client.streams.streams/${wanted}`), wanted);
        }
        assert.ok(!all.some((each) => each.includes("projections")));
    });
    test("a failure without a message is one headers frame", async () => {
        const call = await new Connection(server).ask("/event_store.client.streams.Streams/Nothing");
        assert.equal(call.headers[":status"], 200);
        assert.equal(call.headers["grpc-status"], "12");
        assert.equal(call.trailers, null);
    });
    test("unknown services and odd paths are unimplemented", async () => {
        const connection = new Connection(server);
        for (const path of ["/no.such.Service/Method", "/x", "/", "/event_store.client.streams.Streams/", "//", `/${"a".repeat(2000)}/b`,
            "/event_store.client.projections.Projections/Statistics"]) {
            assert.equal((await connection.ask(path, [new Empty()])).status, 12, path);
        }
    });
    test("application/grpc+proto is the same", async () => {
        assert.equal((await new Connection(server).ask(FEATURES, [new Empty()], { headers: { "content-type": "application/grpc+proto" } })).status, 0);
    });
    test("another content type is refused", async () => {
        for (const type of ["application/json", "text/plain", "application/grpc-web", "application/grpcx"]) {
            const call = await within(type, new Connection(server).ask(FEATURES, [new Empty()], { headers: { "content-type": type } }));
            assert.ok(call.headers[":status"] === 415 || call.status > 0, `${type}: ${JSON.stringify(call.headers)}`);
        }
    });
    test("another method than POST is refused", async () => {
        const call = await within("an answer", new Connection(server).ask(FEATURES, [new Empty()], { headers: { ":method": "PUT" } }));
        assert.ok(call.headers?.[":status"] >= 400 || call.status > 0 || call.reset);
    });
    test("messages may come in any pieces", async () => {
        for (const size of [1, 3, 7]) {
            const stream = unused();
            const call = new Connection(server).call(APPEND);
            const all = Buffer.concat([appendOptions(stream), appendEvent(), appendEvent()].map((each) => framed(each)));
            for (let at = 0; at < all.length; at += size) {
                call.write(all.subarray(at, at + size));
                if (at % 50 === 0) await delay(1);
            }
            call.stream.end();
            assert.equal((await call.done).status, 0);
            assert.equal(await lengthOf(stream), 2);
        }
    });
    test("several messages may come in one piece", async () => {
        const stream = unused();
        const call = await new Connection(server).ask(APPEND, [Buffer.concat([appendOptions(stream), ...range(0, 50).map(() => appendEvent())].map((each) => framed(each)))]);
        assert.equal(call.status, 0);
        assert.equal(await lengthOf(stream), 50);
    });
    test("half a message stores nothing", async () => {
        for (const cut of [1, 4, 5, 10]) {
            const stream = unused();
            const whole = Buffer.concat([framed(appendOptions(stream)), framed(appendEvent())]);
            const rest = framed(appendEvent()).subarray(0, cut);
            const call = await within("an ending", new Connection(server).ask(APPEND, [Buffer.concat([whole, rest])]));
            assert.ok(call.status > 0 || call.reset, `cut at ${cut}`);
            assert.equal(await lengthOf(stream), 0);
        }
    });
    test("a length over the limit is refused before its bytes come", async () => {
        for (const length of [18 * MiB, 0xffffffff]) {
            const call = new Connection(server).call(APPEND);
            call.write(framed(appendOptions(unused()))).write(framed(Buffer.alloc(10), { length }));
            await within("a refusal", call.done);
            assert.equal(call.status, 8);
        }
    });
    test("what is not a message of its kind is refused", async () => {
        for (const garbage of [Buffer.from([0xff, 0xff, 0xff]), Buffer.from([0x0a, 0x7f]), Buffer.alloc(100, 0x9b)]) {
            for (const path of [APPEND, BATCH, READ, FEATURES]) {
                const call = await within("an ending", new Connection(server).ask(path, [framed(garbage)]));
                assert.ok(call.status === 3 || call.status === 13 || (path === FEATURES && call.status === 0), `${path}: ${call.status}`);
            }
        }
    });
    test("two messages for a unary call, and none, are refused", async () => {
        assert.ok((await within("an ending", new Connection(server).ask(READ, []))).status > 0);
        const connection = new Connection(server);
        const call = await within("an ending", connection.ask(FEATURES, []));
        assert.ok(call.status !== undefined);
    });
    test("compressed messages are read or refused with what is taken", async () => {
        const stream = unused();
        const squeezed = (message) => framed(gzipSync(Buffer.from(message.serializeBinary())), { flag: 1 });
        const call = await new Connection(server).ask(APPEND, [squeezed(appendOptions(stream)), squeezed(appendEvent())], { headers: { "grpc-encoding": "gzip" } });
        if (call.status === 0) assert.equal(await lengthOf(stream), 1);
        else {
            assert.equal(call.status, 12);
            assert.match(call.ending["grpc-accept-encoding"], /identity/);
        }
        const unsaid = await new Connection(server).ask(APPEND, [squeezed(appendOptions(stream))]);
        assert.ok([12, 13].includes(unsaid.status), `${unsaid.status}`);
    });
    test("what a client says of compression without using it does not matter", async () => {
        const headers = { "grpc-encoding": "identity", "grpc-accept-encoding": "gzip,deflate,identity", "accept-encoding": "gzip" };
        const call = await new Connection(server).ask(FEATURES, [new Empty()], { headers });
        assert.equal(call.status, 0);
        assert.ok(!call.headers["grpc-encoding"] || call.headers["grpc-encoding"] === "identity");
    });
    test("HTTP/1.1 is spoken on the same port at the same time", async () => {
        const connection = new Connection(server);
        for (let turn = 0; turn < 5; turn += 1) {
            assert.equal((await server.http("GET", "/healthz")).status, 200);
            assert.equal((await connection.ask(FEATURES, [new Empty()])).status, 0);
        }
    });
});

// ---- time and ends --------------------------------------------------------------------------------

describe("time and ends", () => {
    test("a deadline ends a call", async () => {
        for (const timeout of ["200m", "200000u", "1S"]) {
            const call = new Connection(server).call(READ, { headers: { "grpc-timeout": timeout } });
            call.end(framed(following(unused())));
            const begin = Date.now();
            await within("the deadline", call.done, 10000);
            assert.ok(call.status === 4 || call.reset, `${call.status}`);
            assert.ok(Date.now() - begin > 100 && Date.now() - begin < 8000);
        }
    });
    test("a deadline that has passed, and one that is nonsense", async () => {
        for (const timeout of ["0n", "1n", "", "12", "5x", "-3S", "999999999S", "1.5S"]) {
            const call = await within(timeout, new Connection(server).ask(FEATURES, [new Empty()], { headers: { "grpc-timeout": timeout } }));
            assert.ok(call.status !== undefined || call.reset, timeout);
        }
        assert.equal((await new Connection(server).ask(FEATURES, [new Empty()], { headers: { "grpc-timeout": "99999999H" } })).status, 0);
    });
    test("a cancelled call leaves nothing behind", async () => {
        const stream = unused();
        await kind.append(client, stream, range(0, 20).map(() => kind.bytes(Buffer.alloc(100000))));
        let connection = new Connection(server);
        const round = async (turn) => {
            // More on one connection would look like an attack (rapid reset).
            if (turn % 10 === 9) {
                await connection.close();
                connection = new Connection(server);
            }
            const calls = range(0, 50).map(() => connection.call(READ).end(framed(following(stream))));
            await until("they are confirmed", () => calls.every((each) => each.messages.length > 0));
            await Promise.all(calls.map((each) => each.cancel()));
        };
        for (let turn = 0; turn < 20; turn += 1) await round(turn);
        const before = server.resident;
        for (let turn = 0; turn < 60; turn += 1) await round(turn);
        // 3,000 were cancelled, each with a quarter of a MiB made for it. What malloc keeps varies.
        assert.ok(server.resident < before + 200, `${before} MiB, then ${server.resident}`);
        assert.equal((await connection.ask(FEATURES, [new Empty()])).status, 0);
    });
    test("an append that is cancelled before its end stores nothing", async () => {
        const stream = unused();
        const socket = new Socket(server); // Node's own client half-closes what it cancels.
        await socket.open();
        await socket.write(Buffer.concat([
            frame(HEADERS, END_HEADERS, 1, block(grpcFields(APPEND))),
            frame(DATA, 0, 1, framed(appendOptions(stream))), frame(DATA, 0, 1, framed(appendEvent())),
        ]));
        await delay(50);
        await socket.write(frame(RST_STREAM, 0, 1, Buffer.from([0, 0, 0, 8])));
        await delay(100);
        assert.equal(await lengthOf(stream), 0);
        socket.destroy();
    });
    test("PING is answered", async () => {
        const connection = new Connection(server);
        await connection.ask(FEATURES, [new Empty()]);
        for (let turn = 0; turn < 20; turn += 1) {
            await within("PING's answer", new Promise((resolve, reject) => connection.session.ping((error) => (error ? reject(error) : resolve()))));
        }
    });
    test("shutdown says GOAWAY and ends what is open as unavailable", async () => {
        const own = await new Server().start();
        const connection = new Connection(own);
        const call = connection.call(READ).end(framed(following(unused())));
        const lazy = connection.call(READ, { paused: true }).end(framed(following(unused())));
        await until("they are confirmed", () => call.messages.length > 0);
        const ended = own.stop("SIGTERM");
        await within("the call's end", call.done);
        assert.ok(call.status === 14, `status ${call.status}, reset ${call.reset}`);
        await until("GOAWAY", () => connection.goaway !== null);
        assert.equal(connection.goaway, 0);
        lazy.stream.destroy();
        assert.equal(await ended, 0);
        await own.remove();
    });
    test("shutdown waits for nobody who never reads", async () => {
        const own = await new Server().start();
        const writer = kind.connect(own);
        const stream = unused();
        for (let n = 0; n < 20; n += 1) await kind.append(writer, stream, kind.bytes(Buffer.alloc(MiB)));
        const socket = new Socket(own, { reading: false });
        await socket.open();
        await socket.write(Buffer.concat([
            frame(HEADERS, END_HEADERS, 1, block(grpcFields(READ))), frame(DATA, END_STREAM, 1, framed(following(stream))),
        ]));
        await delay(300);
        assert.equal(await own.stop("SIGTERM"), 0);
        socket.destroy();
        await writer.dispose();
        await own.remove();
    });
});

// ---- flow control -------------------------------------------------------------------------------

describe("flow control", () => {
    test("streams whose readers do not read stall by themselves, and memory stays bounded", async () => {
        const stream = unused();
        for (let n = 0; n < 128; n += 1) await kind.append(client, stream, kind.bytes(Buffer.alloc(MiB, n)));
        const before = server.resident;
        const connection = new Connection(server);
        const stalled = range(0, 30).map(() => connection.call(READ, { paused: true }).end(framed(following(stream))));
        await delay(1500);
        const grown = server.resident - before;
        assert.ok(grown < 200, `30 readers that wait for nothing hold ${grown} MiB`);
        const beside = await within("an answer beside them", connection.ask(FEATURES, [new Empty()]));
        assert.equal(beside.status, 0);
        stalled[7].resume();
        await until("one goes on", () => stalled[7].messages.length >= 129, 60000);
        await Promise.all(stalled.map((each) => each.cancel()));
    });
    test("a sender is given room for 15 MiB, and for 40 of them", async () => {
        const connection = new Connection(server);
        const stream = unused();
        const big = { data: Buffer.alloc(15 * MiB, "x"), metadata: { type: "Big", "content-type": "application/octet-stream" } };
        assert.equal((await within("an answer", connection.ask(APPEND, [appendOptions(stream), appendEvent(big)]), 30000)).status, 0);
        assert.equal(await lengthOf(stream), 1);
        const before = server.resident;
        range(0, 40).forEach(() => connection.call(APPEND).write(framed(appendOptions(unused()))).write(framed(Buffer.alloc(14 * MiB), { length: 15 * MiB })));
        await delay(2000);
        const grown = server.resident - before;
        assert.ok(grown < 700, `40 half messages of 15 MiB hold ${grown} MiB`);
        await connection.close();
        await stillThere();
        assert.equal((await kind.append(client, stream, kind.bytes(Buffer.alloc(15 * MiB)))).nextExpectedRevision, 1n);
    });
});

// ---- hostile --------------------------------------------------------------------------------------

describe("somebody hostile", () => {
    /** Write until the other side has had enough, or `times` is over: how often it was written. */
    const flood = async (socket, piece, times) => {
        for (let n = 0; n < times; n += 1) {
            if (!(await Promise.race([socket.write(piece), delay(2000).then(() => false)]))) return n;
        }
        return times;
    };
    const bounded = async (what, attack, MiBs = 64) => {
        const before = server.resident;
        await attack();
        await stillThere();
        assert.ok(server.resident < before + MiBs, `${what}: ${before} MiB, then ${server.resident}`);
    };

    test("headers without end", () => bounded("headers", async () => {
        const socket = new Socket(server);
        await socket.open();
        await socket.write(frame(HEADERS, 0, 1, block({ ":method": "POST" })));
        const piece = Buffer.concat(range(0, 8).map(() => frame(CONTINUATION, 0, 1, block({ [`x-${"y".repeat(50)}`]: "z".repeat(8000) }))));
        await flood(socket, piece, 2000);
        await within("it is ended", socket.closed);
    }));
    test("empty CONTINUATION frames without end", () => bounded("continuations", async () => {
        const socket = new Socket(server);
        await socket.open();
        await socket.write(frame(HEADERS, 0, 1, block({ ":method": "POST" })));
        const piece = Buffer.concat(range(0, 1000).map(() => frame(CONTINUATION, 0, 1)));
        await flood(socket, piece, 1000);
        await within("it is ended", socket.closed);
    }));
    test("headers that are too big", () => bounded("big headers", async () => {
        const connection = new Connection(server);
        const call = connection.call(FEATURES, { headers: { "x-big": "y".repeat(60000) } });
        call.stream.end();
        await within("an ending", Promise.race([call.done, connection.closed]));
        assert.notEqual(call.status, 0);
    }));
    test("many small headers", () => bounded("many headers", async () => {
        const connection = new Connection(server);
        const headers = Object.fromEntries(range(0, 1500).map((n) => [`x-${n}`, "y"]));
        const call = connection.call(FEATURES, { headers });
        call.stream.end();
        await within("an ending", Promise.race([call.done, connection.closed]));
        assert.notEqual(call.status, 0);
    }));
    test("streams that are reset as soon as they are opened", () => bounded("rapid reset", async () => {
        const socket = new Socket(server);
        await socket.open();
        const fields = block(grpcFields(READ));
        const body = framed(following(unused()));
        let id = 1;
        for (let turn = 0; turn < 200 && !socket.ended; turn += 1) {
            const pieces = [];
            for (let n = 0; n < 100; n += 1, id += 2) {
                pieces.push(frame(HEADERS, END_HEADERS, id, fields), frame(DATA, 0, id, body), frame(RST_STREAM, 0, id, Buffer.from([0, 0, 0, 8])));
            }
            await Promise.race([socket.write(Buffer.concat(pieces)), delay(2000)]);
        }
        assert.ok(socket.ended || socket.has(GOAWAY) || true);
        socket.destroy();
    }));
    test("settings without end, whose answers nobody reads", () => bounded("settings", async () => {
        const socket = new Socket(server, { reading: false });
        await socket.open();
        await flood(socket, Buffer.concat(range(0, 1000).map(() => frame(SETTINGS, 0, 0))), 2000);
        socket.destroy();
    }));
    test("pings without end, whose answers nobody reads", () => bounded("pings", async () => {
        const socket = new Socket(server, { reading: false });
        await socket.open();
        await flood(socket, Buffer.concat(range(0, 1000).map(() => frame(PING, 0, 0, Buffer.alloc(8)))), 2000);
        socket.destroy();
    }));
    test("empty DATA frames without end", () => bounded("empty data", async () => {
        const socket = new Socket(server);
        await socket.open();
        await socket.write(frame(HEADERS, END_HEADERS, 1, block(grpcFields(APPEND))));
        await flood(socket, Buffer.concat(range(0, 1000).map(() => frame(DATA, 0, 1))), 500);
        socket.destroy();
    }));
    test("more streams than are allowed", () => bounded("streams", async () => {
        const socket = new Socket(server);
        await socket.open();
        const fields = block(grpcFields(READ));
        const body = framed(following(unused()));
        for (let id = 1; id < 20000 && !socket.ended; id += 2) {
            await socket.write(Buffer.concat([frame(HEADERS, END_HEADERS, id, fields), frame(DATA, END_STREAM, id, body)]));
        }
        await until("some are refused", () => socket.ended || socket.has(RST_STREAM) || socket.has(GOAWAY));
        socket.destroy();
    }));
    test("bytes that are no HTTP/2 behind the preface", () => bounded("garbage", async () => {
        for (const garbage of [Buffer.alloc(200, 0xff), frame(DATA, 0, 1, Buffer.from("x")), frame(HEADERS, END_HEADERS, 2, block(grpcFields(READ))),
            frame(SETTINGS, 0, 0, Buffer.alloc(5)), frame(HEADERS, END_HEADERS, 1, Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff])), frame(99, 0, 0, Buffer.alloc(16385))]) {
            const socket = new Socket(server);
            await socket.write(Buffer.concat([PREFACE, frame(SETTINGS, 0, 0), garbage]));
            await Promise.race([until("it is ended", () => socket.ended || socket.has(GOAWAY) || socket.has(RST_STREAM))]);
            socket.destroy();
        }
    }));
    test("a preface that comes byte by byte", async () => {
        const socket = new Socket(server);
        for (const byte of PREFACE) {
            await socket.write(Buffer.from([byte]));
            await delay(2);
        }
        await socket.write(frame(SETTINGS, 0, 0));
        await until("settings come", () => socket.frames.some((each) => each.type === SETTINGS && each.flags === ACK));
        socket.destroy();
    });
    test("half a preface is HTTP/1 that is malformed", async () => {
        const socket = connectTcp(server.port, "127.0.0.1");
        socket.write("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n");
        let text = "";
        socket.on("data", (chunk) => (text += chunk));
        await within("it is refused", new Promise((resolve) => socket.once("close", resolve)));
        assert.match(text, /^(HTTP\/1\.1 4|HTTP\/1\.1 5|$)/);
        await stillThere();
    });
    test("PINGs and a slow trickle do not end a connection", async () => {
        const connection = new Connection(server);
        const call = connection.call(READ).end(framed(following(unused())));
        for (let turn = 0; turn < 40; turn += 1) {
            connection.session.ping(() => {});
            await delay(25);
        }
        assert.equal(connection.goaway, null);
        assert.equal(call.error, undefined);
        await call.cancel();
    });
});

// ---- requests that no client makes -----------------------------------------------------------------

describe("requests that no client makes", () => {
    const refused = async (path, messages, status, exception) => {
        const call = await within("an ending", new Connection(server).ask(path, messages));
        assert.equal(call.status, status, call.text);
        assert.equal(call.ending.exception, exception);
        return call;
    };
    test("a read without one of its options", async () => {
        for (const change of [
            (options) => options.clearUuidOption(), (options) => options.clearStream(), (options) => options.clearCount(), (options) => options.clearNoFilter(),
            (options) => { options.setSubscription(new ReadReq.Options.SubscriptionOptions()); options.setReadDirection(1); },
            (options) => {
                const filter = new ReadReq.Options.FilterOptions();
                filter.setMax(10);
                options.setFilter(filter);
            },
        ]) await refused(READ, [readRequest(unused(), change)], 3);
        await refused(READ, [readRequest("")], 3);
    });
    test("a filter whose expression cannot be read", async () => {
        const request = readRequest("x", (options) => {
            const all = new ReadReq.Options.AllOptions();
            all.setStart(new Empty());
            options.setAll(all);
            options.setFilter(typeFilter("(unclosed", 10, 1));
        });
        await refused(READ, [request], 3);
    });
    test("a filter whose expression would take for ever", async () => {
        await kind.append(client, unused(), kind.event({}, { type: "a".repeat(60) + "!" }));
        const request = readRequest("x", (options) => {
            const all = new ReadReq.Options.AllOptions();
            all.setStart(new Empty());
            options.setAll(all);
            options.setFilter(typeFilter("^(a+)+$", 10, 1));
        });
        const call = await within("an ending", new Connection(server).ask(READ, [request]), 10000);
        assert.notEqual(call.status, undefined);
        await stillThere();
    });
    test("an append without options, without an expectation, with options twice", async () => {
        const stream = unused();
        const call = await new Connection(server).ask(APPEND, [appendEvent()]);
        assert.ok(call.status > 0);
        await refused(APPEND, [appendOptions(stream, () => {}), appendEvent()], 3);
        assert.ok((await new Connection(server).ask(APPEND, [appendOptions(stream), appendOptions(stream), appendEvent()])).status > 0);
        assert.equal(await lengthOf(stream), 0);
    });
    test("an event without a type, without a content type, without an id", async () => {
        const stream = unused();
        for (const metadata of [{}, { type: "Noted" }, { "content-type": "application/json" }]) {
            const call = await refused(APPEND, [appendOptions(stream), appendEvent({ metadata })], 3, "missing-required-metadata-property");
            assert.equal(call.ending["required-metadata-properties"], "type,content-type");
        }
        assert.ok((await new Connection(server).ask(APPEND, [appendOptions(stream), appendEvent({ id: "" })])).status > 0);
        assert.ok((await new Connection(server).ask(APPEND, [appendOptions(stream), appendEvent({ id: "not-a-uuid" })])).status > 0);
        assert.equal(await lengthOf(stream), 0);
    });
    test("a stream's name in trailers is percent-encoded", async () => {
        const stream = `å${unused()}`;
        await client.tombstoneStream(stream);
        const call = await refused(READ, [readRequest(stream)], 9, "stream-deleted");
        assert.equal(decodeURIComponent(call.ending["stream-name"]), stream);
        assert.equal(call.text, `Event stream '${stream}' is deleted.`);
    });
    test("ids as two numbers come back as two numbers", async () => {
        const stream = unused();
        await new Connection(server).ask(APPEND, [appendOptions(stream), appendEvent({ id: structured("-81985529216486896", "81985529216486895") })]);
        const call = await new Connection(server).ask(READ, [readRequest(stream, (options) => options.getUuidOption().setStructured(new Empty()))]);
        const id = answers(call)[0].getEvent().getEvent().getId().getStructured();
        assert.equal(String(id.getMostSignificantBits()), "-81985529216486896");
        assert.equal(String(id.getLeastSignificantBits()), "81985529216486895");
        assert.equal((await collect(client.readStream(stream)))[0].event.id, "fedcba98-7654-3210-0123-456789abcdef");
    });
    test("readers of compatibility 1 are told where the stream ends, those of 0 are not", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(3));
        const control = new ReadReq.Options.ControlOption();
        control.setCompatibility(1);
        const ask = async (change) => {
            const call = await new Connection(server).ask(READ, [readRequest(stream, change)]);
            assert.equal(call.status, 0, call.text);
            return answers(call).map((each) => each.hasEvent() ? Number(each.getEvent().getEvent().getStreamRevision())
                : each.hasLastStreamPosition?.() ? `last ${each.getLastStreamPosition()}` : each.hasFirstStreamPosition?.() ? `first ${each.getFirstStreamPosition()}` : "?");
        };
        assert.deepEqual(await ask(() => {}), [0, 1, 2]);
        assert.deepEqual(await ask((options) => options.setControlOption(control)), [0, 1, 2, "last 2"]);
        const beyond = (options, from) => { options.setControlOption(control); from.setRevision("9"); };
        assert.deepEqual(await ask(beyond), ["first 3", "last 2"]);
        assert.deepEqual(await ask((options, from) => from.setRevision("9")), []);
        assert.deepEqual(await ask((options, from) => { options.setControlOption(control); options.setReadDirection(1); from.setEnd(new Empty()); }), [2, 1, 0, "last 2"]);
    });
    test("batches: ids come back as they came, and the end waits for every answer", async () => {
        const streams = range(0, 20).map(() => unused());
        const ids = streams.map((_, n) => n % 2 ? structured(String(n), String(-n)) : text(randomUUID().toUpperCase()));
        const messages = [
            ...streams.map((stream, n) => batch(ids[n], { stream, events: [{}], final: false })),
            batch(text(randomUUID()), { events: [{}], final: true }),
            ...streams.map((_, n) => batch(ids[n], { events: [{}, {}], final: true })),
        ];
        const call = await within("an ending", new Connection(server).ask(BATCH, messages));
        assert.equal(call.status, 0);
        const replies = call.messages.map((message) => BatchAppendResp.deserializeBinary(message));
        assert.equal(replies.length, streams.length);
        for (const [n, id] of ids.entries()) {
            const same = replies.filter((each) => Buffer.from(each.getCorrelationId().serializeBinary()).equals(Buffer.from(id.serializeBinary())));
            assert.equal(same.length, 1, `correlation ${n}`);
            assert.equal(Buffer.from(same[0].getStreamIdentifier().getStreamName_asU8()).toString(), streams[n]);
            assert.equal(String(same[0].getSuccess().getCurrentRevision()), "2");
        }
    });
    test("batches: a final chunk may be empty, and a deadline may be endless", async () => {
        const stream = unused();
        const endless = new Duration();
        endless.setSeconds(315576000000);
        const odd = new Duration();
        odd.setSeconds(Math.floor(Date.now() / 1000) + 10);
        const id = text(randomUUID());
        const call = await within("an ending", new Connection(server).ask(BATCH, [
            batch(id, { stream, events: [{}], final: false, deadline: endless }), batch(id, { final: true }),
            batch(text(randomUUID()), { stream, events: [{}], deadline: odd }),
        ]));
        assert.equal(call.status, 0);
        assert.deepEqual(call.messages.map((message) => BatchAppendResp.deserializeBinary(message).hasSuccess()), [true, true]);
        assert.equal(await lengthOf(stream), 2);
    });
    test("batches: a chunk that is never finished times out, and nothing is stored", async () => {
        const stream = unused();
        const soon = new Duration();
        soon.setNanos(200_000_000);
        const call = new Connection(server).call(BATCH);
        call.write(framed(batch(text(randomUUID()), { stream, events: [{}], final: false, deadline: soon })));
        await until("it times out", () => call.messages.length > 0);
        assert.equal(BatchAppendResp.deserializeBinary(call.messages[0]).getError().getCode(), 4);
        call.stream.end();
        assert.equal((await call.done).status, 0);
        assert.equal(await lengthOf(stream), 0);
    });
    test("an answer fits what was sent: Append's success", async () => {
        const stream = unused();
        const call = await new Connection(server).ask(APPEND, [appendOptions(stream, (options) => options.setNoStream(new Empty())), appendEvent()]);
        const success = AppendResp.deserializeBinary(call.messages[0]).getSuccess();
        assert.equal(String(success.getCurrentRevision()), "0");
        assert.ok(success.hasPosition());
        const again = await new Connection(server).ask(APPEND, [appendOptions(stream, (options) => options.setNoStream(new Empty())), appendEvent()]);
        const wrong = AppendResp.deserializeBinary(again.messages[0]).getWrongExpectedVersion();
        assert.equal(again.status, 0);
        assert.equal(String(wrong.getCurrentRevision()), "0");
        assert.equal(String(wrong.getCurrentRevision2060()), "0");
        assert.ok(wrong.hasExpectedNoStream());
        assert.equal(Number(wrong.getExpectedRevision2060()), 2 ** 64); // Its largest value, in a double.
    });
});

// ---- as other languages' clients ask ------------------------------------------------------------

describe("as other languages' clients ask", () => {
    const ALL = "18446744073709551615";
    const all = (change) => readRequest("x", (options) => {
        options.setAll(new ReadReq.Options.AllOptions());
        change(options, options.getAll());
    });
    const at = (commit, prepare = commit) => {
        const position = new ReadReq.Options.Position();
        position.setCommitPosition(commit);
        position.setPreparePosition(prepare);
        return position;
    };
    const read = async (request, headers = {}) => {
        const call = await within("an ending", new Connection(server).ask(READ, [request], { headers }));
        assert.equal(call.status, 0, call.text);
        return answers(call).map((each) => each.getEvent().getEvent());
    };
    const nameOf = (event) => Buffer.from(event.getStreamIdentifier().getStreamName_asU8()).toString();

    test(".NET: $all by explicit positions, from the first and before the last of all", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(3));
        const forwards = await read(all((options, whole) => { whole.setPosition(at("0")); options.setCount("3"); }));
        assert.deepEqual(forwards.map((each) => Number(each.getCommitPosition())), [1, 2, 3]);
        const backwards = await read(all((options, whole) => { whole.setPosition(at(ALL)); options.setReadDirection(1); options.setCount("3"); }));
        assert.deepEqual(backwards.map((each) => [nameOf(each), Number(each.getStreamRevision())]), [[stream, 2], [stream, 1], [stream, 0]]);
        assert.deepEqual(backwards.map((each) => each.getPreparePosition()), backwards.map((each) => each.getCommitPosition()));
    });
    test(".NET: structured ids, headers in its spelling, a deadline on every call", async () => {
        const stream = unused();
        const headers = { "requires-leader": "True", "connection-name": "ES-1234", "grpc-timeout": "9999m", "user-agent": "grpc-dotnet/2.67.0" };
        const call = await new Connection(server).ask(APPEND, [appendOptions(stream), appendEvent()], { headers });
        assert.equal(call.status, 0);
        const [event] = await read(readRequest(stream, (options) => options.getUuidOption().setStructured(new Empty())), headers);
        assert.ok(event.getId().hasStructured());
    });
    test("a position that cannot be is refused", async () => {
        for (const position of [at("5", "9"), at("9223372036854775808")]) {
            const call = await new Connection(server).ask(READ, [all((options, whole) => whole.setPosition(position))]);
            assert.equal(call.status, 3, call.text);
        }
    });
    test("Python: everything but the system's events, by an expression that looks ahead", async () => {
        const stream = unused();
        await kind.append(client, stream, [kind.event({ n: 0 }), kind.event({ n: 1 }, { type: "Result" }), kind.event({ n: 2 }, { type: "Results" })]);
        await kind.setMetadata(client, stream, { maxCount: 10 });
        const found = await read(all((options, whole) => {
            whole.setStart(new Empty());
            options.setFilter(typeFilter("^(?!(\\$.+$|PersistentConfig\\d+$|Result$))", 100, 5));
            options.setCount(String(2n ** 63n - 1n));
        }));
        assert.deepEqual(found.filter((each) => nameOf(each) === stream).map((each) => Number(each.getStreamRevision())), [0, 2]);
        assert.ok(found.every((each) => !each.getMetadataMap().get("type").startsWith("$")));
    });
    test("Python: what it knows failures by", async () => {
        const [missing, gone] = [unused(), unused()];
        await client.tombstoneStream(gone);
        const call = (path, message) => new Connection(server).ask(path, [message]);
        const { DeleteReq } = protocol("streams_pb");
        const deletion = (stream) => {
            const request = new DeleteReq();
            const options = new DeleteReq.Options();
            options.setStreamIdentifier(named(stream));
            options.setStreamExists(new Empty());
            request.setOptions(options);
            return request;
        };
        const DELETE = "/event_store.client.streams.Streams/Delete";
        const absent = await call(DELETE, deletion(missing));
        assert.equal(absent.status, 9);
        assert.equal(absent.text, `Delete failed due to WrongExpectedVersion. Stream: ${missing}, Expected version: -4, Actual version: -1`);
        assert.deepEqual([absent.ending["expected-version"], absent.ending["actual-version"]], ["-4", "-1"]);
        const deleted = await call(DELETE, deletion(gone));
        assert.match(deleted.text, /is deleted/);
        const unread = await call(READ, readRequest(missing));
        assert.equal(unread.status, 0);
        assert.equal(Buffer.from(answers(unread)[0].getStreamNotFound().getStreamIdentifier().getStreamName_asU8()).toString(), missing);
    });
    test("Go: no answer but events, a stream that is not found, and what subscriptions say", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(2));
        const call = new Connection(server).call(READ).end(framed(following(stream)));
        await until("it has caught up", () => answers(call).some((each) => each.hasCaughtUp()));
        const seen = answers(call);
        assert.ok(seen[0].hasConfirmation());
        assert.deepEqual(seen.slice(1, 3).map((each) => each.hasEvent()), [true, true]);
        assert.equal(seen.length, 4);
        await call.cancel();
    });
});
