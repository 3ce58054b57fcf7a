// node score_pictures.mjs MODULES PAGE JOBS.json: pictures through the JavaScript of a page.
// PAGE: what convert wrote. JOBS: [{file: raw RGBA, width, height}]. Prints one line of JSON, a list
// of {rows: [[{digit, state, at}, ...], ...], milliseconds}.
import {readFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';
import vm from 'node:vm';

const [modules, page, jobs] = process.argv.slice(2);
const require = createRequire(join(modules, 'here.js'));
const tf = globalThis.tf = require('@tensorflow/tfjs');
require('@tensorflow/tfjs-backend-wasm');
await tf.setBackend('wasm');
const text = (name) => readFileSync(join(page, name), 'utf8');
const [settings, worker] = ['settings', 'worker'].map((id) =>
  new RegExp(`id="${id}"[^>]*>([^]*?)</script>`).exec(text('digits.html'))[1]);
const {Reader, readPicture} = vm.runInThisContext(`${worker}; ({Reader, readPicture})`);
const reader = new Reader(JSON.parse(settings));
const {weightsManifest, ...model} = JSON.parse(text('model.json'));
const shards = weightsManifest.flatMap(({paths}) => paths).map((path) => readFileSync(join(page, path)));
const load = model.format === 'graph-model' ? tf.loadGraphModel : tf.loadLayersModel;
reader.model = await load({load: async () => ({
  ...model, weightSpecs: weightsManifest.flatMap(({weights}) => weights),
  weightData: new Uint8Array(Buffer.concat(shards)).buffer})});

console.log(JSON.stringify(JSON.parse(readFileSync(jobs, 'utf8')).map(({file, width, height}) => {
  const pixels = new Uint8ClampedArray(readFileSync(file));
  const started = performance.now();
  const rows = readPicture(pixels, width, height, (pictures) => reader.read(pictures));
  return {milliseconds: performance.now() - started, rows: rows.map((row) => row.map(
    ({answer: {digit, state}, at}) => ({digit, state, at})))};
})));
