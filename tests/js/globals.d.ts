// What the page's scripts find beside them: TensorFlow.js, and under Node a module.
declare const tf: any;
declare const module: any;
// In a worker.
declare const WorkerGlobalScope: unknown;
