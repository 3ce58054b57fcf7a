// @ts-check
// A picture that is dropped, pasted, chosen or photographed: read by a worker, so that the page stays
// alive, and shown with what was read laid over it, each digit to be corrected. Nothing is sent.
'use strict';

const LARGEST = 100e6; // pixels of a picture
const KEPT = 1000; // pixels of the longer side that are looked at

class Photo {
  /** @param {Settings} settings @param {(words: string) => void} announce */
  constructor(settings, announce) {
    this.settings = settings;
    this.announce = announce;
    this.taken = 0; // pictures
    /** @type {Found[][]} */
    this.rows = [];
    this.words = 'No picture yet.';
    this.canvas = /** @type {HTMLCanvasElement} */ (element('photo'));
    const input = /** @type {HTMLInputElement} */ (element('picture'));
    input.addEventListener('change', () => this.take(input.files).then(() => (input.value = '')));
    addEventListener('paste', (event) => this.take(event.clipboardData?.files));
    addEventListener('dragover', (event) => event.preventDefault());
    addEventListener('drop', (event) => {
      event.preventDefault();
      this.take(event.dataTransfer?.files);
    });
  }

  /** Started with the first picture. In digits.html from the texts that it holds. @returns {Worker} */
  get worker() {
    const text = document.getElementById('worker')?.textContent;
    const worker = new Worker(text
      ? URL.createObjectURL(new Blob([document.scripts[2].text, '\n', text])) : 'worker.js');
    worker.postMessage({settings: this.settings, library: text ? null : 'tf.min.js'});
    worker.addEventListener('message', ({data: {taken, rows, error}}) => {
      if (taken !== this.taken) return;
      this.show(rows ?? [], error ? `The picture could not be read: ${error}` : 'No digits were found.',
        error ? 'empty' : 'read');
    });
    Object.defineProperty(this, 'worker', {value: worker});
    return worker;
  }

  /** @param {FileList | undefined | null} files */
  async take(files) {
    const [file] = files ?? [];
    if (!file || document.body.dataset.mode !== 'picture') return;
    const taken = ++this.taken;
    this.show([], 'Reading …', 'reading');
    try {
      if (!file.size) throw new Error('The file is empty.');
      const image = await createImageBitmap(file).catch(() => {
        throw new Error(`${file.name} is no picture that this browser can open.`);
      });
      const {width, height} = image;
      if (width * height > LARGEST) throw new Error('The picture has more than 100 million pixels.');
      if (taken !== this.taken) return;
      const sides = [width, height].map((side) => Math.ceil(side * Math.min(1, KEPT / Math.max(width, height))));
      [this.canvas.width, this.canvas.height] = sides;
      const context = /** @type {CanvasRenderingContext2D} */ (
        this.canvas.getContext('2d', {willReadFrequently: true}));
      context.fillStyle = 'white'; // behind what is transparent
      context.fillRect(0, 0, sides[0], sides[1]);
      context.imageSmoothingQuality = 'high';
      context.drawImage(image, 0, 0, sides[0], sides[1]);
      const {data} = context.getImageData(0, 0, sides[0], sides[1]);
      this.worker.postMessage({taken, data, width: sides[0], height: sides[1]}, [data.buffer]);
    } catch (error) {
      if (taken === this.taken) this.show([], /** @type {Error} */ (error).message);
    }
  }

  /** @param {Found[][]} rows @param {string} words without any, and @param {string} state */
  show(rows, words, state = 'empty') {
    this.rows = rows.filter((row) => row.length);
    this.words = words;
    const told = showNumber(this.canvas, this.rows, false);
    element('labels').replaceChildren();
    element('marks').replaceChildren(...this.rows.flat().map((found) => this.mark(found)));
    if (this.rows.length) return this.announce(told);
    element('number').dataset.state = state;
    /** @type {Element} */ (element('number').lastElementChild).textContent = words;
    this.announce(words);
  }

  /** A digit over its place, to be corrected. @param {Found} found @returns {HTMLElement} */
  mark(found) {
    const {answer, at: [x, y]} = found;
    const select = document.createElement('select');
    select.append(...'0123456789'.split('').map((digit) => new Option(digit)), new Option('none', ''));
    select.value = String(answer.digit);
    select.className = answer.state === 'sure' ? 'sure' : 'unsure';
    select.ariaLabel = `${answer.digit}${answer.state === 'sure' ? '' : ', not sure'}: correct`;
    [select.style.left, select.style.top] = [`${100 * x}%`, `${100 * y}%`];
    select.addEventListener('change', () => {
      const digit = Number(select.value);
      this.show(this.rows.map((row) => row.flatMap((one) => one !== found ? [one]
        : select.value === '' ? [] : [{...one, answer: {...answer, digit, state: 'sure'}}])), this.words, 'read');
    });
    return select;
  }
}
