// The recipes' layers on the kernels of TensorFlow.js, under the names that the page calls. Nearly
// all of tfjs-layers is for training and for other layers, and a phone takes long to read it.
// bundle.mjs takes this only for a model that the whole library answers alike.
import '@tensorflow/tfjs-backend-cpu/dist/base';
import '@tensorflow/tfjs-core/dist/flags';
import '@tensorflow/tfjs-core/dist/platforms/platform_browser';
import {batchNormConfig} from '@tensorflow/tfjs-backend-cpu/dist/kernels/BatchNorm';
import {maxPoolConfig} from '@tensorflow/tfjs-backend-cpu/dist/kernels/MaxPool';
import {reluConfig} from '@tensorflow/tfjs-backend-cpu/dist/kernels/Relu';
import {reshapeConfig} from '@tensorflow/tfjs-backend-cpu/dist/kernels/Reshape';
import {softmaxConfig} from '@tensorflow/tfjs-backend-cpu/dist/kernels/Softmax';
import {_fusedMatMulConfig} from '@tensorflow/tfjs-backend-cpu/dist/kernels/_FusedMatMul';
import {ENGINE} from '@tensorflow/tfjs-core/dist/engine';
import {decodeWeights} from '@tensorflow/tfjs-core/dist/io/io_utils';
import {registerKernel} from '@tensorflow/tfjs-core/dist/kernel_registry';
import {computeConv2DInfo} from '@tensorflow/tfjs-core/dist/ops/conv_util';
import {tensor} from '@tensorflow/tfjs-core/dist/ops/tensor';

export {tensor};
export const tidy = (act) => ENGINE.tidy(act);
export const setBackend = (name) => ENGINE.setBackend(name);
export const findBackendFactory = (name) => ENGINE.findBackendFactory(name);

const run = (kernel, inputs, attributes) => ENGINE.runKernel(kernel, inputs, attributes);

// A convolution is most of an answer. TensorFlow.js's own adds to memory product by product; this one
// leaves out the zeros, most of a drawing and half of what a ReLU leaves, and adds up four filters at
// a time in variables. `values` and `places` take the inputs under the filter that are not zero, and
// where their weights begin.
function gather(info, xs, image, row, column, values, places) {
  const {inHeight, inWidth, inChannels, outChannels, padInfo} = info;
  let count = 0;
  for (let i = 0; i < info.filterHeight; i++) {
    const y = row * info.strideHeight - padInfo.top + i * info.dilationHeight;
    if (y < 0 || y >= inHeight) continue;
    for (let j = 0; j < info.filterWidth; j++) {
      const x = column * info.strideWidth - padInfo.left + j * info.dilationWidth;
      if (x < 0 || x >= inWidth) continue;
      const from = ((image * inHeight + y) * inWidth + x) * inChannels;
      const filter = (i * info.filterWidth + j) * inChannels;
      for (let channel = 0; channel < inChannels; channel++) {
        const value = xs[from + channel];
        if (value === 0) continue;
        values[count] = value;
        places[count++] = (filter + channel) * outChannels;
      }
    }
  }
  return count;
}

function convolved(info, xs, filters) {
  const {batchSize, outHeight, outWidth, outChannels} = info;
  if (outChannels < 4) throw new Error('fewer than four filters');
  const sums = new Float32Array(batchSize * outHeight * outWidth * outChannels);
  const values = new Float64Array(filters.length / outChannels);
  const places = new Int32Array(values.length);
  let to = 0;
  for (let image = 0; image < batchSize; image++) {
    for (let row = 0; row < outHeight; row++) {
      for (let column = 0; column < outWidth; column++) {
        const count = gather(info, xs, image, row, column, values, places);
        for (let block = 0; block < outChannels; block += 4) {
          const out = Math.min(block, outChannels - 4); // the last four may overlap
          let a = 0, b = 0, c = 0, d = 0;
          for (let k = 0; k < count; k++) {
            const value = values[k];
            const place = places[k] + out;
            a += value * filters[place];
            b += value * filters[place + 1];
            c += value * filters[place + 2];
            d += value * filters[place + 3];
          }
          sums[to + out] = a;
          sums[to + out + 1] = b;
          sums[to + out + 2] = c;
          sums[to + out + 3] = d;
        }
        to += outChannels;
      }
    }
  }
  return sums;
}

