// TensorFlow.js with only the kernels and layers that the recipes need, made by esbuild.
import {createHash} from 'node:crypto';
import {existsSync, readFileSync, renameSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';

const TFJS = '@tensorflow/tfjs-';
const KERNELS = ['Add', 'Cast', 'FusedConv2D', 'Identity', 'MaxPool', 'Relu', 'Reshape', 'Slice',
  'Softmax', '_FusedMatMul'];
const LAYERS = ['advanced_activations', 'convolutional', 'core', 'normalization', 'pooling'];
const NODE = ['fs', 'path', 'worker_threads', 'perf_hooks', 'os', 'crypto', 'util', 'ws'];

// Of one back end and all kernels in it.
function backend(name, kernels) {
  const lines = kernels.map((kernel) => {
    const config = kernel.replace(/[A-Z]/, (letter) => letter.toLowerCase()) + 'Config';
    return `import {${config} as ${name}${kernel}} from '${TFJS}backend-${name}/dist/kernels/${kernel}';
      registerKernel(${name}${kernel});`;
  });
  return `import '${TFJS}backend-${name}/dist/base';\n${lines.join('\n')}`;
}

const CPU = backend('cpu', [...KERNELS, 'BatchNorm']);
const WASM = `${backend('wasm', [...KERNELS, 'FusedBatchNorm'])}
  import {setWasmPaths} from '${TFJS}backend-wasm/dist/backend_wasm';
  export const wasm = {setWasmPaths};`;
const REST = `import {registerKernel} from '${TFJS}core/dist/kernel_registry';
  ${LAYERS.map((name) => `import '${TFJS}layers/dist/layers/${name}';`).join('\n')}
  export {loadLayersModel} from '${TFJS}layers/dist/exports';
  export {tensor, tidy, zeros, setBackend, findBackendFactory} from '${TFJS}core';`;

const esbuild = (modules) => createRequire(join(modules, 'here.js'))('esbuild');

function built(modules, contents) {
  return esbuild(modules).build({
    stdin: {contents, resolveDir: modules}, absWorkingDir: modules, bundle: true, write: false,
    minify: true, metafile: true, format: 'iife', globalName: 'tf', target: 'es2020',
    legalComments: 'none', external: NODE,
  });
}

// The first comments of the files that say whose they are, and the licences of their packages.
function notices(modules, files) {
  const said = new Map();
  const packages = new Set();
  for (const file of files.filter((name) => name.startsWith('node_modules/'))) {
    const [comment] = readFileSync(join(modules, file), 'utf8').match(/\/\*[^]*?\*\//) ?? [''];
    if (/copyright|licen[cs]e/i.test(comment)) {
      const text = comment.replace(/^\/\*+|\*+\/$|^ ?\* ?|^ *=+$|@license/gm, '').trim();
      said.set(text.replace(/\s+/g, ' '), text);
    }
    packages.add(/^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(file)[1]);
  }
  const texts = [];
  const names = [...packages].sort().map((folder) => {
    const {name, version, license} = JSON.parse(
      readFileSync(join(modules, folder, 'package.json'), 'utf8'));
    const text = join(modules, folder, 'LICENSE');
    if (existsSync(text)) texts.push(readFileSync(text, 'utf8').trim());
    return `${name} ${version}: ${license}`;
  });
  return ['This page contains parts of these packages:', names.join('\n'), ...said.values(),
    ...new Set(texts)].join('\n\n');
}

// {served, single, notices}: code for index.html and for digits.html, and the notices of both and of
// the whole library. Made once, kept in `modules`.
async function light(modules) {
  const digest = createHash('sha256').update(readFileSync(fileURLToPath(import.meta.url)));
  const file = join(modules, `light-${digest.digest('hex').slice(0, 16)}.json`);
  if (!existsSync(file)) {
    const served = await built(modules, CPU + WASM + REST);
    const single = await built(modules, CPU + REST);
    const all = await built(modules, `import '${TFJS}backend-wasm'; import '@tensorflow/tfjs';`);
    const text = JSON.stringify({
      served: served.outputFiles[0].text,
      single: single.outputFiles[0].text,
      notices: [served, all].map(({metafile}) => notices(modules, Object.keys(metafile.inputs))),
    });
    writeFileSync(`${file}.${process.pid}`, text);
    renameSync(`${file}.${process.pid}`, file);
  }
  return JSON.parse(readFileSync(file, 'utf8'));
}

// Whether this code answers what the model is asked: its layers and kernels are in it.
async function answers(code, model, weightData, shape) {
  try {
    const window = {document: {}}; // or it takes itself to be in Node
    const tf = new Function('window', `${code}; return tf`)(window);
    const weightSpecs = model.weightsManifest.flatMap((group) => group.weights);
    await tf.setBackend('cpu');
    const loaded = await tf.loadLayersModel({load: async () => ({...model, weightSpecs, weightData})});
    loaded.predict(tf.zeros([1, ...shape])).dataSync();
    return true;
  } catch {
    return false;
  }
}

// {served, single, notices} for a model: the light library if it has all that the model needs.
export async function library(modules, model, weightData, shape) {
  const {served, single, notices} = await light(modules);
  if (await answers(single, model, weightData, shape)) return {served, single, notices: notices[0]};
  const [tf, wasm] = ['tfjs/dist/tf', 'tfjs-backend-wasm/dist/tf-backend-wasm'].map((name) =>
    readFileSync(join(modules, 'node_modules/@tensorflow', `${name}.es2017.min.js`), 'utf8'));
  return {served: `${tf}\n${wasm}`, single: tf, notices: notices[1]};
}

// Without what only people read; names that other scripts use stay.
export function minified(modules, text, loader) {
  return esbuild(modules).transformSync(text, {loader, minify: true, target: 'es2020'}).code;
}
