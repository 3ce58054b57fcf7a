// The recipes' layers as a back end of TensorFlow.js, under the names that the page calls. Nearly
// all of tfjs-layers and of tfjs-backend-cpu is for training and for other layers, and a phone is
// long at reading it. bundle.mjs takes this only for a model that the whole library answers alike.
import '@tensorflow/tfjs-core/dist/flags';
import {ENGINE} from '@tensorflow/tfjs-core/dist/engine';
import {decodeWeights} from '@tensorflow/tfjs-core/dist/io/io_utils';
import {registerKernel} from '@tensorflow/tfjs-core/dist/kernel_registry';

export const tensor = (values, shape) => ENGINE.makeTensor(values, shape, 'float32');
export const setBackend = (name) => ENGINE.setBackend(name);
export const findBackendFactory = (name) => ENGINE.findBackendFactory(name);

// Values stand for themselves: nothing is copied, and nothing has to be freed.
const same = (values) => values;
ENGINE.registerBackend('cpu', () =>
  ({write: same, readSync: same, disposeData: () => true, numDataIds: () => 0}));
ENGINE.ENV.setPlatform('browser', {isTypedArray: ArrayBuffer.isView});

// Where a filter stands: `starts` are the first values under it, of lines of `length` `line` apart.
function places([images, height, width, channels], [tall, wide], [down, across]) {
  const rows = Math.floor((height - tall) / down) + 1;
  const columns = Math.floor((width - wide) / across) + 1;
  const starts = [];
  for (let row = 0; row < images * rows; row++) {
    const top = Math.floor(row / rows) * height + row % rows * down;
    for (let i = 0; i < columns; i++) starts.push((top * width + i * across) * channels);
  }
  return {shape: [images, rows, columns], starts, line: width * channels, length: wide * channels};
}

// The values that are not 0 with their indices times `filters`, and how many stand before each
// index. Most of a drawing is 0, and half of what a ReLU leaves.
function sparse(given, filters) {
  const [values, indices] = [new Float64Array(given.length), new Int32Array(given.length)];
  const before = new Int32Array(given.length + 1);
  let count = 0;
  for (let i = 0; i < given.length; i++) {
    before[i] = count;
    if (given[i] === 0) continue;
    values[count] = given[i];
    indices[count++] = i * filters;
  }
  before[given.length] = count;
  return {values, indices, before};
}

// Eight filters from `first`, in variables, at all places: this is most of an answer.
function add({values, indices, before}, {starts, line, length}, layer, first, sums) {
  const {tall, filters, weights, bias, least} = layer;
  for (let place = 0; place < starts.length; place++) {
    let a = bias[first], b = bias[first + 1], c = bias[first + 2], d = bias[first + 3];
    let e = bias[first + 4], f = bias[first + 5], g = bias[first + 6], h = bias[first + 7];
    for (let row = 0; row < tall; row++) {
      const start = starts[place] + row * line;
      const shift = first + (row * length - start) * filters;
      const end = before[start + length];
      for (let k = before[start]; k < end; k++) {
        const value = values[k];
        const at = indices[k] + shift;
        a += value * weights[at];
        b += value * weights[at + 1];
        c += value * weights[at + 2];
        d += value * weights[at + 3];
        e += value * weights[at + 4];
        f += value * weights[at + 5];
        g += value * weights[at + 6];
        h += value * weights[at + 7];
      }
    }
    const to = place * filters + first;
    sums[to] = Math.max(least, a);
    sums[to + 1] = Math.max(least, b);
    sums[to + 2] = Math.max(least, c);
    sums[to + 3] = Math.max(least, d);
    sums[to + 4] = Math.max(least, e);
    sums[to + 5] = Math.max(least, f);
    sums[to + 6] = Math.max(least, g);
    sums[to + 7] = Math.max(least, h);
  }
}

function convolution(x, layer) {
  const {filters} = layer;
  const given = places(x.shape, layer.shape, layer.strides);
  const nonzero = sparse(x.values, filters);
  const values = new Float32Array(given.starts.length * filters);
  for (let block = 0; block < filters; block += 8) {
    add(nonzero, given, layer, Math.min(block, filters - 8), values); // the last eight may overlap
  }
  return {shape: [...given.shape, filters], values};
}

