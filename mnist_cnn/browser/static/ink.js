// @ts-check
// What is drawn: strokes with their history, by mouse, finger, pen and keys. Places are in units
// of the shorter side of the pad, from its upper left corner.
'use strict';

/** @typedef {[number, number]} Point */
/** @typedef {{id: number, width: number, points: Point[]}} Stroke */
/** @typedef {{strokes: Stroke[], past: Stroke[][], future: Stroke[][]}} Sheet */

const KEY_STEP = 0.04; // of the pad's shorter side, what an arrow key moves the pen by
const CONTROLS = 'button, a, label, input, summary';
/** @type {Record<string, Point>} */
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

class Ink {
  /**
   * @param {HTMLElement} pad
   * @param {() => number} penWidth of the next stroke
   * @param {() => void} changed called after every change of what is to be seen
   */
  constructor(pad, penWidth, changed) {
    this.pad = pad;
    this.penWidth = penWidth;
    this.changed = changed;
    this.begun = 0; // strokes
    /** @type {Sheet} */
    this.sheet = {strokes: [], past: [], future: []};
    /** @type {Stroke | null} the stroke under the pen */
    this.drawing = null;
    /** @type {Point} where the arrow keys have the pen */
    this.cursor = [0.5, 0.5];
    /** @type {number | null} the finger, pen or mouse that is down; a second one is ignored */
    this.pointer = null;
    addEventListener('pointerdown', (event) => this.down(event));
    addEventListener('pointermove', (event) => this.move(event));
    for (const name of ['pointerup', 'pointercancel', 'blur']) {
      addEventListener(name, (event) => {
        if (name === 'blur' || /** @type {PointerEvent} */ (event).pointerId === this.pointer) {
          this.lift();
        }
      });
    }
    addEventListener('keydown', (event) => this.key(event));
  }

  get strokes() {
    return this.sheet.strokes;
  }

  lift() {
    const drawn = this.drawing;
    this.drawing = this.pointer = null;
    if (drawn) this.changed();
  }

  /** @param {Stroke[]} strokes what is on the pad from now on */
  replace(strokes) {
    const {past, strokes: before} = this.sheet;
    this.sheet = {strokes, past: [...past, before], future: []};
  }

  /** @param {Sheet} sheet another one, with a history of its own */
  turn(sheet) {
    this.drawing = this.pointer = null;
    this.sheet = sheet;
    this.changed();
  }

  clear() {
    this.drawing = this.pointer = null;
    if (this.strokes.length) this.replace([]);
    this.changed();
  }

  undo() {
    const {strokes, past, future} = this.sheet;
    if (!past.length) return;
    this.turn({strokes: past[past.length - 1], past: past.slice(0, -1), future: [...future, strokes]});
  }

  redo() {
    const {strokes, past, future} = this.sheet;
    if (!future.length) return;
    this.turn({
      strokes: future[future.length - 1], past: [...past, strokes], future: future.slice(0, -1)});
  }

  /** @param {Point} point */
  begin(point) {
    this.drawing = {id: ++this.begun, width: this.penWidth(), points: [point]};
    this.replace([...this.strokes, this.drawing]);
    this.changed();
  }

  /** @param {PointerEvent} event @returns {Point} */
  at(event) {
    const box = this.pad.getBoundingClientRect();
    const side = Math.min(box.width, box.height);
    return [(event.clientX - box.left) / side, (event.clientY - box.top) / side];
  }

  /** @param {PointerEvent} event */
  isInside(event) {
    const box = this.pad.getBoundingClientRect();
    return event.clientX >= box.left && event.clientX <= box.right
      && event.clientY >= box.top && event.clientY <= box.bottom;
  }

  /** @param {PointerEvent} event */
  down(event) {
    const target = /** @type {Element} */ (event.target);
    if (this.pointer !== null || event.button > 0 || target.closest(CONTROLS)) return;
    this.pointer = event.pointerId;
    this.enter(event);
  }

  /** A stroke begins where the pen, which is down, is on the pad. @param {PointerEvent} event */
  enter(event) {
    if (!this.isInside(event)) return;
    this.pad.setPointerCapture(event.pointerId);
    this.begin(this.at(event));
  }

  /** @param {PointerEvent} event */
  move(event) {
    if (event.pointerId !== this.pointer) return;
    if (!this.drawing) return this.enter(event);
    const passed = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    for (const one of passed.length ? passed : [event]) this.drawing.points.push(this.at(one));
    this.changed();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const key = event.key.toLowerCase(); // 'Z' with Caps Lock
    if (key === 'delete' || key === 'backspace') return this.clear();
    if (event.ctrlKey || event.metaKey) {
      if (key === 'y' || (key === 'z' && event.shiftKey)) this.redo();
      else if (key === 'z') this.undo();
      else return;
      return event.preventDefault();
    }
    if (document.activeElement !== this.pad || (key !== ' ' && !(event.key in ARROWS))) return;
    event.preventDefault(); // no scrolling
    if (key === ' ') {
      if (this.drawing) this.drawing = null;
      else this.begin([...this.cursor]);
    } else {
      const {width, height} = this.pad.getBoundingClientRect();
      const side = Math.min(width, height);
      const [right, down] = ARROWS[event.key];
      this.cursor = [
        Math.min(width / side, Math.max(0, this.cursor[0] + KEY_STEP * right)),
        Math.min(height / side, Math.max(0, this.cursor[1] + KEY_STEP * down)),
      ];
      if (this.drawing) this.drawing.points.push([...this.cursor]);
    }
    this.changed();
  }
}
