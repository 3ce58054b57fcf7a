// Real TensorFlow.js answers: node answer.mjs JOBS.json
//
// JOBS: {modules, jobs: [{folder, inputs: [{shape, dtype, file}], count, batch, output, layers}]}.
// Inputs are raw float32 or int32 files of `count` examples each. The answers are written likewise
// as float32 to `output` + "0.f32", "1.f32", ...; with `layers`, a list of names, what those layers
// put out instead of what the model does. Standard output gets one line of JSON, a list with one
// object a job: {seconds_per_example (warm), outputs: [{name, shape}], backend} or {error, layers}.
import {readFileSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';

const {modules, jobs} = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const require = createRequire(join(modules, 'here.js'));
const tf = require('@tensorflow/tfjs');
require('@tensorflow/tfjs-backend-wasm');

// WebAssembly's are wrong: of negative numbers the largest is 0, and strides are mixed up.
for (const kernel of ['MaxPool3D', 'Conv3DBackpropInputV2']) {
  if (tf.getKernel(kernel, 'wasm')) tf.unregisterKernel(kernel, 'wasm');
}

// TensorFlow.js does not say which layer an error comes from.
const named = (layer, act) => {
  try {
    return act();
  } catch (error) {
    throw Object.assign(error, {layers: [...(error.layers || []), layer]}); // the innermost first
  }
};
for (const entry of Object.values(tf.serialization.SerializationMap.getMap().classNameMap)) {
  const make = entry[1];
  entry[1] = (kind, config, ...rest) => named(config.name, () => make(kind, config, ...rest));
}
const apply = tf.layers.Layer.prototype.apply;
tf.layers.Layer.prototype.apply = function(...given) {
  return named(this.name, () => apply.call(this, ...given));
};

// What a browser's loader fetches, read from the folder.
const files = (folder) => ({
  async load() {
    const model = JSON.parse(readFileSync(join(folder, 'model.json'), 'utf8'));
    const paths = model.weightsManifest.flatMap((group) => group.paths);
    const shards = paths.map((path) => readFileSync(join(folder, path)));
    const bytes = shards.length === 1 ? shards[0] : Buffer.concat(shards);
    return {
      ...model,
      weightSpecs: model.weightsManifest.flatMap((group) => group.weights),
      weightData: bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length),
    };
  },
});

async function load(folder, layers) {
  const {format, signature} = JSON.parse(readFileSync(join(folder, 'model.json'), 'utf8'));
  if (format === 'graph-model') {
    const model = await tf.loadGraphModel(files(folder));
    const names = Object.keys(signature.outputs);
    return {model, names, run: async (batch) => {
      try {
        return model.execute(batch);
      } catch (error) {
        if (!/executeAsync/.test(error.message)) throw error;
        return model.executeAsync(batch); // loops: recurrent layers
      }
    }};
  }
  let model = await tf.loadLayersModel(files(folder));
  if (layers) {
    const outputs = layers.map((name) => model.getLayer(name).output);
    model = tf.model({inputs: model.inputs, outputs});
  }
  return {model, names: layers || model.outputNames, run: async (batch) => model.predict(batch)};
}

async function answer({folder, inputs, count, batch, output, layers}) {
  const {model, names, run} = await load(folder, layers);
  const arrays = inputs.map(({shape, dtype, file}) => {
    const bytes = readFileSync(file);
    const Kind = dtype === 'int32' ? Int32Array : Float32Array;
    return {shape, dtype, size: shape.reduce((a, b) => a * b, 1),
      values: new Kind(bytes.buffer, bytes.byteOffset, bytes.length / 4)};
  });
  const part = async (from) => {
    const to = Math.min(from + batch, count);
    const tensors = arrays.map(({shape, dtype, size, values}) =>
      tf.tensor(values.subarray(from * size, to * size), [to - from, ...shape], dtype));
    const found = await run(tensors.length === 1 ? tensors[0] : tensors);
    const outputs = Array.isArray(found) ? found : [found];
    const read = outputs.map((tensor) => ({shape: tensor.shape, values: tensor.dataSync()}));
    tf.dispose([tensors, outputs]);
    return read;
  };
  const warm = count > batch ? await part(0) : null; // compiles and allocates
  const started = performance.now();
  const parts = [];
  for (let from = 0; from < count; from += batch) parts.push(await part(from));
  const seconds = (performance.now() - started) / 1000;
  const outputs = parts[0].map(({shape}, i) => {
    const values = parts.map((found) => Float32Array.from(found[i].values));
    writeFileSync(`${output}${i}.f32`, Buffer.concat(values.map((v) => Buffer.from(v.buffer))));
    return {name: names[i], shape: shape.slice(1)};
  });
  model.dispose();
  return {seconds_per_example: seconds / count, outputs};
}

const told = [];
for (const job of jobs) {
  // WebAssembly lacks a few kernels (Conv3D, softplus, ...) that plain JavaScript has.
  for (const backend of ['wasm', 'cpu']) {
    await tf.setBackend(backend);
    try {
      told.push({...await answer(job), backend});
    } catch (error) {
      if (backend === 'wasm') continue;
      told.push({error: error.message, layers: error.layers || []});
    }
    break;
  }
}
console.log(JSON.stringify(told));
