// The recipes' layers as a back end of TensorFlow.js, under the names that the page calls. Nearly all
// of tfjs-layers and of tfjs-backend-cpu is for training and for other layers, and a phone takes long
// to read it. bundle.mjs takes this only for a model that the whole library answers alike.
import '@tensorflow/tfjs-core/dist/flags';
import {KernelBackend} from '@tensorflow/tfjs-core/dist/backends/backend';
import {ENGINE} from '@tensorflow/tfjs-core/dist/engine';
import {decodeWeights} from '@tensorflow/tfjs-core/dist/io/io_utils';
import {registerKernel} from '@tensorflow/tfjs-core/dist/kernel_registry';
import {tensor} from '@tensorflow/tfjs-core/dist/ops/tensor';

export {tensor};
export const tidy = (act) => ENGINE.tidy(act);
export const setBackend = (name) => ENGINE.setBackend(name);
export const findBackendFactory = (name) => ENGINE.findBackendFactory(name);

class Arrays extends KernelBackend {
  data = new Map();

  write(values) {
    const dataId = {};
    this.data.set(dataId, values);
    return dataId;
  }

  readSync = (dataId) => this.data.get(dataId);
  disposeData = (dataId) => this.data.delete(dataId);
  numDataIds = () => this.data.size;
}
ENGINE.registerBackend('cpu', () => new Arrays());
ENGINE.ENV.setPlatform('browser', {isTypedArray: ArrayBuffer.isView});

// From inputs and options to an output, each {shape, values}.
function kernel(kernelName, compute) {
  registerKernel({kernelName, backendName: 'cpu', kernelFunc({inputs, attrs, backend}) {
    const given = {};
    for (const [name, {shape, dataId}] of Object.entries(inputs)) {
      given[name] = {shape, values: backend.readSync(dataId)};
    }
    const {shape, values} = compute(given, attrs);
    return {shape, dtype: 'float32', dataId: backend.write(values)};
  }});
  return (inputs, options) => ENGINE.runKernel(kernelName, inputs, options);
}

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

// What is under a filter, without the zeros: most of a drawing, and half of what a ReLU leaves. Fills
// the values, and the places at which the weights of each begin.
function gather(xs, start, tall, line, length, filters, values, places) {
  let count = 0;
  for (let row = 0, place = 0; row < tall; row++) {
    for (let i = 0; i < length; i++, place += filters) {
      const value = xs[start + row * line + i];
      if (value === 0) continue;
      values[count] = value;
      places[count++] = place;
    }
  }
  return count;
}

// Four filters at a time, in variables: this is most of an answer.
function add(count, values, places, weights, filters, sums, to) {
  for (let block = 0; block < filters; block += 4) {
    const first = Math.min(block, filters - 4); // the last four may overlap
    let a = 0, b = 0, c = 0, d = 0;
    for (let k = 0; k < count; k++) {
      const value = values[k];
      const place = places[k] + first;
      a += value * weights[place];
      b += value * weights[place + 1];
      c += value * weights[place + 2];
      d += value * weights[place + 3];
    }
    sums[to + first] = a;
    sums[to + first + 1] = b;
    sums[to + first + 2] = c;
    sums[to + first + 3] = d;
  }
}

const convolution = kernel('FusedConv2D', ({x, filter, bias}, {strides, activation}) => {
  const [tall, , , filters] = filter.shape;
  if (filters < 4) throw new Error('fewer than four filters');
  const {shape, starts, line, length} = places(x.shape, filter.shape, strides);
  const sums = new Float32Array(starts.length * filters);
  const values = new Float64Array(tall * length);
  const weights = new Int32Array(tall * length);
  for (let i = 0; i < starts.length; i++) {
    const count = gather(x.values, starts[i], tall, line, length, filters, values, weights);
    add(count, values, weights, filter.values, filters, sums, i * filters);
  }
  const least = activation === 'relu' ? 0 : -Infinity;
  const shift = bias?.values ?? [0];
  for (let i = 0; i < sums.length; i++) sums[i] = Math.max(least, sums[i] + shift[i % shift.length]);
  return {shape: [...shape, filters], values: sums};
});

