// What the tests of this folder share: a server on a free port, KurrentDB's clients behind one face,
// and streams that can be awaited. `tests/clients/run FILE` runs one of them.
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, openSync, closeSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after } from "node:test";
import { fileURLToPath } from "node:url";

export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const PROGRAM = process.env.DEEDBOOK ?? join(ROOT, "build/deedbook");

// The packages lie where `run` put them, not beside these files.
export const MODULES = process.env.CLIENTS_MODULES ?? join(ROOT, "build/clients");
/** require() of what is installed there. */
export const installed = createRequire(join(MODULES, "package.json"));

// One package a process, as CLIENT says: both put their messages, which are not the same, under the
// same global names.
const PACKAGES = { kurrentdb: "@kurrent/kurrentdb-client", eventstore: "@eventstore/db-client" };
const client = process.env.CLIENT ?? "kurrentdb";

export const delay = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Wait until `condition()` is true (it may be async); `what` is what did not happen otherwise. */
export async function until(what, condition, ms = 30000) {
    const end = Date.now() + ms;
    for (;;) {
        if (await condition()) return;
        if (Date.now() > end) throw new Error(`after ${ms} ms, this has not happened: ${what}`);
        await delay(10);
    }
}

/** The promise's value; an error that names `what` when it takes longer than `ms`. */
export function within(what, promise, ms = 30000) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`after ${ms} ms, this has not happened: ${what}`)), ms);
    });
    return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// ---- the server -----------------------------------------------------------------------------

const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));

export class Server {
    #folder = mkdtempSync(join(tmpdir(), "deedbook-clients-"));
    #child = null;
    port = 0;

    constructor(options = []) {
        this.options = options;
    }

