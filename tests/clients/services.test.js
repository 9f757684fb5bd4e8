// Services for which the clients have no functions: their messages are there, and are sent by hand.
// clients: kurrentdb
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Connection, framed } from "./http2.js";
import { kind, protocol, serve, Server, unused, until, within } from "./support.js";

const { Empty } = protocol("shared_pb");
const { ClusterInfo, MemberInfo } = protocol("gossip_pb");
const users = protocol("usermanagement_pb");
const operations = protocol("operations_pb");
const { SupportedMethods } = protocol("serverfeatures_pb");

const server = await serve();
const ask = (path, message, headers = {}) =>
    within("an answer", new Connection(server).ask(`/event_store.client.${path}`, [framed(message)], { headers }));

/** A request of the users' service: its options, by their setters. */
function user(Request, options) {
    const request = new Request();
    const inner = new Request.Options();
    for (const [name, value] of Object.entries(options)) inner[`set${name}`](value);
    request.setOptions(inner);
    return request;
}

describe("Gossip", () => {
    test("this server leads, at the address that the client dialled", async () => {
        const call = await ask("gossip.Gossip/Read", new Empty(), { ":authority": "db.example:2113" });
        assert.equal(call.status, 0);
        const members = ClusterInfo.deserializeBinary(call.messages[0]).getMembersList();
        assert.equal(members.length, 1);
        assert.equal(members[0].getState(), MemberInfo.VNodeState.LEADER);
        assert.equal(members[0].getIsAlive(), true);
        assert.deepEqual([members[0].getHttpEndPoint().getAddress(), members[0].getHttpEndPoint().getPort()], ["db.example", 2113]);
    });
    test("or at the one that its operator names", async () => {
        const own = await new Server(["--advertise-host", "shop.example", "--advertise-port", "1234"]).start();
        const call = await new Connection(own).ask("/event_store.client.gossip.Gossip/Read", [new Empty()]);
        const [member] = ClusterInfo.deserializeBinary(call.messages[0]).getMembersList();
        assert.deepEqual([member.getHttpEndPoint().getAddress(), member.getHttpEndPoint().getPort()], ["shop.example", 1234]);
        await own.remove();
    });
});

describe("Users", () => {
    const details = async (login) => {
        const call = await ask("users.Users/Details", user(users.DetailsReq, { LoginName: login }));
        return { call, all: call.messages.map((message) => users.DetailsResp.deserializeBinary(message).getUserDetails()) };
    };

    test("those that every client knows are there", async () => {
        const { call, all } = await details("");
        assert.equal(call.status, 0);
        assert.deepEqual(all.map((each) => each.getLoginName()).sort(), ["admin", "ops"]);
        assert.deepEqual((await details("admin")).all[0].getGroupsList(), ["$admins"]);
    });
    test("one is made, changed, disabled, enabled and deleted", async () => {
        const made = { LoginName: "ada", Password: "secret", FullName: "Ada L.", GroupsList: ["writers"] };
        assert.equal((await ask("users.Users/Create", user(users.CreateReq, made))).status, 0);
        const again = await ask("users.Users/Create", user(users.CreateReq, made));
        assert.equal(again.status, 9);
        assert.equal(again.ending.exception, "user-conflict");
        assert.equal(again.ending["login-name"], "ada");
        assert.equal((await ask("users.Users/Update", user(users.UpdateReq, { ...made, FullName: "Ada Lovelace" }))).status, 0);
        assert.equal((await ask("users.Users/Disable", user(users.DisableReq, { LoginName: "ada" }))).status, 0);
        let [ada] = (await details("ada")).all;
        assert.deepEqual([ada.getFullName(), ada.getDisabled(), ada.getGroupsList()], ["Ada Lovelace", true, ["writers"]]);
        assert.equal((await ask("users.Users/Enable", user(users.EnableReq, { LoginName: "ada" }))).status, 0);
        [ada] = (await details("ada")).all;
        assert.equal(ada.getDisabled(), false);
        const change = (current) => ask("users.Users/ChangePassword", user(users.ChangePasswordReq,
            { LoginName: "ada", CurrentPassword: current, NewPassword: "other" }));
        const wrong = await change("wrong");
        assert.deepEqual([wrong.status, wrong.ending.exception], [7, "access-denied"]);
        assert.equal((await change("secret")).status, 0);
        assert.equal((await ask("users.Users/ResetPassword", user(users.ResetPasswordReq, { LoginName: "ada", NewPassword: "third" }))).status, 0);
        assert.equal((await ask("users.Users/Delete", user(users.DeleteReq, { LoginName: "ada" }))).status, 0);
        const { call } = await details("ada");
        assert.deepEqual([call.status, call.ending.exception, call.ending["login-name"]], [5, "user-not-found", "ada"]);
    });
});

describe("Operations", () => {
    const start = () => {
        const request = new operations.StartScavengeReq();
        const options = new operations.StartScavengeReq.Options();
        options.setThreadCount(1);
        request.setOptions(options);
        return ask("operations.Operations/StartScavenge", request);
    };

    test("a scavenge is a compaction, and has an id", async () => {
        const client = kind.connect(server);
        await kind.append(client, unused(), kind.events(100));
        const call = await start();
        assert.equal(call.status, 0, call.text);
        const answer = operations.ScavengeResp.deserializeBinary(call.messages[0]);
        assert.ok(answer.getScavengeId().length > 0);
    });
    test("an unknown one cannot be stopped", async () => {
        const request = new operations.StopScavengeReq();
        const options = new operations.StopScavengeReq.Options();
        options.setScavengeId("nobody-knows-it");
        request.setOptions(options);
        const call = await ask("operations.Operations/StopScavenge", request);
        assert.deepEqual([call.status, call.ending.exception, call.ending["scavenge-id"]], [5, "scavenge-not-found", "nobody-knows-it"]);
    });
    test("what a single node has nothing to do for is done", async () => {
        for (const name of ["MergeIndexes", "ResignNode", "RestartPersistentSubscriptions"]) {
            assert.equal((await ask(`operations.Operations/${name}`, new Empty())).status, 0, name);
        }
    });
    test("nobody stops the server whom its operator has not allowed to", async () => {
        assert.notEqual((await ask("operations.Operations/Shutdown", new Empty())).status, 0);
        assert.equal((await server.http("GET", "/healthz")).status, 200);
    });
});

describe("Monitoring", () => {
    test("figures come at once, and again until nobody wants them", async () => {
        const call = new Connection(server).call("/event_store.client.monitoring.Monitoring/Stats");
        call.end(framed(Buffer.from([0x20, 100]))); // refresh_time_period_in_ms = 100
        await until("they come", () => call.messages.length >= 3);
        call.messages.forEach((message) => assert.ok(message.length > 0));
        await call.cancel();
    });
});

test("everything that is told to be there is there", async () => {
    const call = await ask("server_features.ServerFeatures/GetSupportedMethods", new Empty());
    const methods = SupportedMethods.deserializeBinary(call.messages[0]).getMethodsList();
    const count = (service) => methods.filter((each) => each.getServiceName() === service).length;
    assert.equal(count("event_store.client.streams.streams"), 5);
    assert.equal(count("event_store.client.persistent_subscriptions.persistentsubscriptions"), 9);
    assert.equal(count("event_store.client.users.users"), 8);
    assert.equal(count("kurrentdb.protocol.v2.streams.streamsservice"), 2);
    const featuresOf = (name) => methods.find((each) => each.getMethodName() === name).getFeaturesList();
    assert.deepEqual(featuresOf("read").sort(), ["events", "position"]);
    assert.deepEqual(featuresOf("create").sort(), ["all", "stream"]);
});