const pooling = kernel('MaxPool', ({x}, {filterSize, strides}) => {
  const channels = x.shape[3];
  const {shape, starts, line, length} = places(x.shape, filterSize, strides);
  const values = new Float32Array(starts.length * channels).fill(-Infinity);
  for (let i = 0; i < values.length; i++) {
    const start = starts[Math.floor(i / channels)] + i % channels;
    for (let row = 0; row < filterSize[0]; row++) {
      for (let k = 0; k < length; k += channels) {
        values[i] = Math.max(values[i], x.values[start + row * line + k]);
      }
    }
  }
  return {shape: [...shape, channels], values};
});

const normalisation = kernel('FusedBatchNorm', ({x, mean, variance, scale, offset}, {epsilon}) => {
  const factors = scale.values.map((value, i) => value / Math.sqrt(variance.values[i] + epsilon));
  const shifts = offset.values.map((value, i) => value - mean.values[i] * factors[i]);
  const size = factors.length;
  return {...x, values: x.values.map((value, i) => value * factors[i % size] + shifts[i % size])};
});

const relu = kernel('Relu', ({x}) => ({...x, values: x.values.map((value) => Math.max(0, value))}));
const reshape = kernel('Reshape', ({x: {values}}, {shape}) => ({shape, values}));
const softmax = kernel('Softmax', ({x: {shape, values}}) => {
  const size = shape[3];
  const powers = Float64Array.from(values, (value) => Math.exp(value));
  const sums = new Float64Array(values.length / size);
  powers.forEach((power, i) => (sums[Math.floor(i / size)] += power));
  return {shape, values: values.map((_, i) => powers[i] / sums[Math.floor(i / size)])};
});

// By class: its options and its weights by name, to a function from one tensor to the next.
const LAYERS = {
  InputLayer: () => (x) => x,
  Dropout: () => (x) => x,
  Flatten: () => (x) => reshape({x}, {shape: [x.shape[0], 1, 1, x.size / x.shape[0]]}), // one pixel
  ReLU: () => (x) => relu({x}),
  Conv2D({strides, activation}, {kernel: filter, ...bias}) {
    const convolved = (x) => convolution({x, filter, ...bias}, {strides, activation});
    return activation === 'softmax' ? (x) => softmax({x: convolved(x)}) : convolved;
  },
  Dense: ({activation}, {kernel: x, ...bias}) => LAYERS.Conv2D({strides: [1, 1], activation},
    {kernel: reshape({x}, {shape: [1, 1, ...x.shape]}), ...bias}),
  MaxPooling2D: ({pool_size: filterSize, strides}) => (x) => pooling({x}, {filterSize, strides}),
  BatchNormalization: ({epsilon}, {gamma: scale, beta: offset, moving_mean: mean, moving_variance}) =>
    (x) => normalisation({x, scale, offset, mean, variance: moving_variance}, {epsilon}),
};

// Of a sequential model; `source.load` gives its model.json, its weights and their names.
export async function loadLayersModel(source) {
  const {modelTopology, weightSpecs, weightData} = await source.load();
  const weights = Object.entries(decodeWeights(weightData, weightSpecs));
  const steps = modelTopology.model_config.config.layers.map(({class_name, config}) => {
    const {name, padding = 'valid', activation = 'linear', max_value, negative_slope, threshold} = config;
    if (padding !== 'valid' || !['linear', 'relu', 'softmax'].includes(activation)
      || max_value || negative_slope || threshold) throw new Error(`${name} is no layer of a recipe`);
    const own = weights.filter(([weight]) => weight.startsWith(`${name}/`));
    return LAYERS[class_name](
      config, Object.fromEntries(own.map(([weight, value]) => [weight.slice(name.length + 1), value])));
  });
  return {predict: (inputs) => steps.reduce((x, step) => step(x), inputs)};
}
