// Persistent subscriptions: the four strategies, acknowledging, retrying, parking, replaying, info.
// sanitize: tsan
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, test } from "node:test";
import { delay, Following, kind, numbers, range, serve, unused, until } from "./support.js";

const server = await serve();

const {
    START, END, PARK, RETRY, SKIP, DISPATCH_TO_SINGLE, ROUND_ROBIN, PINNED, PINNED_BY_CORRELATION = "PinnedByCorrelation",
    PersistentSubscriptionDoesNotExistError, PersistentSubscriptionExistsError, PersistentSubscriptionFailedError,
    PersistentSubscriptionDroppedError, PersistentSubscriptionMaximumSubscribersReachedError,
    persistentSubscriptionToStreamSettingsFromDefaults, persistentSubscriptionToAllSettingsFromDefaults, streamNameFilter, eventTypeFilter,
} = kind.library;
const client = kind.connect(server);

const settingsOf = (changes) => persistentSubscriptionToStreamSettingsFromDefaults({ startFrom: START, ...changes });
const create = (stream, group, changes) => client.createPersistentSubscriptionToStream(stream, group, settingsOf(changes));

/** Join a group; `handle` is called for each event, and acknowledges it unless given. */
const join = (stream, group, handle = (event, subscription) => subscription.ack(event), options = {}) =>
    new Following(client.subscribeToPersistentSubscriptionToStream(stream, group, options), handle);
const ignore = () => {};

describe(`${kind.name}, groups`, () => {
    test("what is acknowledged comes once, what is new comes too", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(25));
        await create(stream, "g");
        const consumer = join(stream, "g");
        await consumer.confirmed;
        assert.equal(consumer.subscription.id, `${stream}::g`);
        await consumer.receives(25);
        await kind.append(client, stream, range(25, 30).map((n) => kind.event({ n })));
        await consumer.receives(30);
        await delay(200);
        assert.deepEqual(numbers(consumer.events), range(0, 30));
        consumer.events.forEach((each) => assert.equal(each.retryCount, 0));
        await consumer.stop();
    });
    const starts = { "the start": [START, 0], "a revision, which is included": [4n, 4], "the end": [END, 10] };
    for (const [name, [startFrom, first]] of Object.entries(starts)) {
        test(`begins at ${name}`, async () => {
            const stream = unused();
            await kind.append(client, stream, kind.events(10));
            await create(stream, "g", { startFrom });
            const consumer = join(stream, "g");
            await consumer.confirmed;
            await kind.append(client, stream, kind.event({ n: 10 }));
            await consumer.receives(11 - first);
            assert.deepEqual(numbers(consumer.events), range(first, 11));
            await consumer.stop();
        });
    }
    test("never sends more than the buffer without an answer", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(50));
        await create(stream, "g");
        const consumer = join(stream, "g", ignore, { bufferSize: 7 });
        await consumer.receives(7);
        await delay(300);
        assert.equal(consumer.events.length, 7);
        await consumer.subscription.ack(...consumer.events.slice(0, 3));
        await consumer.receives(10);
        await delay(300);
        assert.deepEqual(numbers(consumer.events), range(0, 10));
        await consumer.stop();
    });
    test("1,000 events are all handled, by several consumers", async () => {
        const stream = unused();
        await create(stream, "g");
        const seen = [];
        const consumers = range(0, 4).map(() => join(stream, "g", (event, subscription) => {
            seen.push(event.event.data.n);
            return subscription.ack(event);
        }, { bufferSize: 20 }));
        await Promise.all(consumers.map((each) => each.confirmed));
        for (const part of range(0, 10)) await kind.append(client, stream, range(part * 100, part * 100 + 100).map((n) => kind.event({ n })));
        await until("all are handled", () => seen.length >= 1000);
        assert.deepEqual(seen.sort((a, b) => a - b), range(0, 1000));
        await Promise.all(consumers.map((each) => each.stop()));
    });
});

