// Runs TFLite files in LiteRT.js, in WebAssembly on one thread. `run.mjs` calls these functions, and reads the console,
// where the runtime says what failed: its `run` hands back stale numbers then, and no error.
import { Tensor, loadAndCompile, loadLiteRt } from "/node_modules/@litertjs/core/dist/index.js";

const ARRAYS = { float32: Float32Array, int32: Int32Array, int8: Int8Array, uint8: Uint8Array, int64: BigInt64Array };
const runners = new Map();

async function fetchBytes(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.arrayBuffer();
}

window.loadRuntime = () => loadLiteRt("/node_modules/@litertjs/core/wasm/", { threads: false });

// Loads a file, and reads the inputs of one call of it.
window.loadFile = async ({ name, file, inputs }) => {
  const bytes = new Uint8Array(await fetchBytes(file));
  const model = await loadAndCompile(bytes, { accelerator: "wasm" });
  const tensors = {};
  for (const detail of model.getInputDetails()) {
    const input = inputs[detail.name];
    const numbers = new ARRAYS[input.dtype](await fetchBytes(input.file));
    tensors[detail.name] = new Tensor(numbers, input.shape);
  }
  runners.set(name, { model, tensors });
};

// What a file answers: by output its shape and its numbers.
window.runFile = async (name) => {
  const { model, tensors } = runners.get(name);
  const answers = {};
  for (const [output, tensor] of Object.entries(await model.run(tensors))) {
    const numbers = Array.from(tensor.toTypedArray(), Number);
    answers[output] = { shape: Array.from(tensor.type.layout.dimensions), numbers: numbers.map(spell) };
    tensor.delete();
  }
  return answers;
};

const spell = (number) => (Number.isFinite(number) ? number : String(number));  // JSON has no NaN

// Milliseconds of a call of each file, by turns, round after round.
window.timeFiles = async (names, rounds, repeats) => {
  const times = Object.fromEntries(names.map((name) => [name, []]));
  for (let round = -3; round < rounds; round++) {
    for (const name of names) {
      const { model, tensors } = runners.get(name);
      const start = performance.now();
      for (let i = 0; i < repeats; i++) {
        for (const tensor of Object.values(await model.run(tensors))) tensor.delete();
      }
      if (round >= 0) times[name].push((performance.now() - start) / repeats);  // the first three warm up
    }
  }
  return times;
};
