// Connecting: both connection forms, every scheme, what the server says of itself.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { collect, forms, kind, numbers, range, serve, unused } from "./support.js";

const server = await serve();

describe(kind.name, () => {
    for (const [name, form] of Object.entries(forms)) {
        test(`connects by "${name}", writes and reads back`, async () => {
            const client = kind.connect(server, form);
            const stream = unused();
            const written = await kind.append(client, stream, kind.events(3), "no_stream");
            assert.equal(written.success, true);
            assert.equal(written.nextExpectedRevision, 2n);
            assert.deepEqual(numbers(await collect(client.readStream(stream))), range(0, 3));
        });
    }

    test("takes several hosts, of which one is there", async () => {
        const client = kind.connect(server, () => `esdb://127.0.0.1:1,${server.address}?tls=false`);
        const stream = unused();
        await kind.append(client, stream, kind.event());
        assert.equal((await collect(client.readStream(stream))).length, 1);
    });

    test("learns what the server can do", async () => {
        const client = kind.connect(server);
        const features = await client.capabilities;
        assert.match(features.serverVersion, /^\d+\.\d+\.\d+$/);
    });

    test("is content with a node of any preference", async () => {
        for (const preference of ["leader", "follower", "random", "readOnlyReplica"]) {
            const client = kind.connect(server, forms.discover, `&nodePreference=${preference}`);
            const stream = unused();
            await kind.append(client, stream, kind.event());
            assert.equal((await collect(client.readStream(stream))).length, 1);
        }
    });

    test("may require the leader, which a server alone is", async () => {
        const client = kind.connect(server);
        const stream = unused();
        await kind.append(client, stream, kind.event(), "any", { requiresLeader: true });
        assert.equal((await collect(client.readStream(stream, { requiresLeader: true }))).length, 1);
    });

    test("keeps many clients at once", async () => {
        const streams = await Promise.all(range(0, 20).map(async () => {
            const client = kind.connect(server);
            const stream = unused();
            await kind.append(client, stream, kind.events(10));
            return (await collect(client.readStream(stream))).length;
        }));
        assert.deepEqual(streams, Array(20).fill(10));
    });
});

test("each scheme that the client takes", async () => {
    for (const scheme of kind.isCurrent ? ["esdb", "kurrentdb", "kdb", "kurrent"] : ["esdb"]) {
        for (const how of ["", "+discover"]) {
            const client = kind.connect(server, () => `${scheme}${how}://${server.address}?tls=false`);
            const stream = unused();
            await kind.append(client, stream, kind.event());
            assert.equal((await collect(client.readStream(stream))).length, 1, `${scheme}${how}`);
        }
    }
});
