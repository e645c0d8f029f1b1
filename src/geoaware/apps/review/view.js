// The large view of an object: the image with its keypoints, which are dragged; zoom and moving the image.
// Places are pixels of the upright image; a pixel's middle is its place, as in everything the library draws.

const SVG = 'http://www.w3.org/2000/svg';
const NEAR = { mouse: 16, pen: 20, touch: 30 }; // pixels of the screen within which a keypoint is meant
const EDGE = 28; // pixels of the screen left around what is fitted
const SMALL = 0.45; // an object whose box is a smaller share of its image is shown closer at first

export class View {
  #stage; #photo; #marks; #tell; #asked = 0; #pointers = new Map(); #hold = null; #whole = true; #touched = false;

  // `tell` has choose(keypoint), drag(keypoint, place), drop() at the end of a drag, put(place) for a click.
  constructor(stage, photo, marks, tell) {
    this.#stage = stage;
    this.#photo = photo;
    this.#marks = marks;
    this.#tell = tell;
    this.target = null;
    this.schema = null;
    this.chosen = -1;
    this.named = true;
    this.scale = 1;
    this.corner = [0, 0];
    const surface = marks.parentNode;
    surface.addEventListener('pointerdown', (event) => this.#down(event));
    surface.addEventListener('pointermove', (event) => this.#move(event));
    for (const kind of ['pointerup', 'pointercancel']) surface.addEventListener(kind, (event) => this.#up(event));
    stage.addEventListener('wheel', (event) => this.#wheel(event), { passive: false });
    new ResizeObserver(() => { if (!this.#touched) this.fit(this.#whole); this.draw(); }).observe(stage);
  }

  // Show an object; `target` without points only has its image.
  open(target, schema, address) {
    Object.assign(this, { target, schema });
    this.#hold = null;
    this.#photo.hidden = !target.size;
    if (target.size) {
      this.#photo.src = address;
      [this.#photo.style.width, this.#photo.style.height] = target.size.map((side) => `${side}px`);
      const [x, y, width, height] = target.box ?? [0, 0, ...target.size];
      this.fit(Math.max(width / target.size[0], height / target.size[1]) > SMALL || x + y < 0);
    } else {
      this.#photo.removeAttribute('src');
    }
    this.draw();
  }

  // Fit the whole image, or the object's box and its keypoints.
  fit(whole) {
    if (!this.target?.size) return;
    this.#whole = whole;
    this.#touched = false;
    let [left, top, right, bottom] = [0, 0, ...this.target.size];
    if (!whole && this.target.box) {
      const [x, y, width, height] = this.target.box;
      const shown = this.target.points.filter((point) => point[2]);
      left = Math.min(x, ...shown.map((point) => point[0]));
      top = Math.min(y, ...shown.map((point) => point[1]));
      right = Math.max(x + width, ...shown.map((point) => point[0]));
      bottom = Math.max(y + height, ...shown.map((point) => point[1]));
    }
    const { clientWidth, clientHeight } = this.#stage;
    const room = [clientWidth - 2 * EDGE, clientHeight - 2 * EDGE];
    this.scale = Math.max(0.01, Math.min(room[0] / (right - left), room[1] / (bottom - top), 40));
    this.corner = [
      (clientWidth - this.scale * (left + right)) / 2, (clientHeight - this.scale * (top + bottom)) / 2,
    ];
    this.draw();
  }

  get whole() { return this.#whole && !this.#touched; }

  // Zoom by a factor around a place of the stage; around its middle if none is given.
  zoom(factor, at = [this.#stage.clientWidth / 2, this.#stage.clientHeight / 2]) {
    const scale = Math.min(Math.max(this.scale * factor, 0.02), 60), by = scale / this.scale;
    this.corner = this.corner.map((side, axis) => at[axis] - by * (at[axis] - side));
    this.scale = scale;
    this.#touched = true;
    this.draw();
  }

  // Where a place of the image is on the stage.
  toStage(point) {
    return [0, 1].map((axis) => this.corner[axis] + this.scale * (point[axis] + 0.5));
  }

  // Where a place of the stage is on the image, inside it.
  toImage(place) {
    return [0, 1].map((axis) => {
      const at = (place[axis] - this.corner[axis]) / this.scale - 0.5;
      return Math.min(Math.max(at, 0), this.target.size[axis] - 1);
    });
  }

  draw() {
    this.#asked ||= requestAnimationFrame(() => { this.#asked = 0; this.#paint(); });
  }

  #paint() {
    const { clientWidth, clientHeight } = this.#stage;
    this.#marks.setAttribute('viewBox', `0 0 ${clientWidth} ${clientHeight}`);
    if (!this.target?.points) { this.#marks.replaceChildren(); return; }
    const [x, y] = this.corner;
    this.#photo.style.transform = `translate(${x}px, ${y}px) scale(${this.scale})`;
    this.#photo.classList.toggle('coarse', this.scale > 4);
    const places = this.#places();
    const box = this.target.several && this.target.box ? this.#box(this.target.box) : [];
    const limbs = this.schema.limbs.flatMap((limb) => this.#limb(limb, places));
    // The chosen keypoint is on top.
    const order = [...places.keys()].sort((a, b) => (a === this.chosen) - (b === this.chosen));
    const points = order.flatMap((each) => this.#mark(each, places[each]));
    this.#marks.replaceChildren(...box, ...limbs, ...points, ...this.#labels(places));
  }

  // Of each keypoint its place on the stage, and whether it is there or only a guess; nothing of others.
  #places() {
    return this.target.points.map((point, each) => {
      const guess = this.target.guesses[each];
      if (point[2]) return { at: this.toStage(point), flag: point[2] };
      return guess?.[2] ? { at: this.toStage(guess), flag: 0 } : null;
    });
  }

  // Which of several objects is meant.
  #box([x, y, width, height]) {
    const [left, top] = this.corner.map((side, axis) => side + this.scale * [x, y][axis]);
    const size = { x: left, y: top, width: this.scale * width, height: this.scale * height };
    return ['rim', 'ink'].map((kind) => shape('rect', `box ${kind}`, size));
  }

  #limb([a, b], places) {
    const [one, other] = [places[a], places[b]];
    if (!one?.flag || !other?.flag) return [];
    // A limb is of the side that one of its ends tells, unless the other tells another.
    const sides = new Set([a, b].map((each) => this.schema.sides[each]).filter((side) => side !== 'middle'));
    const side = sides.size === 1 ? [...sides][0] : 'middle';
    const dashed = one.flag === 1 || other.flag === 1 ? ' dashed' : '';
    return ['rim', `ink ${side}${dashed}`].map((kind) => shape('line', `limb ${kind}`, {
      x1: one.at[0], y1: one.at[1], x2: other.at[0], y2: other.at[1],
    }));
  }

  #mark(each, place) {
    if (!place) return [];
    const state = ['guess', 'hidden', 'visible'][place.flag];
    const rings = each === this.chosen ? ['ring dark', 'ring light'] : [];
    const kinds = [...rings, 'dark', ...(place.flag ? ['light'] : []), `ink ${this.schema.sides[each]}`];
    const group = shape('g', `mark ${state}`, { 'data-keypoint': each, transform: `translate(${place.at})` });
    group.append(...kinds.map((kind) => shape('circle', kind, {})));
    return [group];
  }

  // Names beside their keypoints, where they cover no other name or keypoint.
  #labels(places) {
    const taken = places.filter((place) => place?.flag).map(({ at: [x, y] }) => [x - 7, y - 7, x + 7, y + 7]);
    const free = (box) => taken.every((other) => box[0] >= other[2] || box[2] <= other[0]
      || box[1] >= other[3] || box[3] <= other[1]);
    const order = [...places.keys()].sort((a, b) => (b === this.chosen) - (a === this.chosen));
    return order.flatMap((each) => {
      const place = places[each], chosen = each === this.chosen;
      if (!place || !(chosen || (this.named && place.flag))) return [];
      const text = this.schema.names[each], [x, y] = place.at, width = 6.6 * text.length + 4;
      const boxes = [[x + 11, y - 8], [x - 11 - width, y - 8], [x - width / 2, y - 27], [x - width / 2, y + 11]]
        .map(([left, top]) => [left, top, left + width, top + 16]);
      const box = boxes.find((one) => free(one) && one[0] >= 0 && one[2] <= this.#stage.clientWidth);
      if (!box && !chosen) return [];
      const [left, top] = box ?? boxes[0];
      taken.push(box ?? boxes[0]);
      const label = shape('text', chosen ? 'label chosen' : 'label', { x: left + 2, y: top + 12 });
      label.textContent = text;
      return [label];
    });
  }

  // The keypoint that is meant by a place of the stage; -1: none.
  #nearest(place, within) {
    let [best, away] = [-1, within];
    this.#places().forEach((found, each) => {
      if (!found) return;
      const far = Math.hypot(found.at[0] - place[0], found.at[1] - place[1]) - (each === this.chosen ? 6 : 0);
      if (far < away) [best, away] = [each, far];
    });
    return best;
  }

  #at(event) {
    const box = this.#stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  #down(event) {
    if (!this.target?.points || event.button > 0) return;
    this.#stage.focus({ preventScroll: true });
    this.#marks.parentNode.setPointerCapture(event.pointerId);
    const at = this.#at(event);
    this.#pointers.set(event.pointerId, at);
    if (this.#pointers.size > 1) {
      this.cancel();
      this.#hold = { kind: 'pinch' };
      return;
    }
    const keypoint = this.#nearest(at, NEAR[event.pointerType] ?? NEAR.mouse);
    if (keypoint >= 0) this.#tell.choose(keypoint);
    // A finger covers what it drags, so the keypoint keeps its distance from it.
    const place = keypoint < 0 ? at : this.#places()[keypoint].at;
    const away = [place[0] - at[0], place[1] - at[1]];
    this.#hold = { kind: keypoint < 0 ? 'image' : 'keypoint', keypoint, from: at, away, moved: false };
  }

  #move(event) {
    const before = this.#pointers.get(event.pointerId), hold = this.#hold;
    if (!before || !hold) return;
    const at = this.#at(event);
    const others = [...this.#pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    this.#pointers.set(event.pointerId, at);
    if (hold.kind === 'pinch') {
      if (!others.length) return;
      const apart = (place) => Math.hypot(place[0] - others[0][0], place[1] - others[0][1]) || 1;
      this.corner = this.corner.map((side, axis) => side + (at[axis] - before[axis]) / 2);
      this.zoom(apart(at) / apart(before), [0, 1].map((axis) => (at[axis] + others[0][axis]) / 2));
      return;
    }
    hold.moved ||= Math.hypot(at[0] - hold.from[0], at[1] - hold.from[1]) > 3;
    if (!hold.moved) return;
    if (hold.kind === 'keypoint') {
      this.#tell.drag(hold.keypoint, this.toImage([at[0] + hold.away[0], at[1] + hold.away[1]]));
    } else {
      this.corner = this.corner.map((side, axis) => side + at[axis] - before[axis]);
      this.#touched = true;
    }
    this.draw();
  }

  #up(event) {
    const hold = this.#hold;
    if (!this.#pointers.delete(event.pointerId) || !hold) return;
    if (hold.kind === 'pinch' && this.#pointers.size) return;
    this.#hold = null;
    if (event.type === 'pointercancel') { this.#tell.cancel(); return; }
    if (hold.kind === 'keypoint' && hold.moved) this.#tell.drop();
    if (hold.kind === 'image' && !hold.moved) {
      const place = this.toImage(hold.from), back = this.toStage(place);
      // Only a click on the image itself means a place of it.
      if (Math.hypot(back[0] - hold.from[0], back[1] - hold.from[1]) <= this.scale) this.#tell.put(place);
    }
  }

  // Let go of what is dragged, as if nothing had happened.
  cancel() {
    if (this.#hold?.kind === 'keypoint') this.#tell.cancel();
    this.#hold = null;
    this.draw();
  }

  #wheel(event) {
    if (!this.target?.size) return;
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), this.#at(event));
  }
}

function shape(kind, name, attributes) {
  const node = document.createElementNS(SVG, kind);
  node.setAttribute('class', name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}
