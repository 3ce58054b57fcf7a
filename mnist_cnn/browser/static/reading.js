// @ts-check
// The network: loaded, asked, and its answers as probabilities with what may be said of them.
'use strict';

/** @typedef {{weightsManifest: {weights: object[]}[], data: string}} Embedded model.json, shards */
/** @typedef {'empty' | 'none' | 'unsure' | 'sure'} State */
/** @typedef {{state: State, digit: number, share: number, shares: number[]}} Answer */
/**
 * @typedef {object} Settings
 * @property {string} format of the model: layers-model or graph-model
 * @property {number} temperature
 * @property {number} sure_from
 * @property {number} none_below an answer of less confidence than this is no digit
 * @property {{low: number, high: number, shape: number[], output: string}} adapter
 * @property {string} network which network it is
 * @property {Embedded} [model] all of it, in digits.html
 */

class Reader {
  /** @param {Settings} settings */
  constructor(settings) {
    this.settings = settings;
    /** @type {any} */
    this.model = null;
    this.backend = '';
  }

  async load() {
    const {model, format, adapter} = this.settings;
    this.backend = await chooseBackend();
    const source = model ? embedded(model) : 'model.json';
    const graph = format === 'graph-model';
    const loaded = await (graph ? tf.loadGraphModel(source) : tf.loadLayersModel(source));
    tf.tidy(() => loaded.predict(tf.zeros([1, ...adapter.shape])).dataSync()); // compiles
    this.model = loaded;
  }

  /** @param {Float32Array[]} pictures 28 × 28 each, in 0..1 @returns {Answer[]} */
  read(pictures) {
    const {low, high, shape} = this.settings.adapter;
    const size = 28 * 28;
    const values = new Float32Array(pictures.length * size);
    pictures.forEach((picture, i) =>
      values.set(picture.map((value) => low + value * (high - low)), i * size));
    const raw = tf.tidy(() =>
      this.model.predict(tf.tensor(values, [pictures.length, ...shape])).dataSync());
    return pictures.map((_, i) => this.judged(this.calibrated([...raw.slice(10 * i, 10 * i + 10)])));
  }

  /**
   * Temperature scaling (Guo et al. 2017): p^(1/T), normalised; T was fitted on validation images.
   * @param {number[]} answers @returns {number[]}
   */
  calibrated(answers) {
    const largest = Math.max(...answers);
    const logits = this.settings.adapter.output === 'logits';
    const probabilities = logits ? answers.map((value) => Math.exp(value - largest)) : answers;
    const powers = probabilities.map((p) => Math.max(p, 1e-12) ** (1 / this.settings.temperature));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((power) => power / sum);
  }

  /** @param {number[]} shares @returns {Answer} */
  judged(shares) {
    const share = Math.max(...shares);
    const {sure_from, none_below} = this.settings;
    const state = share >= sure_from ? 'sure' : share < none_below ? 'none' : 'unsure';
    return {state, digit: shares.indexOf(share), share, shares};
  }
}

async function chooseBackend() {
  const wanted = new URLSearchParams(location.search).get('backend');
  if (tf.wasm) tf.wasm.setWasmPaths(new URL('./', location.href).href);
  // WebAssembly answers at once; WebGL compiles for seconds first, for a network this small.
  for (const name of wanted ? [wanted] : ['wasm', 'cpu']) {
    try {
      if (tf.findBackendFactory(name) && await tf.setBackend(name)) return name;
    } catch (error) { /* the next one */ }
  }
  throw new Error(`The back end ${wanted} does not work in this browser.`);
}

/** @param {Embedded} model */
function embedded({data, ...model}) {
  const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
  const weightSpecs = model.weightsManifest.flatMap((group) => group.weights);
  return {load: async () => ({...model, weightSpecs, weightData: bytes.buffer})};
}
