// SPDX-License-Identifier: Apache-2.0
// The dashboard as its reader sees it, in headless Chromium; started by dashboard.sh.
import assert from "node:assert/strict";
import {spawn} from "node:child_process";
import {readFileSync, writeFileSync} from "node:fs";
import {createServer} from "node:http";
import {createInterface} from "node:readline";
import {chromium} from "playwright-core";

const [source, scratch] = process.argv.slice(2);
const shots = `${source}/build/dashboard`;
const ROUNDS = 6;
const TOPOLOGY = `
tiered: 1
name: press-line
run: {rounds: ${ROUNDS}, seed: 11}
tiers:
  - name: cloud
    aggregate: [fedavg, {fedadam: {lr: 0.01}}]
  - name: fog
    fan_out: 2
    aggregate: [fedavg]
    rounds: {per_parent_round: 2}
    uplink: [zstd]
  - name: edge
    fan_out: 3
    trainer: {test-trainer: {parameters: 20000, delay_ms: 700}}
    uplink: [zstd]
`;
const HOSTILE = "<img src=x onerror='window.hit = 1'><b>why</b>";

// ---- browser ----

const browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-sync", "--disable-component-update", "--no-first-run"],
});

async function open(url, width, height, colorScheme = "light") {
    const context = await browser.newContext({viewport: {width, height}, colorScheme});
    const page = await context.newPage();
    page.setDefaultTimeout(30000);
    page.errors = [];
    page.on("pageerror", error => page.errors.push(error.message));
    await page.goto(url);
    return page;
}

const shoot = (page, name) => page.screenshot({path: `${shots}/${name}.png`, fullPage: true});
const textOf = (page, selector) => page.locator(selector).innerText();
const waitFor = (page, selector, text) =>
    page.locator(selector).filter({hasText: text}).first().waitFor();

async function fits(page, width) {
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= width, `the page is ${wide} px wide on a screen of ${width}`);
}

// ---- a real run ----

function startRun() {
    writeFileSync(`${scratch}/topology.yaml`, TOPOLOGY);
    const child = spawn(`${source}/build/bin/tiered`, ["up", `${scratch}/topology.yaml`,
        "--plugins", `${scratch}/plugins`, "--runs", `${scratch}/runs`, "--json"],
    {stdio: ["ignore", "pipe", "inherit"]});
    const run = {events: [], child};
    run.over = new Promise(resolve => child.on("exit", resolve));
    run.started = new Promise((resolve, reject) => {
        createInterface({input: child.stdout}).on("line", line => {
            run.events.push(JSON.parse(line));
            resolve(run.events[0]);
        });
        child.on("exit", () => reject(new Error("the run ended before it began")));
    });
    return run;
}

async function checkWhileItRuns(page) {
    for (const name of ["cloud-0", "fog-1", "edge-0-0", "edge-1-2"]) {
        await waitFor(page, `[data-node="${name}"]`, name);
    }
    await waitFor(page, "[data-node^=edge] .state", "training");
    await waitFor(page, '[data-node="cloud-0"] .state', "collecting");
    await page.locator(".plot .point").first().waitFor();
    await page.waitForFunction(() => /^[1-9]/.test(document.getElementById("round").textContent));
}

async function checkDetails(page) {
    await page.locator('[data-node="cloud-0"]').click();
    await waitFor(page, "#details", "of 2 updates; waits for");
    const details = await textOf(page, "#details");
    for (const word of ["Agent", "Bytes up", "Bytes down", "Last sign of life", "ago"]) {
        assert.ok(details.includes(word), `the details lack "${word}": ${details}`);
    }
}

async function checkHover(page) {
    const box = await page.locator(".plot").first().boundingBox();
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
    await page.locator(".tip:visible").first().waitFor();
    assert.match(await textOf(page, ".tip:visible"), /round [\d.]+: [\d.e-]+/);
}

async function checkEnd(page, run) {
    await waitFor(page, "#status", "finished");
    assert.match(await textOf(page, "#notice"), /The run finished after 6 rounds.*keeps the last state/);
    assert.equal(await textOf(page, "#round"), `${ROUNDS} / ${ROUNDS}`);
    const accuracy = run.events.at(-1).metrics.accuracy;
    assert.equal(Number(await textOf(page, "#metric0")), Number(accuracy.toPrecision(4)));
    assert.match(await textOf(page, "#tiers"), /6 nodes\s+6 done/);
    assert.ok(!(await textOf(page, "#tree")).includes("lost"), "agents that stopped are shown as lost");
    assert.deepEqual(await page.locator("figure h3").allInnerTexts().then(list => list.sort()),
        ["Accuracy", "Bytes per round", "Loss", "Seconds per round"]);
    const label = await page.locator('.plot[aria-label^="Accuracy"]').getAttribute("aria-label");
    assert.ok(label.includes(`at round ${ROUNDS}`), label);
    assert.deepEqual(page.errors, []);
}