describe(`${kind.name}, answers`, () => {
    test("retry brings it again, counted, and then parks it", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(1));
        await create(stream, "g", { maxRetryCount: 3 });
        const consumer = join(stream, "g", (event, subscription) => subscription.nack(RETRY, "again", event));
        await consumer.receives(4);
        await delay(500);
        assert.deepEqual(consumer.events.map((each) => each.retryCount), [0, 1, 2, 3]);
        await until("it is parked", async () => (await client.getPersistentSubscriptionToStreamInfo(stream, "g")).stats.parkedMessageCount === 1n);
        await consumer.stop();
    });
    test("skip drops it", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(3));
        await create(stream, "g");
        const consumer = join(stream, "g", (event, subscription) =>
            event.event.data.n === 1 ? subscription.nack(SKIP, "not this", event) : subscription.ack(event));
        await consumer.receives(3);
        await delay(300);
        assert.equal(consumer.events.length, 3);
        assert.equal((await client.getPersistentSubscriptionToStreamInfo(stream, "g")).stats.parkedMessageCount, 0n);
        await consumer.stop();
    });
    test("parked events are replayed when asked for", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(5));
        await create(stream, "g");
        let parking = true;
        const consumer = join(stream, "g", (event, subscription) =>
            parking && event.event.data.n % 2 ? subscription.nack(PARK, "later", event) : subscription.ack(event));
        await consumer.receives(5);
        await until("two are parked", async () => (await client.getPersistentSubscriptionToStreamInfo(stream, "g")).stats.parkedMessageCount === 2n);
        parking = false;
        await client.replayParkedMessagesToStream(stream, "g");
        await consumer.receives(7);
        assert.deepEqual(numbers(consumer.events.slice(5)), [1, 3]);
        await until("nothing is parked", async () => (await client.getPersistentSubscriptionToStreamInfo(stream, "g")).stats.parkedMessageCount === 0n);
        await consumer.stop();
    });
    test("some of the parked events are replayed", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(4));
        await create(stream, "g");
        let parking = true;
        const consumer = join(stream, "g", (event, subscription) => parking ? subscription.nack(PARK, "later", event) : subscription.ack(event));
        await until("four are parked", async () => (await client.getPersistentSubscriptionToStreamInfo(stream, "g")).stats.parkedMessageCount === 4n);
        parking = false;
        await client.replayParkedMessagesToStream(stream, "g", { stopAt: 2 });
        await consumer.receives(6);
        await delay(300);
        assert.deepEqual(numbers(consumer.events.slice(4)), [0, 1]);
        await consumer.stop();
    });
    test("what is not answered in time comes again", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(2));
        await create(stream, "g", { messageTimeout: 300 });
        const consumer = join(stream, "g", (event, subscription) => event.retryCount ? subscription.ack(event) : undefined);
        await consumer.receives(4);
        assert.deepEqual(consumer.events.map((each) => [each.event.data.n, each.retryCount]).sort(), [[0, 0], [0, 1], [1, 0], [1, 1]]);
        await consumer.stop();
    });
    test("what a consumer leaves behind goes to the others", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(10));
        await create(stream, "g");
        const first = join(stream, "g", ignore, { bufferSize: 10 });
        await first.receives(10);
        await first.stop();
        const second = join(stream, "g");
        await second.receives(10);
        assert.deepEqual(numbers(second.events).sort((a, b) => a - b), range(0, 10));
        await second.stop();
    });
    test("a group goes on where it was left", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(10));
        await create(stream, "g", { checkPointAfter: 100, checkPointLowerBound: 1 });
        const first = join(stream, "g");
        await first.receives(10);
        await until("it is checkpointed", async () =>
            (await client.getPersistentSubscriptionToStreamInfo(stream, "g")).stats.lastCheckpointedEventRevision === 9n);
        await first.stop();
        await kind.append(client, stream, kind.event({ n: 10 }));
        const second = join(stream, "g");
        await second.receives(1);
        await delay(200);
        assert.deepEqual(numbers(second.events), [10]);
        await second.stop();
    });
});

describe(`${kind.name}, strategies`, () => {
    /** How `count` events of `streams` are spread over three consumers of a group. */
    const spread = async (strategy, write, options = {}) => {
        const category = unused("spread").split("-")[0];
        const source = `$ce-${category}`;
        await create(source, "g", { consumerStrategyName: strategy, resolveLinkTos: true, startFrom: START });
        const consumers = range(0, 3).map(() => join(source, "g", undefined, { bufferSize: 100, ...options }));
        await Promise.all(consumers.map((each) => each.confirmed));
        const count = await write(category);
        await until(`all ${count} come`, () => consumers.reduce((sum, each) => sum + each.events.length, 0) >= count);
        await Promise.all(consumers.map((each) => each.stop()));
        return consumers.map((each) => each.events);
    };
    const overStreams = async (category) => {
        for (const n of range(0, 30)) await kind.append(client, `${category}-${n % 10}`, kind.event({ n }));
        return 30;
    };
    test("RoundRobin spreads evenly", async () => {
        const each = await spread(ROUND_ROBIN, overStreams);
        assert.deepEqual(each.map((all) => all.length), [10, 10, 10]);
    });
    test("DispatchToSingle sends all to one while it can take them", async () => {
        const each = await spread(DISPATCH_TO_SINGLE, overStreams);
        assert.deepEqual(each.map((all) => all.length).sort((a, b) => a - b), [0, 0, 30]);
    });
    test("Pinned keeps a stream at one consumer, in order", async () => {
        const each = await spread(PINNED, overStreams);
        const homes = new Map();
        each.forEach((all, home) => all.forEach((one) => {
            const name = one.event.streamId;
            assert.equal(homes.get(name) ?? home, home, `${name} went to two consumers`);
            homes.set(name, home);
        }));
        assert.equal(homes.size, 10);
        for (const all of each) {
            for (const name of new Set(all.map((one) => one.event.streamId))) {
                const order = numbers(all.filter((one) => one.event.streamId === name));
                assert.deepEqual(order, [...order].sort((a, b) => a - b));
            }
        }
    });
    if (kind.isCurrent) {
        test("PinnedByCorrelation keeps a correlation at one consumer", async () => {
            const ids = range(0, 8).map(() => randomUUID());
            const each = await spread(PINNED_BY_CORRELATION, async (category) => {
                for (const n of range(0, 32)) {
                    await kind.append(client, `${category}-${n % 5}`, kind.event({ n }, { metadata: { $correlationId: ids[n % 8] } }));
                }
                return 32;
            });
            const homes = new Map();
            each.forEach((all, home) => all.forEach((one) => {
                const id = one.event.metadata.$correlationId;
                assert.equal(homes.get(id) ?? home, home);
                homes.set(id, home);
            }));
            assert.equal(homes.size, 8);
        });
    }
});

