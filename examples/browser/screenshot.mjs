// node screenshot.mjs FILE.png: opens the page in a headless Chromium, prints what it says, and draws it into a file.
// The program is the one that the variable CHROMIUM names, or /usr/bin/chromium.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { chromium } from "playwright-core";

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm" };
const SECONDS = 120;
const fail = (error) => { console.error(error.message); process.exit(1); };  // which ends the browser too
process.on("unhandledRejection", fail);
setTimeout(() => fail(new Error(`the page took longer than ${SECONDS} seconds`)), 1000 * SECONDS).unref();

const server = createServer(async (request, response) => {
  const path = normalize(new URL(request.url, "http://localhost").pathname);
  try {
    const body = await readFile(join(import.meta.dirname, path));
    response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "application/octet-stream" }).end(body);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
const page = await browser.newPage({ viewport: { width: 900, height: 760 } });
const lines = [];
page.on("console", (message) => lines.push(message.text()));
await page.goto(`http://127.0.0.1:${server.address().port}/index.html`);
await page.waitForFunction(() => document.body.dataset.ready, null, { timeout: 1000 * SECONDS });
const faults = lines.filter((line) => /^(ERROR|error:|Aborted)/.test(line));
if (faults.length || (await page.evaluate(() => document.body.dataset.ready)) !== "yes") {
  fail(new Error([await page.textContent("#what"), ...faults].join("\n")));
}
await page.waitForTimeout(500);  // the bars grow
console.log(await page.innerText("#networks"));
console.log(await page.textContent("#gain"));
if (process.argv[2]) await page.screenshot({ path: process.argv[2] });
process.exit(0);
