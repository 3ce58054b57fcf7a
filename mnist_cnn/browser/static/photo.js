// @ts-check
// A picture that is dropped, pasted, chosen or photographed: read by a worker, so that the page stays
// alive, and shown with what was read laid over it, each digit to be corrected. Nothing is sent.
'use strict';

const LARGEST = 100e6; // pixels of a picture
const SHOWN = 1000; // pixels of the longer side
const LOOKED = 448; // likewise, of what the worker gets

class Photo {
  taken = 0; // pictures
  words = '';
  /** @type {Found[][]} */
  rows = [];
  /** @type {Worker?} started with the first picture */
  worker = null;

  /** @param {Settings} settings @param {(words: string) => void} announce */
  constructor(settings, announce) {
    this.settings = settings;
    this.announce = announce;
    element('picture').addEventListener('change', (/** @type {any} */ {target}) =>
      this.take(target.files).then(() => (target.value = '')));
    addEventListener('paste', (event) => this.take(event.clipboardData?.files));
    addEventListener('dragover', (event) => event.preventDefault());
    addEventListener('drop', (event) => {
      event.preventDefault();
      this.take(event.dataTransfer?.files);
    });
  }

  /** From texts in the page: a file cannot start one from another file. */
  start() {
    const texts = [document.scripts[2].text, '\n', element('worker').textContent];
    const worker = new Worker(URL.createObjectURL(new Blob(texts)));
    worker.postMessage({settings: this.settings});
    worker.addEventListener('message', ({data: {taken, rows, error}}) => {
      if (taken === this.taken) this.show(rows ?? [], error ?? 'No digits were found.', error ? 'empty' : 'read');
    });
    return worker;
  }

  /** @param {FileList | undefined | null} files */
  async take(files) {
    const [file] = files ?? [];
    if (!file || document.body.dataset.mode !== 'picture') return;
    const taken = ++this.taken;
    this.show([], 'Reading …', 'reading');
    const image = file.size ? await createImageBitmap(file).catch(() => null) : null;
    if (taken !== this.taken) return;
    const fault = !file.size ? 'The file is empty.'
      : !image ? `${file.name} is no picture that this browser can open.`
        : image.width * image.height > LARGEST ? 'The picture has more than 100 million pixels.' : '';
    if (!image || fault) return this.show([], fault, 'empty');
    const canvas = document.createElement('canvas');
    const looked = drawn(canvas, image, LOOKED).getImageData(0, 0, canvas.width, canvas.height);
    this.worker ??= this.start();
    this.worker.postMessage({taken, looked}, [looked.data.buffer]);
    drawn(element('photo'), image, Math.min(SHOWN, Math.max(image.width, image.height)));
  }

  /** @param {Found[][]} rows @param {string} words without any, and @param {string} state */
  show(rows, words, state = 'empty') {
    Object.assign(this, {rows, words});
    const told = showNumber(element('photo'), rows, false);
    element('labels').replaceChildren();
    element('marks').replaceChildren(...rows.flat().map((found) => this.mark(found, (answer) =>
      this.show(rows.map((row) => row.flatMap((one) => one !== found ? [one] : answer ? [{...one, answer}] : []))
        .filter((row) => row.length), words, state))));
    if (!rows.length) {
      element('number').dataset.state = state;
      element('number').lastElementChild.textContent = words;
    }
    this.announce(rows.length ? told : words);
  }

  /** A digit over its place. @param {Found} found @param {(answer?: Answer) => void} corrected */
  mark({answer, at: [x, y]}, corrected) {
    const select = document.createElement('select');
    select.append(...'0123456789'.split('').map((digit) => new Option(digit)), new Option('none', ''));
    select.value = String(answer.digit);
    select.className = answer.state === 'sure' ? 'sure' : 'unsure';
    select.ariaLabel = `${answer.digit}${answer.state === 'sure' ? '' : ', not sure'}: correct`;
    Object.assign(select.style, {left: `${100 * x}%`, top: `${100 * y}%`});
    select.addEventListener('change', () => corrected(
      select.value ? {...answer, digit: Number(select.value), state: 'sure'} : undefined));
    return select;
  }
}

/** @param {HTMLCanvasElement} canvas @param {ImageBitmap} image @param {number} longer its side then */
function drawn(canvas, image, longer) {
  [canvas.width, canvas.height] = [image.width, image.height].map((side) =>
    Math.max(1, Math.round(side * longer / Math.max(image.width, image.height))));
  const context = /** @type {CanvasRenderingContext2D} */ (
    canvas.getContext('2d', {willReadFrequently: canvas.id !== 'photo'}));
  context.fillStyle = 'white'; // behind what is transparent
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = 'high';
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  return context;
}