function pooling({shape: given, values}, size, strides) {
  const channels = given[3];
  const {shape, starts, line, length} = places(given, size, strides);
  const largest = new Float32Array(starts.length * channels).fill(-Infinity);
  for (let place = 0; place < starts.length; place++) {
    for (let row = 0; row < size[0]; row++) {
      const start = starts[place] + row * line;
      for (let k = 0; k < length; k++) {
        const to = place * channels + k % channels;
        if (values[start + k] > largest[to]) largest[to] = values[start + k];
      }
    }
  }
  return {shape: [...shape, channels], values: largest};
}

function scaled(values, factors, shifts, least) {
  const found = new Float32Array(values.length);
  for (let i = 0; i < found.length; i++) {
    const channel = i % factors.length;
    found[i] = Math.max(least, values[i] * factors[channel] + shifts[channel]);
  }
  return found;
}

function softmax({shape, values}) {
  const size = shape[3];
  const powers = Float64Array.from(values, (value) => Math.exp(value));
  const sums = new Float64Array(values.length / size);
  powers.forEach((power, i) => (sums[Math.floor(i / size)] += power));
  return {shape, values: values.map((_, i) => powers[i] / sums[Math.floor(i / size)])};
}

// By class: its options and its weights by name, to a function from {shape, values} to the next.
const LAYERS = {
  InputLayer: () => same,
  Dropout: () => same,
  Flatten: () => ({shape: [images], values}) => // to one pixel
    ({shape: [images, 1, 1, values.length / images], values}),
  ReLU: () => ({shape, values}) => ({shape, values: scaled(values, [1], [0], 0)}),
  Conv2D({strides, activation}, {kernel: {shape, values}, bias}) {
    const filters = shape[3];
    if (filters < 8) throw new Error('fewer than eight filters');
    const layer = {shape, strides, tall: shape[0], filters, weights: values,
      bias: bias?.values ?? new Float32Array(filters),
      least: activation === 'relu' ? 0 : -Infinity};
    const act = activation === 'softmax' ? softmax : same;
    return (x) => act(convolution(x, layer));
  },
  Dense: ({activation}, {kernel: {shape, values}, bias}) => LAYERS.Conv2D(
    {strides: [1, 1], activation}, {kernel: {shape: [1, 1, ...shape], values}, bias}),
  MaxPooling2D: ({pool_size, strides}) => (x) => pooling(x, pool_size, strides),
  BatchNormalization({epsilon}, {gamma, beta, moving_mean: mean, moving_variance: variance}) {
    const factors = gamma.values.map((value, i) => value / Math.sqrt(variance.values[i] + epsilon));
    const shifts = beta.values.map((value, i) => value - mean.values[i] * factors[i]);
    return ({shape, values}) => ({shape, values: scaled(values, factors, shifts, -Infinity)});
  },
};

// One kernel answers: each that TensorFlow.js runs costs as much as a layer.
registerKernel({kernelName: 'Layers', backendName: 'cpu', kernelFunc({inputs: {x}, attrs}) {
  const given = {shape: x.shape, values: x.dataId};
  const {shape, values} = attrs.steps.reduce((x, step) => step(x), given);
  return {shape: [shape[0], shape[3]], dtype: 'float32', dataId: values};
}});

// Of a sequential model; `source.load` gives its model.json, its weights and their names.
export async function loadLayersModel(source) {
  const {modelTopology, weightSpecs, weightData} = await source.load();
  const decoded = decodeWeights(weightData, weightSpecs);
  const weights = {};
  for (const [path, {shape, dataId: values}] of Object.entries(decoded)) {
    const [layer, weight] = path.split('/');
    (weights[layer] ??= {})[weight] = {shape, values};
  }
  const steps = modelTopology.model_config.config.layers.map(({class_name, config}) => {
    const {name, padding = 'valid', activation = 'linear', ...rest} = config;
    if (padding !== 'valid' || !['linear', 'relu', 'softmax'].includes(activation)
      || rest.max_value || rest.negative_slope || rest.threshold) throw new Error(name);
    return LAYERS[class_name](config, weights[name]);
  });
  return {predict: (x) => ENGINE.runKernel('Layers', {x}, {steps})};
}