async function aRunIsFollowedToItsEnd() {
    const run = startRun();
    const first = await run.started;
    const stream = fetch(`${first.http}api/events`).then(answer => answer.text());
    stream.catch(() => {}); // a stream that is cut off fails where it is awaited
    const desktop = await open(first.http, 1280, 900);
    const phone = await open(first.http, 375, 800, "dark");
    await Promise.all([desktop, phone].map(checkWhileItRuns));
    const before = await textOf(desktop, "#round");
    await checkHover(desktop);
    await shoot(desktop, "desktop-running");
    await checkDetails(desktop);
    await checkDetails(phone);
    await phone.screenshot({path: `${shots}/phone-details.png`});
    await phone.keyboard.press("Escape");
    await desktop.keyboard.press("Escape");
    assert.ok(await desktop.locator("#details").isHidden(), "Escape does not close the details");
    process.kill(first.agents.find(a => a.name === "edge-1-2").pid, "SIGKILL");
    await waitFor(desktop, "#events", "agent edge-1-2 died: killed by signal 9");
    await desktop.waitForFunction(
        text => document.getElementById("round").textContent !== text, before);
    await shoot(phone, "phone-running");
    assert.equal(await run.over, 0);
    const last = (await stream).trim().split("\n\n").at(-1);
    assert.equal(JSON.parse(last.slice("data: ".length)).event, "run_finished");
    for (const [page, width, name] of [[desktop, 1280, "desktop"], [phone, 375, "phone"]]) {
        await checkEnd(page, run);
        await fits(page, width);
        await shoot(page, `${name}-finished`);
    }
    await desktop.context().close();
    await phone.context().close();
}

// ---- a large tree, from a server of our own ----

function largeTree() {
    const node = (name, tier, parent, more) => ({node: name, tier, parent, agent: name,
        connected: true, state: "training", path: "3.1", progress: 0.4, bytes_up: 123456,
        bytes_down: 234567, why: "", silent_seconds: 0.3, ...more});
    const list = [node("cloud-0", "cloud", "", {state: "collecting", path: "3", why: HOSTILE})];
    for (let f = 0; f < 9; f++) {
        list.push(node(`fog-${f}`, "fog", "cloud-0", {state: "collecting"}));
    }
    for (let e = 0; e < 990; e++) { // fog-0 has 190 children, the others 100
        const fog = e < 190 ? 0 : 1 + Math.floor((e - 190) / 100);
        list.push(node(`edge-${e}`, "edge", `fog-${fog}`, e % 7 ? {} : {connected: false}));
    }
    return list;
}

function serve(port, nodes) {
    const rounds = [1, 2].map(r => ({event: "round_committed", node: "cloud-0", tier: "cloud",
        round: r, path: String(r), contributions: 9, num_examples: 90, metrics: {mae: 4 / r},
        bytes_up: 1e6, bytes_down: 2e6, seconds: 3}));
    const run = {run: "large-1", name: "large", status: "running", started: new Date(),
        rounds: 2, rounds_total: 50, metrics: {mae: 2}, model: null, generation: 1,
        tiers: [{name: "cloud", nodes: 1}, {name: "fog", nodes: 9}, {name: "edge", nodes: 990}]};
    const json = {"/api/run": run, "/api/nodes": nodes, "/api/rounds": rounds};
    const server = createServer((request, response) => {
        if (request.url === "/") {
            response.setHeader("Content-Type", "text/html");
            response.end(readFileSync(`${source}/orchestrator/dashboard/index.html`));
        } else if (request.url === "/api/events") {
            response.setHeader("Content-Type", "text/event-stream");
            const died = {event: "agent_died", name: "edge-5", reason: HOSTILE,
                restarted: true, time: new Date()};
            response.write(`retry: 500\n\ndata: ${JSON.stringify(died)}\n\n`);
        } else {
            response.end(JSON.stringify(json[request.url] ?? null));
        }
    });
    return new Promise(resolve => server.listen(port, "127.0.0.1", () => resolve(server)));
}

function stop(server) {
    server.closeAllConnections();
    return new Promise(resolve => server.close(resolve));
}

async function aLargeTreeIsFolded() {
    const server = await serve(0, largeTree());
    const url = `http://127.0.0.1:${server.address().port}/`;
    const page = await open(url, 1280, 900, "dark");
    await waitFor(page, ".more button", "and 140 more");
    const count = () => page.locator("[data-node]").count();
    assert.ok(await count() <= 300, `${await count()} nodes are on the page`);
    assert.match(await textOf(page, "#tiers"), /990 nodes\s+848 training\s+142 lost/);
    await page.locator(".more button", {hasText: "and 140 more"}).click();
    await waitFor(page, ".more button", "and 90 more");
    await page.locator('[data-node="cloud-0"]').click();
    await waitFor(page, "#details", HOSTILE); // as text
    await waitFor(page, "#events", HOSTILE);
    assert.equal(await page.evaluate(() => window.hit), undefined);
    assert.equal(await page.locator("img").count(), 0);
    await page.screenshot({path: `${shots}/large.png`});
    const narrow = await open(url, 360, 740);
    await waitFor(narrow, "#tree", "cloud-0");
    await narrow.locator(".plot .point").first().waitFor();
    await fits(narrow, 360);
    await shoot(narrow, "large-phone");
    assert.deepEqual([...page.errors, ...narrow.errors], []);
    await narrow.context().close();
    await stop(server);
    return page;
}

// The page of the test above outlives its server, and meets it again.
async function aLostServerIsTold(page) {
    const port = Number(new URL(page.url()).port);
    await waitFor(page, "#notice", "No answer for");
    await waitFor(page, "#status", "no answer");
    const nodes = largeTree().slice(0, 10);
    const server = await serve(port, nodes);
    await waitFor(page, "#alive", "10 / 10");
    await page.locator("#notice").waitFor({state: "hidden"});
    await stop(server);
}

let page;
const tests = {
    aRunIsFollowedToItsEnd,
    aLargeTreeIsFolded: async () => { page = await aLargeTreeIsFolded(); },
    aLostServerIsTold: () => aLostServerIsTold(page),
};
let failed = 0;
for (const [name, test] of Object.entries(tests)) {
    try {
        await test();
        console.log(`ok   ${name}`);
    } catch (error) {
        failed++;
        console.log(`FAIL ${name}\n${error.stack}`);
    }
}
await browser.close();
console.log(`${Object.keys(tests).length - failed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
