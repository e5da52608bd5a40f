// node run.mjs FOLDER: runs the TFLite files that FOLDER/job.json names in LiteRT.js in a headless Chromium, and writes
// FOLDER/result.json: for each file what it answers or the error, and with "rounds" the milliseconds of each call.
// Each step has "step_seconds", and the whole run "seconds": past these the process ends with what the runtime said.
import { readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { chromium } from "playwright-core";

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm" };
const HERE = import.meta.dirname;
const folder = process.argv[2];
const job = JSON.parse(await readFile(join(folder, "job.json"), "utf8"));

const lines = [];  // what pages wrote to their consoles since this was last emptied
const findFaults = () => lines.filter((line) => /^(ERROR|error:|Aborted)/.test(line));

// Playwright kills its browsers when the process exits.
function exit(error) {
  const said = lines.length ? `\nthe page's console:\n${lines.slice(-20).join("\n")}` : "";
  console.error(`${error.message}${said}`);
  process.exit(1);
}
process.on("unhandledRejection", exit);
process.on("uncaughtException", exit);
setTimeout(() => exit(new Error(`the run took longer than ${job.seconds} seconds`)), 1000 * job.seconds).unref();

// What a promise gives, or an error once it takes too long.
function limit(what, promise, seconds = job.step_seconds) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took longer than ${seconds} seconds`)), 1000 * seconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

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

// A browser of its own for each page: one whose page hangs or crashed may not open another.
async function openPage() {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
    timeout: 1000 * job.step_seconds,
  });
  const page = await browser.newPage();
  page.on("console", (message) => lines.push(message.text()));
  page.on("pageerror", (error) => lines.push(`error: ${error.message}`));
  await page.goto(`http://127.0.0.1:${server.address().port}/page.html`);
  await page.waitForFunction(() => window.loadRuntime);
  await page.evaluate(() => window.loadRuntime());
  return page;
}

const open = () => limit("opening the page", openPage(), 2 * job.step_seconds);
// A browser that does not close is killed when this process ends.
const close = (page) => limit("closing the browser", page.context().browser().close()).catch(() => {});

// What a step of the page answers. A fault on the console is an error, whatever the step itself answered.
async function attempt(what, step) {
  lines.length = 0;
  try {
    const answer = await limit(what, step());
    return findFaults().length ? { error: findFaults().join("; ") } : { answer };
  } catch (error) {
    return { error: [...findFaults(), error.message.split("\n")[0]].join("; ") };
  }
}

const result = { files: {}, times: {} };
let page = await open();
const loaded = [];
for (const file of job.files) {
  const isLoaded = await attempt("loading", () => page.evaluate((file) => window.loadFile(file), file));
  const outcome = isLoaded.error
    ? isLoaded
    : await attempt("running", () => page.evaluate((name) => window.runFile(name), file.name));
  result.files[file.name] = outcome;
  if (!outcome.error) loaded.push(file);
  else {  // the runtime may be left in disorder
    await close(page);
    page = await open();
  }
}
await close(page);
if (job.rounds > 0 && loaded.length) {
  lines.length = 0;
  page = await open();
  for (const file of loaded) await limit("loading", page.evaluate((file) => window.loadFile(file), file));
  const names = loaded.map((file) => file.name);
  result.times = await page.evaluate(  // the limit of the whole run is its limit
    ([names, rounds, repeats]) => window.timeFiles(names, rounds, repeats),
    [names, job.rounds, job.repeats],
  );
  await close(page);
}
await writeFile(join(folder, "result.json"), JSON.stringify(result));
process.exit(0);
