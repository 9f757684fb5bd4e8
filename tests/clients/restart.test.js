// The server dies and comes back: what was answered is there, and a client that goes on from its
// checkpoint misses nothing.
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { collect, delay, Following, kind, numbers, range, Server, unused, until } from "./support.js";

/** Do it until it works: what an application does while its server restarts. */
async function stubbornly(what, action, ms = 30000) {
    let last;
    await until(what, async () => {
        try {
            await action();
            return true;
        } catch (error) {
            last = error;
            await delay(50);
            return false;
        }
    }, ms).catch((error) => {
        throw new Error(`${error.message}: ${last}`);
    });
}

/** A subscription that is begun anew from its last event or checkpoint whenever it fails. */
class Persevering {
    events = [];
    failures = 0;
    #stopped = false;
    #following = null;

    constructor(subscribe) {
        this.subscribe = subscribe;
        this.#begin();
    }

    #begin() {
        if (this.#stopped) return;
        const subscription = this.subscribe(this);
        this.#following = new Following(subscription, (event) => this.events.push(event));
        let failed = false;
        const again = () => {
            if (failed || this.#stopped) return;
            failed = true;
            this.failures += 1;
            setTimeout(() => this.#begin(), 100);
        };
        subscription.on("error", again);
        subscription.on("end", again);
    }

    get last() {
        return this.events.at(-1);
    }

    async stop() {
        this.#stopped = true;
        await this.#following.stop().catch(() => {});
    }
}

for (const signal of ["SIGKILL", "SIGTERM"]) {
    describe(`${kind.name}, ${signal}`, () => {
        test("subscriptions go on from their checkpoint, nothing is missing", async () => {
            const server = await new Server().start();
            after(() => server.remove());
            const client = kind.connect(server);
            const { START, streamNameFilter } = kind.library;
            const stream = unused();
            const readers = [
                new Persevering((self) => client.subscribeToStream(stream, { fromRevision: self.last?.event.revision ?? START })),
                new Persevering((self) => client.subscribeToAll({
                    fromPosition: self.last?.event.position ?? START,
                    filter: streamNameFilter({ prefixes: [stream] }),
                })),
            ];
            let acknowledged = 0;
            let writing = true;
            /* A retry after an error carries the same ids, so that it cannot be stored twice. */
            const writer = (async () => {
                while (writing) {
                    const event = kind.event({ n: acknowledged });
                    await stubbornly("an append is answered", () => kind.append(client, stream, event));
                    acknowledged += 1;
                }
            })();
            for (let round = 1; round <= 2; round += 1) {
                const before = acknowledged;
                await until("events are written and read", () => acknowledged > before + 100 && readers.every((each) => each.events.length > before));
                const ended = await server.stop(signal);
                assert.equal(ended, signal === "SIGTERM" ? 0 : signal);
                await delay(200);
                await server.start();
            }
            const before = acknowledged;
            await until("events are written again", () => acknowledged > before + 50, 30000);
            writing = false;
            await writer;
            for (const each of readers) {
                await until(`all ${acknowledged} arrive`, () => each.events.length >= acknowledged, 30000);
                assert.deepEqual(numbers(each.events), range(0, acknowledged));
                assert.ok(each.failures >= 2, `${each.failures} failures`);
                await each.stop();
            }
            assert.deepEqual(numbers(await collect(client.readStream(stream))), range(0, acknowledged));
            await client.dispose();
        });

        test("a persistent subscription goes on, nothing that was not acknowledged is missing", async () => {
            const server = await new Server().start();
            after(() => server.remove());
            const client = kind.connect(server);
            const { START, persistentSubscriptionToStreamSettingsFromDefaults } = kind.library;
            const stream = unused();
            await client.createPersistentSubscriptionToStream(stream, "workers", persistentSubscriptionToStreamSettingsFromDefaults({
                startFrom: START, checkPointAfter: 200, checkPointLowerBound: 1, messageTimeout: 2000,
            }));
            const handled = new Set();
            const consumer = new Persevering(() => {
                const subscription = client.subscribeToPersistentSubscriptionToStream(stream, "workers", { bufferSize: 50 });
                subscription.on("data", (event) => {
                    handled.add(event.event.data.n);
                    subscription.ack(event).catch(() => {});
                });
                return subscription;
            });
            let acknowledged = 0;
            const write = async (count) => {
                for (const end = acknowledged + count; acknowledged < end; acknowledged += 1) {
                    const event = kind.event({ n: acknowledged });
                    await stubbornly("an append is answered", () => kind.append(client, stream, event));
                }
            };
            await write(100);
            await until("half are handled", () => handled.size >= 50);
            await server.stop(signal);
            await delay(200);
            await server.start();
            await write(100);
            await until("all are handled", () => handled.size === 200, 40000);
            assert.deepEqual([...handled].sort((a, b) => a - b), range(0, 200));
            await delay(1000);
            const redelivered = consumer.events.length - 200;
            assert.ok(redelivered <= 150, `${redelivered} of 200 came twice: the checkpoint did not survive`);
            await server.stop(signal);
            await server.start();
            const before = consumer.events.length;
            await write(1);
            await until("the new one is handled", () => handled.has(200), 40000);
            assert.ok(consumer.events.length - before <= 60, `${consumer.events.length - before} came again, although all were acknowledged`);
            await consumer.stop();
            await client.dispose();
        });
    });
}
