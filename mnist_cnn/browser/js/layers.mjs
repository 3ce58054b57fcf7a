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

// The sums of TensorFlow.js's own convolution, in the same order, without those of zeros: most of a
// drawing is empty, and so is half of what a ReLU leaves.
function convolved(info, xs, filters) {
  const {inHeight, inWidth, inChannels, outHeight, outWidth, outChannels, padInfo} = info;
  const sums = new Float32Array(info.outShape.reduce((a, b) => a * b));
  for (let image = 0; image < info.batchSize; image++) {
    for (let row = 0; row < outHeight; row++) {
      for (let i = 0; i < info.filterHeight; i++) {
        const y = row * info.strideHeight - padInfo.top + i * info.dilationHeight;
        if (y < 0 || y >= inHeight) continue;
        for (let column = 0; column < outWidth; column++) {
          const to = ((image * outHeight + row) * outWidth + column) * outChannels;
          for (let j = 0; j < info.filterWidth; j++) {
            const x = column * info.strideWidth - padInfo.left + j * info.dilationWidth;
            if (x < 0 || x >= inWidth) continue;
            const from = ((image * inHeight + y) * inWidth + x) * inChannels;
            const filter = (i * info.filterWidth + j) * inChannels * outChannels;
            for (let channel = 0; channel < inChannels; channel++) {
              const value = xs[from + channel];
              if (value === 0) continue;
              const weights = filter + channel * outChannels;
              for (let out = 0; out < outChannels; out++) {
                sums[to + out] += value * filters[weights + out];
              }
            }
          }
        }
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

async function fetched(address) {
  const model = await (await fetch(address)).json();
  const groups = model.weightsManifest;
  const files = await Promise.all(groups.flatMap(({paths}) => paths).map((path) => fetch(path)));
  return {
    ...model,
    weightSpecs: groups.flatMap(({weights}) => weights),
    weightData: await new Blob(await Promise.all(files.map((file) => file.blob()))).arrayBuffer(),
  };
}

// Of a sequential model: `source` is the address of its model.json, or has load() that gives it.
export async function loadLayersModel(source) {
  const told = await (typeof source === 'string' ? fetched(source) : source.load());
  const {class_name: kind, config} = told.modelTopology.model_config;
  if (kind !== 'Sequential') throw new Error('not a sequential model');
  const weights = Object.entries(decodeWeights(told.weightData, told.weightSpecs));
  const steps = config.layers.map(({class_name, config}) => {
    const start = `${config.name}/`;
    const own = weights.filter(([name]) => name.startsWith(start));
    return LAYERS[class_name](
      config, Object.fromEntries(own.map(([name, weight]) => [name.slice(start.length), weight])));
  });
  return {predict: (inputs) => steps.reduce((x, step) => step(x), inputs)};
}
