// The examples that pages show: each is run, and prints what stands below it.
// clients: kurrentdb
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { MODULES, ROOT, serve } from "./support.js";

const server = await serve();

/** [code, output] of each block of JavaScript in a page. */
function examples(page) {
    const text = readFileSync(join(ROOT, page), "utf8");
    return [...text.matchAll(/^```js\n(.*?)^```\n+```(?:text)?\n(.*?)^```$/gms)].map(([, code, output]) => [code, output]);
}

/** Run it where the packages are. */
async function run(code) {
    const file = join(MODULES, `page-${process.pid}.mjs`);
    writeFileSync(file, code.replaceAll("localhost:2113", server.address));
    try {
        return (await promisify(execFile)(process.execPath, [file], { timeout: 60000 })).stdout;
    } finally {
        rmSync(file);
    }
}

// The README's tour has these in front of it (tests/integration/tour.py).
for (const type of ["OrderCreated", "OrderLineItemAdded"]) await server.http("POST", "/streams/order-1001", { type, data: {} });

for (const page of ["README.md", "docs/protocol/kurrentdb.md"]) {
    const found = examples(page);
    test(`${page} has examples`, () => assert.ok(found.length > 0));
    for (const [n, [code, output]] of found.entries()) {
        test(`${page}, example ${n + 1}`, async () => assert.equal(await run(code), output));
    }
}
