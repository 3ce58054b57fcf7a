// Real TensorFlow.js answers: node answer.mjs JOBS.json
//
// JOBS: {modules, jobs: [{folder, files, shapes: one an input, count}]}.
// Inputs are raw float32 files of `count` examples each, `files` + "-in0.f32", "-in1.f32", ...
// The answers are written likewise, "-out0.f32", ... Standard output gets one line of JSON, a list
// with one object a job: {seconds_per_example (warm), shapes: one an output} or {error, layers}.
import {closeSync, openSync, readFileSync, readSync, statSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';

const {modules, jobs} = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const require = createRequire(join(modules, 'here.js'));
const tf = require('@tensorflow/tfjs');
require('@tensorflow/tfjs-backend-wasm');

// WebAssembly's are wrong: of negative numbers the largest is 0, strides are mixed up, and whole
// numbers stand where floating point ones are read.
for (const kernel of ['MaxPool3D', 'Conv3DBackpropInputV2', 'OneHot']) {
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
const classes = tf.serialization.SerializationMap.getMap().classNameMap;
for (const entry of Object.values(classes)) {
  const make = entry[1];
  entry[1] = (kind, config, ...rest) => named(config.name, () => make(kind, config, ...rest));
}
const apply = tf.layers.Layer.prototype.apply;
tf.layers.Layer.prototype.apply = function(...given) {
  return named(this.name, () => apply.call(this, ...given));
};
const write = tf.LayerVariable.prototype.write;
tf.LayerVariable.prototype.write = function(value) {
  return named(this.originalName.split('/')[0], () => write.call(this, value));
};
function check({class_name: kind, config}) {
  named(config.name, () => {
    if (!(classes[kind]?.[0].prototype instanceof tf.layers.Layer)) {
      throw new Error('it has no such layer'); // Identity is an initializer
    }
  });
  const {layers = [], cells = [], layer, cell} = config;
  for (const inner of [...layers, ...cells, layer, cell]) if (inner?.class_name) check(inner);
}

// What a browser's loader fetches, read from the folder.
const saved = (folder) => ({
  async load() {
    const model = JSON.parse(readFileSync(join(folder, 'model.json'), 'utf8'));
    const paths = model.weightsManifest.flatMap((group) => group.paths);
    const sizes = paths.map((path) => statSync(join(folder, path)).size);
    // Each weight is read when it is asked for: one copy less of what may be large.
    tf.io.CompositeArrayBuffer.prototype.slice = (start, end) => {
      const bytes = new Uint8Array(end - start);
      paths.reduce((first, path, i) => {
        const [from, to] = [Math.max(start, first), Math.min(end, first + sizes[i])];
        if (from < to) {
          const file = openSync(join(folder, path));
          readSync(file, bytes, from - start, to - from, from - first);
          closeSync(file);
        }
        return first + sizes[i];
      }, 0);
      return bytes.buffer;
    };
    return {
      ...model,
      weightSpecs: model.weightsManifest.flatMap((group) => group.weights),
      weightData: new ArrayBuffer(0),
    };
  },
});

async function load(folder) {
  const content = JSON.parse(readFileSync(join(folder, 'model.json'), 'utf8'));
  const {format, modelTopology, error} = content;
  if (error) throw new Error(error); // what could not be written
  if (format === 'graph-model') {
    const model = await tf.loadGraphModel(saved(folder));
    return {model, run: async (batch) => {
      try {
        return model.execute(batch);
      } catch (error) {
        if (!/executeAsync/.test(error.message)) throw error;
        return model.executeAsync(batch); // loops: recurrent layers
      }
    }};
  }
  check(modelTopology.model_config);
  const model = await tf.loadLayersModel(saved(folder)).catch((error) => {
    const [, layer] = /no target variable: ([^/]+)/.exec(error.message) ?? [];
    throw layer ? Object.assign(error, {layers: [layer]}) : error;
  });
  return {model, run: async (batch) => model.predict(batch)};
}

async function answer({folder, files, shapes, count}) {
  const {model, run} = await load(folder);
  const arrays = shapes.map((shape, i) => {
    const bytes = readFileSync(`${files}-in${i}.f32`);
    return {shape, size: shape.reduce((a, b) => a * b, 1),
      values: new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4)};
  });
  const largest = Math.max(...arrays.map(({size}) => size));
  const batch = Math.max(1, Math.min(250, Math.floor(1e6 / largest))); // bounds the memory
  const part = async (from) => {
    const to = Math.min(from + batch, count);
    const tensors = arrays.map(({shape, size, values}, i) => tf.tidy(() =>
      tf.tensor(values.subarray(from * size, to * size), [to - from, ...shape])
        .cast(model.inputs[i].dtype)));
    const found = await run(tensors.length === 1 ? tensors[0] : tensors);
    const outputs = Array.isArray(found) ? found : [found];
    const read = outputs.map((tensor) => ({shape: tensor.shape, values: tensor.dataSync()}));
    tf.dispose([tensors, outputs]);
    return read;
  };
  if (count > batch) await part(0); // compiles and allocates
  const started = performance.now();
  const parts = [];
  for (let from = 0; from < count; from += batch) parts.push(await part(from));
  const seconds = (performance.now() - started) / 1000;
  const found = parts[0].map(({shape}, i) => {
    const bytes = parts.map((part) => Buffer.from(Float32Array.from(part[i].values).buffer));
    writeFileSync(`${files}-out${i}.f32`, Buffer.concat(bytes));
    return shape.slice(1);
  });
  model.dispose();
  return {seconds_per_example: seconds / count, shapes: found};
}

// A kernel of WebAssembly may abort. Its job says so; what that had still under way fails later,
// and must not end the process, as the back end would have it.
await tf.setBackend('wasm');
process.removeAllListeners('unhandledRejection').on('unhandledRejection', () => {});

const told = [];
for (const job of jobs) {
  // WebAssembly lacks a few kernels (Conv3D, softplus, ...) that plain JavaScript has.
  for (const backend of ['wasm', 'cpu']) {
    try {
      await tf.setBackend(backend);
      told.push(await answer(job));
    } catch (error) {
      if (error.code === 'ENOSPC') throw error;
      if (backend === 'wasm') continue;
      told.push({error: error.message, layers: error.layers || []});
    }
    break;
  }
}
console.log(JSON.stringify(told));
