// @ts-check
// The network: loaded, asked, and its answers as probabilities with what may be said of them.

/** @typedef {{weightsManifest: {weights: object[]}[]}} Model model.json */
/** @typedef {'empty' | 'none' | 'unsure' | 'sure'} State */
/** @typedef {{state: State, digit: number, share: number, shares: number[]}} Answer */
/** @typedef {{low: number, high: number, shape: number[], output: string}} Adapter */
/** @typedef {{temperature: number, sure_from: number, none_below: number}} Limits of confidence */
/** @typedef {{format: string, model: Model, weights: string, adapter: Adapter}} Network */
/** @typedef {Network & Limits & {network: string, base: string}} Settings base: its folder */

class Reader {
  /** @type {any} of TensorFlow.js, null until it is loaded */
  model = null;
  backend = '';

  /** @param {Settings} settings */
  constructor(settings) {
    this.settings = settings;
  }

  /** With the first back end that answers. */
  async load() {
    const {model, weights, format, adapter, base} = this.settings;
    const load = format === 'graph-model' ? tf.loadGraphModel : tf.loadLayersModel;
    tf.wasm?.setWasmPaths(base);
    // WebAssembly answers at once; WebGL compiles for seconds first, for a network this small.
    let reason = new Error('TensorFlow.js does not work in this browser.');
    for (const name of ['wasm', 'cpu']) {
      try {
        if (!tf.findBackendFactory(name) || !await tf.setBackend(name)) continue;
        this.backend = name;
        const weightSpecs = model.weightsManifest.flatMap((group) => group.weights);
        const loaded = await load({load: async () =>
          ({...model, weightSpecs, weightData: decoded(weights)})});
        ask(loaded, tf.tensor(new Float32Array(28 * 28), [1, ...adapter.shape])); // compiles
        this.model = loaded;
        return;
      } catch (error) {
        reason = /** @type {Error} */ (error); // the next one may do
      }
    }
    throw reason;
  }

  /** @param {(Float32Array | null)[]} pictures 28 × 28 in 0..1; null: all 0 @returns {Answer[]} */
  read(pictures) {
    const {low, high, shape} = this.settings.adapter;
    const values = new Float32Array(28 * 28 * pictures.length);
    pictures.forEach((picture, i) => values.set(picture ?? [], 28 * 28 * i));
    for (let i = 0; i < values.length; i++) values[i] = low + values[i] * (high - low);
    const raw = ask(this.model, tf.tensor(values, [pictures.length, ...shape]));
    return pictures.map((_, i) => this.judged([...raw.subarray(10 * i, 10 * i + 10)]));
  }

  /** Temperature scaling (Guo et al. 2017): p^(1/T), normalised; T was fitted on validation images.
   * @param {number[]} outputs @returns {Answer} */
  judged(outputs) {
    const {adapter, temperature, sure_from, none_below} = this.settings;
    const log = (/** @type {number} */ p) => Math.log(Math.max(p, 1e-12));
    const logs = adapter.output === 'logits' ? outputs : outputs.map(log);
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
  // Of a layers model predict takes four times as long: it cuts batches, and joins them again.
  const outputs = model.predictOnBatch ? model.predictOnBatch(inputs) : model.predict(inputs);
  const answers = outputs.dataSync();
  for (const tensor of [inputs, outputs]) tensor.dispose();
  return answers;
}

/** @param {string} data in base64 @returns {ArrayBuffer} */
function decoded(data) {
  const {fromBase64} = /** @type {any} */ (Uint8Array); // browsers since 2025
  return (fromBase64 ? fromBase64.call(Uint8Array, data)
    : Uint8Array.from(atob(data), (character) => character.charCodeAt(0))).buffer;
}
