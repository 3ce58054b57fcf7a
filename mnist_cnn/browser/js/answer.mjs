// Real TensorFlow.js answers: node answer.mjs JOB.json
//
// JOB: {modules, folder, format, inputs: [{shape, file}], count, batch, output}. Inputs are raw
// float32 files of `count` examples each; the answers are written likewise to `output` + "0.f32",
// "1.f32", ..., and a line of JSON tells the seconds per example, warm, and the output shapes.
import {readFileSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';

const job = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const require = createRequire(join(job.modules, 'here.js'));
const tf = require('@tensorflow/tfjs');
require('@tensorflow/tfjs-backend-wasm');
await tf.setBackend('wasm');

// What a browser's loader fetches, read from the folder.
const files = {
  async load() {
    const model = JSON.parse(readFileSync(join(job.folder, 'model.json'), 'utf8'));
    const paths = model.weightsManifest.flatMap((group) => group.paths);
    const shards = paths.map((path) => readFileSync(join(job.folder, path)));
    return {
      modelTopology: model.modelTopology,
      format: model.format,
      signature: model.signature,
      weightSpecs: model.weightsManifest.flatMap((group) => group.weights),
      weightData: new Uint8Array(Buffer.concat(shards)).buffer,
    };
  },
};
const graph = job.format === 'tfjs_graph_model';
const model = await (graph ? tf.loadGraphModel(files) : tf.loadLayersModel(files));

const inputs = job.inputs.map(({shape, file}) => {
  const bytes = readFileSync(file);
  return {shape, size: shape.reduce((a, b) => a * b, 1),
    values: new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)};
});

const answer = (from, to) => tf.tidy(() => {
  const batch = inputs.map(({shape, size, values}) =>
    tf.tensor(values.subarray(from * size, to * size), [to - from, ...shape]));
  const outputs = model.predict(batch.length === 1 ? batch[0] : batch);
  return (Array.isArray(outputs) ? outputs : [outputs]).map((tensor) => ({
    shape: tensor.shape.slice(1), values: tensor.dataSync()}));
});

try {
  answer(0, Math.min(job.batch, job.count)); // compiles and allocates
} catch (error) {
  if (!/not registered/.test(error.message)) throw error;
  await tf.setBackend('cpu'); // WebAssembly lacks a few kernels: Conv3D, softplus, ...
  answer(0, Math.min(job.batch, job.count));
}
const started = performance.now();
const batches = [];
for (let from = 0; from < job.count; from += job.batch) {
  batches.push(answer(from, Math.min(from + job.batch, job.count)));
}
const seconds = (performance.now() - started) / 1000;

const shapes = batches[0].map(({shape}) => shape);
shapes.forEach((_, i) => {
  const parts = batches.map((outputs) => Buffer.from(Float32Array.from(outputs[i].values).buffer));
  writeFileSync(`${job.output}${i}.f32`, Buffer.concat(parts));
});
console.log(JSON.stringify({seconds_per_image: seconds / job.count, shapes}));