const fusedConv2DConfig = {
  kernelName: 'FusedConv2D',
  backendName: 'cpu',
  kernelFunc({inputs: {x, filter, bias}, backend, attrs: {strides, dilations, pad, activation}}) {
    const info = computeConv2DInfo(x.shape, filter.shape, strides, dilations, pad);
    const values = (tensor) => backend.data.get(tensor.dataId).values;
    const sums = convolved(info, values(x), values(filter));
    if (bias) {
      const shift = values(bias);
      for (let i = 0; i < sums.length; i++) sums[i] += shift[i % shift.length];
    }
    if (activation === 'relu') {
      for (let i = 0; i < sums.length; i++) if (sums[i] < 0) sums[i] = 0;
    } else if (activation !== 'linear') {
      throw new Error(`a convolution with ${activation}`);
    }
    return backend.makeTensorInfo(info.outShape, 'float32', sums);
  },
};

for (const config of [batchNormConfig, fusedConv2DConfig, maxPoolConfig, reluConfig, reshapeConfig,
  softmaxConfig, _fusedMatMulConfig]) registerKernel(config);

// A kernel with its activation, of which softmax is not among those that kernels do on the way.
function activated(kernel, inputs, attributes, activation) {
  if (activation !== 'softmax') return run(kernel, inputs, {...attributes, activation});
  return run('Softmax', {logits: run(kernel, inputs, {...attributes, activation: 'linear'})}, {dim: -1});
}

// By class: its options and its weights by name, to a function from one tensor to the next.
const LAYERS = {
  InputLayer: () => (x) => x,
  Dropout: () => (x) => x,
  Flatten: () => (x) => run('Reshape', {x}, {shape: [x.shape[0], x.size / x.shape[0]]}),
  ReLU({max_value: most, negative_slope: slope, threshold}) {
    if (most || slope || threshold) throw new Error('another kind of ReLU');
    return (x) => run('Relu', {x});
  },
  Conv2D({strides, padding: pad, dilation_rate: dilations, activation}, {kernel: filter, bias}) {
    const attributes = {strides, pad, dilations, dataFormat: 'NHWC'};
    return (x) => activated('FusedConv2D', {x, filter, bias}, attributes, activation);
  },
  Dense({activation}, {kernel: b, bias}) {
    const attributes = {transposeA: false, transposeB: false};
    return (a) => activated('_FusedMatMul', {a, b, bias}, attributes, activation);
  },
  MaxPooling2D: ({pool_size: filterSize, strides, padding: pad}) =>
    (x) => run('MaxPool', {x}, {filterSize, strides, pad}),
  BatchNormalization({epsilon: varianceEpsilon}, weights) {
    const {gamma: scale, beta: offset, moving_mean: mean, moving_variance: variance} = weights;
    return (x) => run('FusedBatchNorm', {x, scale, offset, mean, variance}, {varianceEpsilon});
  },
};

// Of a sequential model; `source.load` gives its model.json, its weights and their names.
export async function loadLayersModel(source) {
  const {modelTopology, weightSpecs, weightData} = await source.load();
  const {class_name: kind, config} = modelTopology.model_config;
  if (kind !== 'Sequential') throw new Error('not a sequential model');
  const weights = Object.entries(decodeWeights(weightData, weightSpecs));
  const steps = config.layers.map(({class_name, config}) => {
    const start = `${config.name}/`;
    const own = weights.filter(([name]) => name.startsWith(start));
    return LAYERS[class_name](
      config, Object.fromEntries(own.map(([name, weight]) => [name.slice(start.length), weight])));
  });
  return {predict: (inputs) => steps.reduce((x, step) => step(x), inputs)};
}