describe(`${kind.name}, groups over $all`, () => {
    test("with a filter", async () => {
        const stream = unused();
        await kind.append(client, stream, kind.events(5));
        const group = randomUUID();
        await client.createPersistentSubscriptionToAll(group, persistentSubscriptionToAllSettingsFromDefaults({ startFrom: START }),
            { filter: streamNameFilter({ prefixes: [stream] }) });
        const consumer = new Following(client.subscribeToPersistentSubscriptionToAll(group), (event, subscription) => subscription.ack(event));
        await consumer.receives(5);
        assert.equal(consumer.subscription.id, `$all::${group}`);
        await kind.append(client, unused(), kind.event());
        await kind.append(client, stream, kind.event({ n: 5 }));
        await consumer.receives(6);
        assert.deepEqual(numbers(consumer.events), range(0, 6));
        await consumer.stop();
        await client.deletePersistentSubscriptionToAll(group);
    });
    test("from a position, which is included", async () => {
        const type = `T${randomUUID()}`;
        const places = [];
        for (const n of range(0, 5)) places.push((await kind.append(client, unused(), kind.event({ n }, { type }))).position);
        const group = randomUUID();
        await client.createPersistentSubscriptionToAll(group, persistentSubscriptionToAllSettingsFromDefaults({ startFrom: places[2] }),
            { filter: eventTypeFilter({ regex: `^${type}$` }) });
        const consumer = new Following(client.subscribeToPersistentSubscriptionToAll(group), (event, subscription) => subscription.ack(event));
        await consumer.receives(3);
        assert.deepEqual(numbers(consumer.events), [2, 3, 4]);
        const info = await client.getPersistentSubscriptionToAllInfo(group);
        assert.equal(info.eventSource, "$all");
        assert.deepEqual(info.settings.startFrom, places[2]);
        await consumer.stop();
        await client.updatePersistentSubscriptionToAll(group, persistentSubscriptionToAllSettingsFromDefaults({ startFrom: places[2], maxRetryCount: 4 }));
        assert.equal((await client.getPersistentSubscriptionToAllInfo(group)).settings.maxRetryCount, 4);
        assert.ok((await client.listPersistentSubscriptionsToAll()).some((each) => each.groupName === group));
        await client.deletePersistentSubscriptionToAll(group);
    });
});

