// node run.mjs FOLDER: runs the TFLite files that FOLDER/job.json names in LiteRT.js in a headless Chromium, and writes
// FOLDER/result.json: for each file what it answers or the error, and with "rounds" the milliseconds of each call.
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { chromium } from "playwright-core";

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm" };
const HERE = import.meta.dirname;
const folder = process.argv[2];
const job = JSON.parse(await readFile(join(folder, "job.json"), "utf8"));

const server = createServer(async (request, response) => {
  const path = normalize(new URL(request.url, "http://localhost").pathname);
  const home = path.startsWith("/job/") ? join(folder, path.slice(5)) : join(HERE, path);
  try {
    const body = await readFile(home);
    response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "application/octet-stream" }).end(body);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu"],
});
const lines = [];  // what the page wrote to its console since this was last emptied
const faults = () => lines.splice(0).filter((line) => /^(ERROR|error:|Aborted)/.test(line));

// What a step of the page answers. A fault on the console is an error, whatever the step itself answered.
async function attempt(step) {
  lines.length = 0;
  try {
    const answer = await step();
    const found = faults();
    return found.length ? { error: found.join("; ") } : { answer };
  } catch (error) {
    return { error: [...faults(), error.message.split("\n")[0]].join("; ") };
  }
}

async function openPage() {
  const page = await browser.newPage();
  page.on("console", (message) => lines.push(message.text()));
  page.on("pageerror", (error) => lines.push(`error: ${error.message}`));
  await page.goto(`http://127.0.0.1:${server.address().port}/page.html`);
  await page.waitForFunction(() => window.loadRuntime);
  await page.evaluate(() => window.loadRuntime());
  return page;
}

const result = { browser: browser.version(), files: {}, times: {} };
try {
  let page = await openPage();
  const loaded = [];
  for (const file of job.files) {
    const isLoaded = await attempt(() => page.evaluate((file) => window.loadFile(file), file));
    const outcome = isLoaded.error ? isLoaded : await attempt(() => page.evaluate((n) => window.runFile(n), file.name));
    result.files[file.name] = outcome;
    if (!outcome.error) loaded.push(file);
    else if (job.rounds === 0) {  // the runtime may be left in disorder
      await page.close();
      page = await openPage();
    }
  }
  if (job.rounds > 0) {
    await page.close();
    page = await openPage();
    for (const file of loaded) await page.evaluate((file) => window.loadFile(file), file);
    const names = loaded.map((file) => file.name);
    result.times = await page.evaluate(
      ([names, rounds, repeats]) => window.timeFiles(names, rounds, repeats),
      [names, job.rounds, job.repeats],
    );
  }
} finally {
  await browser.close();
  server.close();
}
await writeFile(join(folder, "result.json"), JSON.stringify(result));
