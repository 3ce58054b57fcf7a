// The recipes' layers as a back end of TensorFlow.js, under the names that the page calls. Nearly all
// of tfjs-layers and of tfjs-backend-cpu is for training and for other layers, and a phone takes long
// to read it. bundle.mjs takes this only for a model that the whole library answers alike.
import '@tensorflow/tfjs-core/dist/flags';
import {DataStorage, KernelBackend} from '@tensorflow/tfjs-core/dist/backends/backend';
import {ENGINE} from '@tensorflow/tfjs-core/dist/engine';
import {decodeWeights} from '@tensorflow/tfjs-core/dist/io/io_utils';
import {registerKernel} from '@tensorflow/tfjs-core/dist/kernel_registry';
import {tensor} from '@tensorflow/tfjs-core/dist/ops/tensor';

export {tensor};
export const tidy = (act) => ENGINE.tidy(act);
export const setBackend = (name) => ENGINE.setBackend(name);
export const findBackendFactory = (name) => ENGINE.findBackendFactory(name);

class Arrays extends KernelBackend {
  data = new DataStorage(this, ENGINE);

  write(values) {
    const dataId = {};
    this.data.set(dataId, values);
    return dataId;
  }

  readSync = (dataId) => this.data.get(dataId);
  disposeData = (dataId) => this.data.delete(dataId);
  numDataIds = () => this.data.numDataIds();
}
ENGINE.registerBackend('cpu', () => new Arrays());
ENGINE.ENV.setPlatform('browser', {isTypedArray: ArrayBuffer.isView});

// From inputs and options to an output, each {shape, values}.
function kernel(kernelName, compute) {
  registerKernel({kernelName, backendName: 'cpu', kernelFunc({inputs, attrs, backend}) {
    const given = {};
    for (const name in inputs) {
      const {shape, dataId} = inputs[name];
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
  for (let i = 0; i < sums.length; i++) {
    sums[i] = Math.max(least, bias ? sums[i] + bias.values[i % filters] : sums[i]);
  }
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
  const factors = variance.values.map((value, i) => (scale?.values[i] ?? 1) / Math.sqrt(value + epsilon));
  const shifts = mean.values.map((value, i) => (offset?.values[i] ?? 0) - value * factors[i]);
  const size = factors.length;
  return {...x, values: x.values.map((value, i) => value * factors[i % size] + shifts[i % size])};
});

const relu = kernel('Relu', ({x}) => ({...x, values: x.values.map((value) => Math.max(0, value))}));
const reshape = kernel('Reshape', ({x: {values}}, {shape}) => ({shape, values}));
const softmax = kernel('Softmax', ({x: {shape, values}}) => {
  const size = shape[shape.length - 1];
  const shares = new Float32Array(values.length);
  for (let from = 0; from < values.length; from += size) {
    const row = values.subarray(from, from + size);
    const powers = row.map((value) => Math.exp(value - Math.max(...row)));
    const sum = powers.reduce((a, b) => a + b);
    shares.set(powers.map((power) => power / sum), from);
  }
  return {shape, values: shares};
});

function refuse(what) {
  if (what) throw new Error(`the page's own layers do not do ${what}`);
}

// By class: its options and its weights by name, to a function from one tensor to the next.
const LAYERS = {
  InputLayer: () => (x) => x,
  Dropout: () => (x) => x,
  Flatten: () => (x) => reshape({x}, {shape: [x.shape[0], 1, 1, x.size / x.shape[0]]}), // one pixel
  ReLU({max_value, negative_slope, threshold}) {
    refuse(max_value || negative_slope || threshold);
    return (x) => relu({x});
  },
  Conv2D({strides, padding, activation}, {kernel: filter, ...bias}) {
    refuse(padding !== 'valid' || !['linear', 'relu', 'softmax'].includes(activation));
    const conv = (x) => convolution({x, filter, ...bias}, {strides, activation});
    return activation === 'softmax' ? (x) => softmax({x: conv(x)}) : conv;
  },
  Dense: (config, {kernel: x, ...bias}) => LAYERS.Conv2D({...config, padding: 'valid', strides: [1, 1]},
    {kernel: reshape({x}, {shape: [1, 1, ...x.shape]}), ...bias}),
  MaxPooling2D({pool_size: filterSize, strides, padding}) {
    refuse(padding !== 'valid');
    return (x) => pooling({x}, {filterSize, strides});
  },
  BatchNormalization: ({epsilon}, {moving_mean: mean, moving_variance: variance, gamma, beta}) => (x) =>
    normalisation({x, mean, variance, ...(gamma && {scale: gamma}), ...(beta && {offset: beta})}, {epsilon}),
};

// Of a sequential model; `source.load` gives its model.json, its weights and their names.
export async function loadLayersModel(source) {
  const {modelTopology, weightSpecs, weightData} = await source.load();
  const {class_name: kind, config} = modelTopology.model_config;
  refuse(kind !== 'Sequential');
  const weights = Object.entries(decodeWeights(weightData, weightSpecs));
  const steps = config.layers.map(({class_name, config}) => {
    const start = `${config.name}/`;
    const own = weights.filter(([name]) => name.startsWith(start));
    return LAYERS[class_name](
      config, Object.fromEntries(own.map(([name, weight]) => [name.slice(start.length), weight])));
  });
  return {predict: (inputs) => steps.reduce((x, step) => step(x), inputs)};
}
