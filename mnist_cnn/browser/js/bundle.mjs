// TensorFlow.js for the page: of the light library only what the recipes need, made by esbuild.
import {createHash} from 'node:crypto';
import {existsSync, readFileSync, renameSync, writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';

const OWN = ['./bundle.mjs', './layers.mjs'].map(
  (name) => fileURLToPath(new URL(name, import.meta.url)));
const NODE = ['fs', 'path', 'worker_threads', 'perf_hooks', 'os', 'crypto', 'util', 'ws'];
// Of TensorFlow.js: what is imported for what it does. Its package claims that of many more.
const EFFECTS = /dist.flags\.js$/;

const required = (modules) => createRequire(join(modules, 'here.js'));
const esbuild = (modules) => required(modules)('esbuild');

const used = {
  name: 'used',
  setup(build) {
    build.onResolve({filter: /./}, async ({path, pluginData, ...rest}) => {
      if (pluginData === 'used' || rest.kind === 'entry-point') return null;
      const name = path === '@tensorflow/tfjs-core' ? `${path}/dist/base` : path;
      const found = await build.resolve(name, {...rest, pluginData: 'used'});
      return {...found, sideEffects: EFFECTS.test(found.path)};
    });
  },
};

const build = (modules, options) => esbuild(modules).build({
  absWorkingDir: modules, nodePaths: [join(modules, 'node_modules')], bundle: true, write: false,
  minify: true, metafile: true, format: 'iife', globalName: 'tf', target: 'es2020',
  legalComments: 'none', external: NODE, ...options,
});

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

// {code, notices: of it and of the whole library}. Made once, kept in `modules`.
async function light(modules) {
  const digest = createHash('sha256');
  for (const name of OWN) digest.update(readFileSync(name));
  const file = join(modules, `light-${digest.digest('hex').slice(0, 16)}.json`);
  if (!existsSync(file)) {
    const built = await build(modules, {entryPoints: [OWN[1]], plugins: [used]});
    const contents = `import '@tensorflow/tfjs-backend-wasm'; import '@tensorflow/tfjs';`;
    const all = await build(modules, {stdin: {contents, resolveDir: modules}});
    const files = [built, all].map(({metafile}) => Object.keys(metafile.inputs));
    const text = JSON.stringify({
      code: built.outputFiles[0].text, notices: files.map((names) => notices(modules, names))});
    writeFileSync(`${file}.${process.pid}`, text);
    renameSync(`${file}.${process.pid}`, file);
  }
  return JSON.parse(readFileSync(file, 'utf8'));
}

// Whether the light library answers as the whole one does, on its back end in plain JavaScript.
async function alike(modules, code, model, weightData, shape) {
  const answer = async (tf) => {
    await tf.setBackend('cpu');
    const weightSpecs = model.weightsManifest.flatMap((group) => group.weights);
    const source = {...model, weightSpecs, weightData};
    const loaded = await tf.loadLayersModel({load: async () => source});
    const values = Float32Array.from({length: 4 * 28 * 28}, (_, i) => Math.sin(i * i));
    return loaded.predict(tf.tensor(values, [4, ...shape])).dataSync();
  };
  try {
    const window = {document: {}}; // or it takes itself to be in Node
    const found = await answer(new Function('window', `${code}; return tf`)(window));
    const wanted = await answer(required(modules)('@tensorflow/tfjs'));
    return wanted.every((value, i) => Math.abs(value - found[i]) < 1e-4);
  } catch {
    return false;
  }
}

// {single, served: code for digits.html and for index.html, wasm: whether served has that back end,
// notices}: the light library if it answers the model as it should, else the whole one.
export async function library(modules, model, weightData, shape) {
  const {code, notices} = await light(modules);
  if (await alike(modules, code, model, weightData, shape)) {
    return {single: code, served: code, wasm: false, notices: notices[0]};
  }
  const [tf, wasm] = ['tfjs/dist/tf', 'tfjs-backend-wasm/dist/tf-backend-wasm'].map((name) =>
    readFileSync(join(modules, 'node_modules/@tensorflow', `${name}.es2017.min.js`), 'utf8'));
  return {single: tf, served: `${tf}\n${wasm}`, wasm: true, notices: notices[1]};
}

// Without what only people read; names that other scripts use stay.
export function minified(modules, text, loader) {
  return esbuild(modules).transformSync(text, {loader, minify: true, target: 'es2022'}).code;
}