describe(`${kind.name}, managing groups`, () => {
    test("a group can be created once", async () => {
        const stream = unused();
        await create(stream, "g");
        await assert.rejects(create(stream, "g"), (error) =>
            error instanceof PersistentSubscriptionExistsError && error.streamName === stream && error.groupName === "g");
        await create(stream, "h");
    });
    test("settings that contradict each other are refused", async () => {
        await assert.rejects(create(unused(), "g", { readBatchSize: 600, historyBufferSize: 500 }), PersistentSubscriptionFailedError);
    });
    test("what is not there is not there", async () => {
        const stream = unused();
        const missing = (error) => error instanceof PersistentSubscriptionDoesNotExistError && error.streamName === stream;
        await assert.rejects(client.deletePersistentSubscriptionToStream(stream, "g"), missing);
        await assert.rejects(client.updatePersistentSubscriptionToStream(stream, "g", settingsOf()), missing);
        await assert.rejects(client.getPersistentSubscriptionToStreamInfo(stream, "g"), missing);
        await assert.rejects(client.replayParkedMessagesToStream(stream, "g"), missing);
        await assert.rejects(client.listPersistentSubscriptionsToStream(stream), missing);
        assert.ok(missing(await join(stream, "g").fails()));
    });
    test("no more consumers than are allowed", async () => {
        const stream = unused();
        await create(stream, "g", { maxSubscriberCount: 1 });
        const first = join(stream, "g");
        await first.confirmed;
        const error = await join(stream, "g").fails();
        assert.ok(error instanceof PersistentSubscriptionMaximumSubscribersReachedError, `${error}`);
        await first.stop();
    });
    test("deleting a group drops its consumers", async () => {
        const stream = unused();
        await create(stream, "g");
        const consumer = join(stream, "g");
        await consumer.confirmed;
        await client.deletePersistentSubscriptionToStream(stream, "g");
        const error = await consumer.fails();
        assert.ok(error instanceof PersistentSubscriptionDroppedError, `${error}`);
    });
    test("an update under load drops the consumers, who come back and miss nothing", async () => {
        const stream = unused();
        await create(stream, "g");
        const handled = new Set();
        let stopped = false;
        let current;
        const enter = () => {
            current = join(stream, "g", (event, subscription) => {
                handled.add(event.event.data.n);
                subscription.ack(event).catch(() => {});
            });
            current.subscription.once("error", () => stopped || setTimeout(enter, 50));
        };
        enter();
        await current.confirmed;
        for (const n of range(0, 300)) {
            await until("it is written", () => kind.append(client, stream, kind.event({ n })).then(() => true, () => false));
            if (n === 100 || n === 200) {
                await client.updatePersistentSubscriptionToStream(stream, "g", settingsOf({ maxRetryCount: n }));
            }
        }
        await until("all are handled", () => handled.size === 300);
        const info = await client.getPersistentSubscriptionToStreamInfo(stream, "g");
        assert.equal(info.settings.maxRetryCount, 200);
        stopped = true;
        await current.stop();
    });
    test("a group tells about itself", async () => {
        const stream = unused();
        const settings = settingsOf({
            messageTimeout: 12000, maxRetryCount: 7, checkPointAfter: 1500, checkPointLowerBound: 3, checkPointUpperBound: 30, maxSubscriberCount: 9,
            liveBufferSize: 300, readBatchSize: 30, historyBufferSize: 400, consumerStrategyName: PINNED, extraStatistics: true,
        });
        await client.createPersistentSubscriptionToStream(stream, "g", settings);
        await kind.append(client, stream, kind.events(4));
        const named = kind.connect(server, undefined, "&connectionName=the-worker");
        const consumer = new Following(named.subscribeToPersistentSubscriptionToStream(stream, "g", { bufferSize: 6 }), (event, subscription) =>
            event.event.data.n < 3 ? subscription.ack(event) : undefined);
        await consumer.receives(4);
        await until("three are acknowledged", async () =>
            (await client.getPersistentSubscriptionToStreamInfo(stream, "g")).stats.totalInFlightMessages === 1);
        const info = await client.getPersistentSubscriptionToStreamInfo(stream, "g");
        assert.equal(info.eventSource, stream);
        assert.equal(info.groupName, "g");
        assert.match(info.status, /Live/);
        assert.deepEqual(info.settings, settings);
        assert.equal(info.connections.length, 1);
        assert.equal(info.connections[0].connectionName, "the-worker");
        assert.equal(info.connections[0].availableSlots, 5);
        assert.equal(info.connections[0].inFlightMessages, 1);
        assert.equal(info.connections[0].totalItems, 4n);
        assert.equal(info.stats.lastKnownEventRevision, 3n);
        assert.equal(info.stats.parkedMessageCount, 0n);
        const listed = await client.listAllPersistentSubscriptions();
        assert.ok(listed.some((each) => each.eventSource === stream && each.groupName === "g"));
        assert.deepEqual((await client.listPersistentSubscriptionsToStream(stream)).map((each) => each.groupName), ["g"]);
        await consumer.stop();
    });
    test("the subsystem can be restarted", async () => {
        const stream = unused();
        await create(stream, "g");
        await client.restartPersistentSubscriptionSubsystem();
        await kind.append(client, stream, kind.events(3));
        const consumer = join(stream, "g");
        await consumer.receives(3);
        await consumer.stop();
    });
    test("links are acknowledged by their own ids", async () => {
        const target = unused();
        const links = unused("links");
        await kind.append(client, target, kind.events(3));
        await kind.append(client, links, range(0, 3).map((n) => kind.bytes(Buffer.from(`${n}@${target}`), { type: "$>" })));
        await create(links, "g", { resolveLinkTos: true, messageTimeout: 500 });
        const consumer = join(links, "g");
        await consumer.receives(3);
        await delay(1500);
        assert.deepEqual(consumer.events.map((each) => [each.event.data.n, each.link.streamId, each.retryCount]),
            range(0, 3).map((n) => [n, links, 0]));
        await consumer.stop();
    });
});
