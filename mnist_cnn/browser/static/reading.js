// @ts-check
// The network: loaded, asked, and its answers as probabilities with what may be said of them.
'use strict';

/** @typedef {{weights: object[], paths: string[]}} Shards */
/** @typedef {{weightsManifest: Shards[], data?: string}} Model model.json; in digits.html with weights */
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
 * @property {Model} model
 */

class Reader {
  /** @param {Settings} settings */
  constructor(settings) {
    this.settings = settings;
    /** @type {any} */
    this.model = null;
    this.backend = '';
  }

  /** With the first back end that answers. */
  async load() {
    const {model, format, adapter} = this.settings;
    const load = format === 'graph-model' ? tf.loadGraphModel : tf.loadLayersModel;
    tf.wasm?.setWasmPaths(new URL('./', location.href).href);
    // WebAssembly answers at once; WebGL compiles for seconds first, for a network this small.
    let reason = new Error('TensorFlow.js does not work in this browser.');
    for (const name of ['wasm', 'cpu']) {
      try {
        if (!tf.findBackendFactory(name) || !await tf.setBackend(name)) continue;
        this.backend = name;
        const loaded = await load({load: () => whole(model)});
        ask(loaded, tf.tensor(new Float32Array(28 * 28), [1, ...adapter.shape])); // compiles
        this.model = loaded;
        return;
      } catch (error) {
        reason = /** @type {Error} */ (error); // the next one may do
      }
    }
    throw reason;
  }

  /** @param {Float32Array[]} pictures 28 × 28 each, in 0..1 @returns {Answer[]} */
  read(pictures) {
    const {low, high, shape} = this.settings.adapter;
    const size = 28 * 28;
    const values = new Float32Array(pictures.length * size);
    pictures.forEach((picture, i) =>
      values.set(picture.map((value) => low + value * (high - low)), i * size));
    const raw = ask(this.model, tf.tensor(values, [pictures.length, ...shape]));
    return pictures.map((_, i) => this.judged([...raw.subarray(10 * i, 10 * i + 10)]));
  }

  /**
   * Temperature scaling (Guo et al. 2017): p^(1/T), normalised; T was fitted on validation images.
   * @param {number[]} outputs @returns {Answer}
   */
  judged(outputs) {
    const {adapter, temperature, sure_from, none_below} = this.settings;
    const logs = adapter.output === 'logits' ? outputs : outputs.map((p) => Math.log(Math.max(p, 1e-12)));
    const largest = Math.max(...logs);
    const powers = logs.map((value) => Math.exp((value - largest) / temperature));
    const sum = powers.reduce((a, b) => a + b);
    const shares = powers.map((power) => power / sum);
    const share = Math.max(...shares);
    const state = share >= sure_from ? 'sure' : share < none_below ? 'none' : 'unsure';
    return {state, digit: shares.indexOf(share), share, shares};
  }
}

/** @param {any} model @param {any} inputs disposed of @returns {Float32Array} */
function ask(model, inputs) {
  const answers = tf.tidy(() => {
    // Of a layers model predict takes four times as long: it cuts batches, and joins them again.
    const outputs = model.predictOnBatch ? model.predictOnBatch(inputs) : model.predict(inputs);
    return outputs.dataSync();
  });
  inputs.dispose();
  return answers;
}

/** What a loader of TensorFlow.js gives. @param {Model} model */
async function whole({data, ...model}) {
  const groups = model.weightsManifest;
  const weightData = data ? decoded(data)
    : await Promise.all(groups.flatMap(({paths}) => paths).map(fetched));
  return {...model, weightSpecs: groups.flatMap(({weights}) => weights), weightData};
}

/** @param {string} path @returns {Promise<ArrayBuffer>} */
async function fetched(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path}: ${response.status} ${response.statusText}`);
  return response.arrayBuffer();
}

/** @param {string} data in base64 @returns {ArrayBuffer} */
function decoded(data) {
  const {fromBase64} = /** @type {any} */ (Uint8Array); // browsers since 2025
  if (fromBase64) return fromBase64.call(Uint8Array, data).buffer;
  return Uint8Array.from(atob(data), (character) => character.charCodeAt(0)).buffer;
}
