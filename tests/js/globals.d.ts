// What the page's scripts find beside them: TensorFlow.js and prepare.js.
declare const tf: any;
declare function prepare(strokes: {points: [number, number][]}[]): Float32Array | null;
