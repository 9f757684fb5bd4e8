// gRPC by hand, for what KurrentDB's clients never send: over node's HTTP/2 client, and frame by
// frame over a socket.
import { connect as connect2, constants } from "node:http2";
import { connect as connectTcp } from "node:net";
import { after } from "node:test";

/** One gRPC message: a flag, its length, its bytes. */
export function framed(message, { flag = 0, length } = {}) {
    const body = Buffer.from(message.serializeBinary ? message.serializeBinary() : message);
    const head = Buffer.alloc(5);
    head[0] = flag;
    head.writeUInt32BE(length ?? body.length, 1);
    return Buffer.concat([head, body]);
}

export class Connection {
    errors = [];
    goaway = null;

    constructor(server, settings = {}) {
        this.session = connect2(`http://${server.address}`, { settings });
        this.session.on("error", (error) => this.errors.push(error));
        this.session.on("goaway", (code) => (this.goaway = code));
        this.closed = new Promise((resolve) => this.session.once("close", resolve));
        after(() => this.session.destroy());
    }

    /** Begin a call. What it gets is in `messages`, `headers`, `trailers`; `done` comes with its end. */
    call(path, { headers = {}, paused = false } = {}) {
        const stream = this.session.request({
            ":method": "POST", ":path": path, "content-type": "application/grpc", te: "trailers", ...headers,
        }, { endStream: false });
        return new Call(stream, paused);
    }

    /** A whole call: the messages, the end, the answer. */
    async ask(path, messages = [], options = {}) {
        const call = this.call(path, options);
        for (const message of messages) call.write(Buffer.isBuffer(message) ? message : framed(message));
        call.stream.end();
        return call.done;
    }

    close() {
        this.session.destroy();
        return this.closed;
    }
}

export class Call {
    messages = [];
    headers = null;
    trailers = null;
    reset = null;
    #wanted = 5; // bytes until there is more to take apart

    constructor(stream, paused) {
        this.stream = stream;
        stream.on("error", (error) => (this.error = error));
        stream.on("response", (headers) => (this.headers = headers));
        stream.on("trailers", (trailers) => (this.trailers = trailers));
        if (!paused) this.resume();
        this.done = new Promise((resolve) => {
            stream.once("close", () => {
                if (stream.rstCode !== constants.NGHTTP2_NO_ERROR) this.reset = stream.rstCode;
                resolve(this);
            });
        });
    }

    resume() {
        const chunks = [];
        let size = 0;
        this.stream.on("data", (chunk) => {
            chunks.push(chunk);
            size += chunk.length;
            if (size < this.#wanted) return;
            let all = Buffer.concat(chunks);
            for (this.#wanted = 5; all.length >= this.#wanted; this.#wanted = 5) {
                this.#wanted = 5 + all.readUInt32BE(1);
                if (all.length < this.#wanted) break;
                this.messages.push(all.subarray(5, this.#wanted));
                all = all.subarray(this.#wanted);
            }
            chunks.splice(0, chunks.length, all);
            size = all.length;
        });
    }

    write(bytes) {
        this.stream.write(bytes);
        return this;
    }

    /** The last that the client sends. */
    end(bytes) {
        this.stream.end(bytes);
        return this;
    }

    cancel() {
        this.stream.close(constants.NGHTTP2_CANCEL);
        return this.done;
    }

    /** The ending's fields: in the trailers, or in the only headers. */
    get ending() {
        return this.trailers ?? this.headers ?? {};
    }

    /** grpc-status; undefined if the call did not end with one. */
    get status() {
        const text = this.ending["grpc-status"];
        return text === undefined ? undefined : Number(text);
    }

    get text() {
        return decodeURIComponent(this.ending["grpc-message"] ?? "");
    }
}

// ---- frame by frame -----------------------------------------------------------------------------

export const PREFACE = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
export const DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8, CONTINUATION = 9;
export const END_STREAM = 1, ACK = 1, END_HEADERS = 4;

export function frame(type, flags, stream, payload = Buffer.alloc(0)) {
    const head = Buffer.alloc(9);
    head.writeUIntBE(payload.length, 0, 3);
    head[3] = type;
    head[4] = flags;
    head.writeUInt32BE(stream, 5);
    return Buffer.concat([head, payload]);
}

/** Header fields as HPACK literals that nobody remembers. */
export function block(fields) {
    const text = (value) => {
        const bytes = Buffer.from(value);
        if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes]);
        const size = [127];
        let rest = bytes.length - 127;
        for (; rest >= 128; rest = Math.floor(rest / 128)) size.push((rest % 128) | 128);
        return Buffer.concat([Buffer.from([...size, rest]), bytes]);
    };
    return Buffer.concat(Object.entries(fields).map(([name, value]) => Buffer.concat([Buffer.from([0]), text(name), text(value)])));
}

export const grpcFields = (path, more = {}) => ({
    ":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost",
    "content-type": "application/grpc", te: "trailers", ...more,
});

/** A socket that collects the frames it is sent. */
export class Socket {
    frames = [];
    ended = false;
    #rest = Buffer.alloc(0);

    constructor(server, { reading = true } = {}) {
        this.socket = connectTcp(server.port, "127.0.0.1");
        this.socket.setNoDelay(true);
        this.socket.on("error", () => (this.ended = true));
        this.socket.on("close", () => (this.ended = true));
        this.closed = new Promise((resolve) => this.socket.once("close", resolve));
        if (reading) this.socket.on("data", (chunk) => this.#take(chunk));
        else this.socket.pause();
        after(() => this.socket.destroy());
    }

    #take(chunk) {
        this.#rest = Buffer.concat([this.#rest, chunk]);
        while (this.#rest.length >= 9 && this.#rest.length >= 9 + this.#rest.readUIntBE(0, 3)) {
            const size = this.#rest.readUIntBE(0, 3);
            this.frames.push({
                type: this.#rest[3], flags: this.#rest[4], stream: this.#rest.readUInt32BE(5) & 0x7fffffff,
                payload: this.#rest.subarray(9, 9 + size),
            });
            this.#rest = this.#rest.subarray(9 + size);
        }
    }

    /** Write; whether it is all on its way before the socket ends. */
    write(bytes) {
        return new Promise((resolve) => {
            if (this.ended) return resolve(false);
            this.socket.once("close", () => resolve(false));
            this.socket.write(bytes, (error) => resolve(!error));
        });
    }

    open() {
        return this.write(Buffer.concat([PREFACE, frame(SETTINGS, 0, 0)]));
    }

    has(type, stream) {
        return this.frames.some((each) => each.type === type && (stream === undefined || each.stream === stream));
    }

    destroy() {
        this.socket.destroy();
    }
}