    /** Start it, on the port it had before if it ran before. */
    async start() {
        const log = join(this.#folder, "log");
        const out = openSync(log, "w");
        const command = ["serve", "--data", join(this.#folder, "data"), "--listen", `127.0.0.1:${this.port}`];
        const child = spawn(PROGRAM, [...command, ...this.options], { cwd: ROOT, stdio: ["ignore", out, out] });
        closeSync(out);
        this.#child = child;
        running.add(child);
        child.once("exit", () => running.delete(child));
        await until("the server starts", () => {
            const text = readFileSync(log, "utf8");
            if (child.exitCode !== null) throw new Error(`the server did not start:\n${text}`);
            const found = /http:\/\/[\w.[\]:]+:(\d+)/.exec(text);
            if (found) this.port = Number(found[1]);
            return found !== null;
        });
        return this;
    }

    /** End it, and say how it ended: an exit status or a signal's name. */
    async stop(signal = "SIGTERM") {
        const child = this.#child;
        if (!child) return null;
        this.#child = null;
        if (child.exitCode === null && child.signalCode === null) {
            const exited = once(child, "exit");
            child.kill(signal);
            await within(`the server ends after ${signal}`, exited, 30000);
        }
        return child.exitCode ?? child.signalCode;
    }

    /** End it and forget it. One that did not end well has something to say. */
    async remove() {
        const ended = await this.stop();
        const log = this.log;
        rmSync(this.#folder, { recursive: true, force: true });
        if (ended !== null && ended !== 0) throw new Error(`the server ended with ${ended}:\n${log}`);
    }

    get pid() {
        return this.#child.pid;
    }

    get address() {
        return `127.0.0.1:${this.port}`;
    }

    get log() {
        return readFileSync(join(this.#folder, "log"), "utf8");
    }

    /** Memory that the process holds, in MiB; always 0 with a sanitizer, which holds much more. */
    get resident() {
        if (process.env.SANITIZED) return 0;
        return Number(/VmRSS:\s*(\d+)/.exec(readFileSync(`/proc/${this.pid}/status`, "utf8"))[1]) / 1024;
    }

    /** The HTTP API: {status, headers, body}, the body parsed if it is JSON. */
    async http(method, path, body, headers = {}) {
        const reply = await fetch(`http://${this.address}${path}`, {
            method,
            headers: { "content-type": "application/json", ...headers },
            body: body === undefined ? undefined : JSON.stringify(body),
        });
        const text = await reply.text();
        return { status: reply.status, headers: reply.headers, body: /json/.test(reply.headers.get("content-type")) ? JSON.parse(text) : text };
    }
}

/** A server for the tests of a file, removed after them. */
export async function serve(options) {
    const server = await new Server(options).start();
    after(() => server.remove());
    return server;
}

// ---- the clients ------------------------------------------------------------------------------

/** The forms of a connection string: straight to the address, and by asking for the cluster's members. */
export const forms = {
    direct: (server) => `esdb://${server.address}?tls=false`,
    discover: (server) => `esdb+discover://${server.address}?tls=false`,
};

/* Credentials make a client append by Append instead of BatchAppend; without TLS they are not sent. */
const somebody = { username: "admin", password: "changeit" };

/** The package, with what the two name differently under one name. */
class Kind {
    name = PACKAGES[client];
    library = installed(PACKAGES[client]);
    isCurrent = client === "kurrentdb";
    #Client = this.library.KurrentDBClient ?? this.library.EventStoreDBClient;
    #expectation = this.isCurrent ? "streamState" : "expectedRevision";

    /** What a WrongExpectedVersionError says. */
    expectedOf(error) {
        return this.isCurrent ? { expected: error.expectedState, actual: error.actualState }
            : { expected: error.expectedVersion, actual: error.actualVersion };
    }

    connect(server, form = forms.direct, parameters = "") {
        const client = this.#Client.connectionString(form(server) + parameters);
        after(() => client.dispose());
        return client;
    }

    /** Append under an expectation: "any", "no_stream", "stream_exists" or a revision. */
    append(client, stream, events, expected = "any", { by = "BatchAppend", ...options } = {}) {
        if (by === "Append") options.credentials = somebody;
        return client.appendToStream(stream, events, { [this.#expectation]: expected, ...options });
    }

    setMetadata(client, stream, metadata, expected = "any") {
        return client.setStreamMetadata(stream, metadata, { [this.#expectation]: expected });
    }

    event(data = {}, rest = {}) {
        return this.library.jsonEvent({ type: "Noted", data, ...rest });
    }

    events(count, rest = {}) {
        return Array.from({ length: count }, (_, n) => this.event({ n }, rest));
    }

    bytes(data, rest = {}) {
        return this.library.binaryEvent({ type: "Noted", data, ...rest });
    }
}

export const kind = new Kind();

export const appends = ["BatchAppend", "Append"];

/** A stream's name that nobody has used, in a category of its own. */
export const unused = (category = "note") => `${category}${randomUUID().replaceAll("-", "")}-1`;

/** All events of a read. */
export async function collect(reading) {
    const all = [];
    for await (const event of reading) all.push(event);
    return all;
}

export const numbers = (all) => all.map((each) => each.event.data.n);

export const revisions = (all) => all.map((each) => Number(each.event.revision));

/** The numbers from `first` to before `end`. */
export const range = (first, end) => Array.from({ length: Math.max(0, end - first) }, (_, n) => first + n);

/** What a subscription (catch-up or persistent) delivers, and what happens to it. */
export class Following {
    events = [];
    errors = [];
    caughtUp = 0;
    ended = false;

    constructor(subscription, onEvent = () => {}) {
        this.subscription = subscription;
        this.confirmed = new Promise((resolve, reject) => {
            subscription.once("confirmation", resolve);
            subscription.once("error", reject);
        });
        this.confirmed.catch(() => {}); // An error is kept below, whether or not somebody waits.
        subscription.on("caughtUp", (info) => {
            this.caughtUp += 1;
            this.caughtUpInfo = info;
        });
        subscription.on("error", (error) => this.errors.push(error));
        subscription.on("end", () => (this.ended = true));
        subscription.on("close", () => (this.ended = true));
        subscription.on("data", (event) => {
            this.events.push(event);
            onEvent(event, subscription);
        });
        everyFollowing.add(this);
    }

    async receives(count, ms) {
        await until(`${count} events arrive (${this.errors[0] ?? "no error"})`,
            () => this.events.length >= count || this.errors.length > 0, ms).catch((error) => {
            throw new Error(`${error.message}; ${this.events.length} did`);
        });
        if (this.events.length < count) throw this.errors[0];
        return this.events;
    }

    async fails(ms) {
        await until("the subscription fails", () => this.errors.length > 0, ms);
        return this.errors[0];
    }

    async stop() {
        everyFollowing.delete(this);
        await this.subscription.unsubscribe();
    }
}

const everyFollowing = new Set();

/* The clients' sockets and their native part may hold a process that has nothing left to do. */
after(async () => {
    await Promise.allSettled([...everyFollowing].map((each) => each.stop()));
});

/** The messages that the newer client is made of: protocol("streams_pb"). */
export const protocol = (file) =>
    installed(join(MODULES, "node_modules/@kurrent/kurrentdb-client/generated/kurrentdb/protocols/v1", file));
