// @ts-check
// What is drawn: strokes with their history, by mouse, finger, pen and keys. Places are in units
// of the shorter side of the pad, from its upper left corner.

/** @typedef {[number, number]} Point */
/** @typedef {{id: number, width: number, points: Point[]}} Stroke */
/** @typedef {{versions: Stroke[][], at: number}} Sheet what was on the pad, and which of it is */

const KEY_STEP = 0.04; // of the pad's shorter side, what an arrow key moves the pen by
const CONTROLS = 'button, a, label, input, summary';
/** @type {Record<string, Point>} */
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

class Ink {
  begun = 0; // strokes
  /** @type {Sheet} */
  sheet = {versions: [[]], at: 0};
  /** @type {Stroke | null} the stroke under the pen */
  drawing = null;
  /** @type {Point} where the arrow keys have the pen */
  cursor = [0.5, 0.5];
  /** @type {number | null} the finger, pen or mouse that is down; a second one is ignored */
  pointer = null;

  /** @param {HTMLElement} pad @param {() => number} penWidth of the next stroke
   * @param {() => void} changed called after every change of what is to be seen */
  constructor(pad, penWidth, changed) {
    this.pad = pad;
    this.penWidth = penWidth;
    this.changed = changed;
    addEventListener('pointerdown', (event) => this.down(event));
    addEventListener('pointermove', (event) => this.move(event));
    addEventListener('pointerup', ({pointerId}) => this.lift(pointerId));
    addEventListener('pointercancel', ({pointerId}) => this.lift(pointerId));
    addEventListener('blur', () => this.lift(this.pointer));
    addEventListener('keydown', (event) => this.key(event));
  }

  get strokes() {
    return this.sheet.versions[this.sheet.at];
  }

  /** @param {number | null} pointer */
  lift(pointer) {
    if (pointer === this.pointer) this.turn(this.sheet);
  }

  /** @param {Sheet} sheet what is on the pad from now on */
  turn(sheet) {
    this.drawing = this.pointer = null;
    this.sheet = sheet;
    this.changed();
  }

  /** @param {Stroke[]} strokes none: clears */
  replace(strokes) {
    if (!strokes.length && !this.strokes.length) return;
    const {versions, at} = this.sheet;
    this.turn({versions: [...versions.slice(0, at + 1), strokes], at: at + 1});
  }

  /** @param {-1 | 1} step undo or redo */
  go(step) {
    const at = this.sheet.at + step;
    if (this.sheet.versions[at]) this.turn({...this.sheet, at});
  }

  /** @param {Point} point @param {number | null} pointer null: keys */
  begin(point, pointer) {
    const stroke = {id: ++this.begun, width: this.penWidth(), points: [point]};
    this.replace([...this.strokes, stroke]);
    Object.assign(this, {drawing: stroke, pointer});
  }

  /** @param {PointerEvent} event @returns {Point} */
  at({clientX, clientY}) {
    const {left, top, width, height} = this.pad.getBoundingClientRect();
    const side = Math.min(width, height);
    return [(clientX - left) / side, (clientY - top) / side];
  }

  /** @param {PointerEvent} event */
  down(event) {
    const target = /** @type {Element} */ (event.target);
    if (this.pointer !== null || event.button > 0 || target.closest(CONTROLS)) return;
    this.pointer = event.pointerId;
    this.move(event);
  }

  /** A stroke begins where the pen, which is down, is on the pad. @param {PointerEvent} event */
  move(event) {
    if (event.pointerId !== this.pointer) return;
    if (this.drawing) {
      const passed = event.getCoalescedEvents?.() ?? [];
      for (const one of passed.length ? passed : [event]) this.drawing.points.push(this.at(one));
      return this.changed();
    }
    if (document.elementFromPoint(event.clientX, event.clientY) !== this.pad) return;
    this.pad.setPointerCapture(event.pointerId);
    this.begin(this.at(event), event.pointerId);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const key = event.key.toLowerCase(); // 'Z' with Caps Lock
    if (key === 'delete' || key === 'backspace') return this.replace([]);
    if (event.ctrlKey || event.metaKey) {
      if (key !== 'y' && key !== 'z') return;
      this.go(key === 'y' || event.shiftKey ? 1 : -1);
      return event.preventDefault();
    }
    const arrow = ARROWS[event.key];
    if (document.activeElement !== this.pad || (key !== ' ' && !arrow)) return;
    event.preventDefault(); // no scrolling
    if (arrow) {
      const {clientWidth: width, clientHeight: height} = this.pad;
      const side = Math.min(width, height);
      this.cursor = [clamp(this.cursor[0] + KEY_STEP * arrow[0], 0, width / side),
        clamp(this.cursor[1] + KEY_STEP * arrow[1], 0, height / side)];
      this.drawing?.points.push(this.cursor);
    } else if (this.drawing) this.drawing = null;
    else this.begin(this.cursor, null);
    this.changed();
  }
}
