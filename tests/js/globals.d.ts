// What the page's scripts find beside them: TensorFlow.js and prepare.js.
declare const tf: any;
declare function prepare(strokes: {points: [number, number][]}[]): Float32Array | null;
declare const FIT: number;
declare const PEN: number;
declare function bounds(lines: number[][][]): {left: number, top: number, right: number, bottom: number, side: number};
declare function clamp(value: number, low: number, high: number): number;
declare function centred(ink: Float64Array, rows: number, columns: number): Float32Array;
// In a worker.
declare const WorkerGlobalScope: unknown;
declare function importScripts(address: string): void;
