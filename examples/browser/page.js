// Loads the dense file and the sparse one, shows what they say of the images, and times both by turns.
import { Tensor, loadAndCompile, loadLiteRt } from "./node_modules/@litertjs/core/dist/index.js";

const ROUNDS = 60;
const CALLS = 10;  // in a round: browsers round their clock
const SIDE = 32;
const find = (id) => document.getElementById(id);
const median = (numbers) => numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)];

function make(tag, text, className = "") {
  const element = Object.assign(document.createElement(tag), { textContent: text, className });
  return element;
}

async function fetchFile(name) {
  const answer = await fetch(`files/${name}`);
  if (!answer.ok) throw new Error(`files/${name} is not there: run train.py first`);
  return answer;
}

async function load(name) {
  const model = await loadAndCompile(new Uint8Array(await (await fetchFile(name)).arrayBuffer()), { accelerator: "wasm" });
  return { model, input: model.getInputDetails()[0].name };
}

// The numbers that a network gives the classes.
async function run({ model, input }, tensor) {
  const [output] = Object.values(await model.run({ [input]: tensor }));
  const numbers = Array.from(output.toTypedArray());
  output.delete();
  return numbers;
}

function decode(pixels) {
  return Uint8Array.from(atob(pixels), (character) => character.charCodeAt(0));
}

function draw(pixels) {
  const canvas = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE });
  const image = new ImageData(SIDE, SIDE);
  for (let i = 0; i < SIDE * SIDE; i++) image.data.set([...pixels.subarray(3 * i, 3 * i + 3), 255], 4 * i);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function describe(name, title, { bytes, right, tested }) {
  const card = make("article", "", `network ${name}`);
  card.append(make("h3", title), make("div", "…", "milliseconds"));
  const bar = make("div", "", "bar");
  bar.append(make("div", ""));
  const facts = make("dl", "");
  const rows = { File: `${(bytes / 1024).toFixed(0)} KB`, Right: `${(100 * right).toFixed(1)}% of ${tested} images` };
  for (const [term, value] of Object.entries(rows)) facts.append(make("dt", term), make("dd", value));
  card.append(bar, facts);
  return card;
}

// Milliseconds of a call of each network, by turns.
async function measure(networks, tensor) {
  const times = Object.fromEntries(Object.keys(networks).map((name) => [name, []]));
  for (let round = -5; round < ROUNDS; round++) {
    for (const [name, network] of Object.entries(networks)) {
      const start = performance.now();
      for (let i = 0; i < CALLS; i++) await run(network, tensor);
      if (round >= 0) times[name].push((performance.now() - start) / CALLS);  // the first rounds warm up
    }
    if (round % 10 === 0) await new Promise((resolve) => setTimeout(resolve));  // lets the page be drawn
  }
  return times;
}

function showTimes(times) {
  const medians = Object.fromEntries(Object.entries(times).map(([name, numbers]) => [name, median(numbers)]));
  const longest = Math.max(...Object.values(medians));
  for (const [name, milliseconds] of Object.entries(medians)) {
    const card = document.querySelector(`.${name}`);
    card.querySelector(".milliseconds").textContent = `${milliseconds.toFixed(2)} ms`;
    card.querySelector(".bar div").style.width = `${(100 * milliseconds) / longest}%`;
  }
  const ratio = medians.dense / medians.sparse;
  find("gain").textContent = `The sparse file takes ${(1 / ratio).toFixed(2)} of the dense one's time an image.`;
}

async function main() {
  const shown = await (await fetchFile("shown.json")).json();
  await loadLiteRt("./node_modules/@litertjs/core/wasm/", { threads: false });
  const networks = { dense: await load("dense.tflite"), sparse: await load("sparse.tflite") };
  const percent = `${(100 * shown.sparsity).toFixed(0)}%`;
  find("what").textContent =
    `CIFAR-10, WebAssembly on one thread. Medians of ${ROUNDS} rounds by turns, milliseconds an image.`;
  find("networks").append(
    describe("dense", "Not pruned", shown.networks.dense),
    describe("sparse", `Pruned: ${percent} of the 1x1 kernels zero`, shown.networks.sparse),
  );

  const tensors = [];
  for (const { label, pixels } of shown.images) {
    const bytes = decode(pixels);
    const tensor = new Tensor(Float32Array.from(bytes), [1, SIDE, SIDE, 3]);
    const figure = document.createElement("figure");
    figure.append(draw(bytes), make("strong", label));
    for (const [name, network] of Object.entries(networks)) {
      const numbers = await run(network, tensor);
      const said = shown.classes[numbers.indexOf(Math.max(...numbers))];
      figure.append(make("div", `${name}: ${said}`, said === label ? "" : "wrong"));
    }
    find("images").append(figure);
    tensors.push(tensor);
  }

  const again = find("again");
  again.onclick = async () => {
    again.disabled = true;
    showTimes(await measure(networks, tensors[0]));
    again.disabled = false;
    document.body.dataset.ready = "yes";  // screenshot.mjs waits for it
  };
  await again.onclick();
}

main().catch((error) => {
  find("what").textContent = error.message;
  document.body.dataset.ready = "no";
});
