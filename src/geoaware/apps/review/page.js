// The page of a review: which object is looked at, what is done to it, and that every change is saved at once.
import { List } from './list.js';
import { View } from './view.js';

const find = (id) => document.getElementById(id);
const RETRY = 2000; // milliseconds until a change that could not be saved is sent again
const TOGETHER = 900; // milliseconds within which steps by arrow keys are one for undo
const HELD = 40; // objects that are kept, those looked at last

const all = await ask('targets');
const targets = new Map(); // by number: as they now are
const unsaved = new Set();
let at = -1, chosen = -1, order = all.rows.map((_, number) => number);
let done = [], undone = [], before = null, digits = '', typed = 0, saving = false, stuck = '';

const list = new List(find('list'), find('rows'), (number) => { show(number); menu(false); find('stage').focus(); });
const view = new View(find('stage'), find('photo'), find('marks'), {
  choose,
  drag: (keypoint, [x, y]) => {
    before ??= snapshot();
    const flag = now().points[keypoint][2] || 2;
    now().points[keypoint] = [tidy(x), tidy(y), flag];
    table();
  },
  drop: () => commit('drag'),
  cancel: () => { if (before) restore(at, before); before = null; table(); },
  put: (place) => {
    if (chosen >= 0 && now().points && !now().points[chosen][2]) edit('put', (points) => set(points, chosen, place, 2));
  },
});

async function ask(address, content) {
  const options = content && {
    method: 'POST', body: JSON.stringify(content), headers: { 'content-type': 'application/json' },
  };
  const answer = await fetch(address, options);
  const found = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(found.error), { status: answer.status });
  return found;
}

// ---- the object that is looked at ---------------------------------------------------------------------------

const now = () => targets.get(at) ?? {};
const schema = () => all.schemas[all.rows[at][3]];
const tidy = (value) => Math.round(value * 100) / 100;

async function load(number) {
  if (!targets.has(number)) {
    const found = await ask(`target/${number}`);
    if (!targets.has(number)) targets.set(number, { ...found, edited: false, last: {} });
    for (const old of targets.keys()) {
      if (targets.size <= HELD) break;
      if (old !== number && old !== at && !unsaved.has(old)) targets.delete(old);
    }
  }
  return targets.get(number);
}

async function show(number) {
  if (number === undefined || number === at) return;
  view.cancel();
  at = number;
  const found = await load(number).catch((error) => ({ error: error.message, accepted: false }));
  if (at !== number) return; // somebody was faster
  targets.set(number, found);
  history.replaceState(null, '', `#${number + 1}`);
  chosen = -1;
  view.chosen = -1;
  find('trouble').hidden = !found.error;
  find('trouble').textContent = found.error ?? '';
  view.open(found, schema(), `image/${number}`);
  find('photo').alt = all.rows[number][0];
  list.mark(number);
  points();
  head();
  const following = order[order.indexOf(number) + 1];
  if (following !== undefined) {
    load(following).then((next) => { if (next.size) new Image().src = `image/${following}`; }).catch(() => {});
  }
}

function go(step) {
  const place = order.indexOf(at);
  show(order[Math.min(Math.max(place + step, 0), order.length - 1)]);
}

function choose(keypoint) {
  chosen = keypoint;
  view.chosen = keypoint;
  table();
  find('points').children[keypoint]?.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  view.draw();
}

// ---- changes, undo and redo ---------------------------------------------------------------------------------

const snapshot = () => ({ points: now().points?.map((point) => [...point]), accepted: now().accepted });

function restore(number, state) {
  const target = targets.get(number);
  target.points = state.points?.map((point) => [...point]);
  target.accepted = state.accepted;
  all.rows[number][2] = state.accepted;
}

// Make a change to the keypoints; `kind` tells steps that are one for undo.
function edit(kind, change) {
  if (!now().points) return;
  before ??= snapshot();
  change(now().points);
  commit(kind);
}

function commit(kind) {
  if (!before) return;
  const after = snapshot(), last = done.at(-1), time = Date.now();
  const moved = JSON.stringify(after.points) !== JSON.stringify(before.points);
  now().edited ||= moved;
  if (moved || after.accepted !== before.accepted) {
    const step = kind.startsWith('step') && last?.kind === kind && last.number === at && time - last.time < TOGETHER;
    if (step) Object.assign(last, { after, time });
    else done.push({ number: at, kind, before, after, time });
    undone = [];
    save(at);
  }
  before = null;
  refresh();
}

async function back(from, to, key) {
  const change = from.pop();
  if (!change) return;
  to.push({ ...change, time: 0 });
  await load(change.number);
  restore(change.number, change[key]);
  targets.get(change.number).edited = true;
  save(change.number);
  if (change.number !== at) await show(change.number);
  refresh();
}

const undo = () => back(done, undone, 'before');
const redo = () => back(undone, done, 'after');

function set(points, keypoint, [x, y], flag) {
  points[keypoint] = flag ? [tidy(x), tidy(y), flag] : [0, 0, 0];
}

function hide() {
  if (chosen < 0 || !now().points) return;
  const [x, y, flag] = now().points[chosen];
  edit('hide', (points) => (flag ? set(points, chosen, [x, y], 3 - flag) : set(points, chosen, likeliest(), 2)));
}

function drop() {
  if (chosen < 0 || !now().points?.[chosen][2]) return;
  now().last[chosen] = now().points[chosen];
  edit('drop', (points) => set(points, chosen, [0, 0], 0));
}

// Where a keypoint without a place goes: where it was last, was found, or to the middle of the object.
function likeliest() {
  const guess = now().guesses[chosen];
  const [x, y, width, height] = now().box ?? [0, 0, ...now().size];
  return now().last[chosen] ?? (guess[2] ? guess : [x + width / 2, y + height / 2]);
}

function move(dx, dy) {
  if (chosen < 0 || !now().points) return;
  const [width, height] = now().size;
  edit(`step ${chosen}`, (points) => {
    const [x, y, flag] = points[chosen][2] ? points[chosen] : [...likeliest().slice(0, 2), 2];
    set(points, chosen, [Math.min(Math.max(x + dx, 0), width - 1), Math.min(Math.max(y + dy, 0), height - 1)], flag);
  });
}

function swap() {
  edit('swap', (points) => points.splice(0, points.length, ...schema().partners.map((each) => points[each])));
}

function accept(wanted = !now().accepted) {
  if (now().error) return;
  before = snapshot();
  now().accepted = wanted;
  all.rows[at][2] = wanted;
  commit('accept');
}

// ---- saving -------------------------------------------------------------------------------------------------

async function save(number) {
  unsaved.add(number);
  if (saving) return;
  saving = true;
  while (unsaved.size) {
    const [each] = unsaved, target = targets.get(each), { revision, accepted, edited } = target;
    unsaved.delete(each);
    state('saving…');
    try {
      const content = { revision, accepted, points: edited ? target.points : null };
      const found = await ask(`target/${each}`, content);
      target.revision = found.revision;
      if (!unsaved.has(each)) target.scores = found.scores ?? null;
      stuck = '';
    } catch (error) {
      if (error.status === 409 || error.status === 400) {
        await again(each, error.message);
      } else {
        unsaved.add(each);
        stuck = `not saved: ${error.status ? error.message : 'the program has ended'}`;
        state(stuck);
        await new Promise((wake) => { setTimeout(wake, RETRY); });
      }
    }
  }
  saving = false;
  state(stuck || 'saved');
  table();
}

// Take an object as the file has it.
async function again(number, why) {
  stuck = why;
  targets.delete(number);
  unsaved.delete(number);
  done = done.filter((each) => each.number !== number);
  undone = undone.filter((each) => each.number !== number);
  const found = await load(number);
  all.rows[number][2] = found.accepted;
  if (number === at) {
    at = -1;
    await show(number);
  }
}

function state(text) {
  find('saved').textContent = text;
  find('saved').classList.toggle('bad', Boolean(stuck));
}

window.addEventListener('beforeunload', (event) => { if (saving || unsaved.size) event.preventDefault(); });

// ---- what is shown of it ------------------------------------------------------------------------------------

function refresh() {
  table();
  head();
  list.refresh();
  view.draw();
}

function head() {
  const [name, confidence, accepted] = all.rows[at], word = document.createElement('span');
  word.textContent = 'confidence ';
  const place = order.indexOf(at), count = all.rows.filter((row) => row[2]).length;
  const sure = confidence === null ? [] : [' · ', word, confidence.toFixed(2)];
  find('name').textContent = name;
  find('name').title = name;
  const where = place < 0 ? `not among ${order.length}` : `${place + 1} of ${order.length}`;
  find('place').replaceChildren(where, ...sure, ` · ${count} accepted`);
  document.title = `${name} · Review`;
  find('accept').setAttribute('aria-pressed', accepted);
  find('accept').lastElementChild.textContent = accepted ? 'Accepted' : 'Accept';
  find('accept').disabled = Boolean(now().error);
  find('undo').disabled = !done.length;
  find('redo').disabled = !undone.length;
  find('previous').disabled = place <= 0;
  find('next').disabled = place < 0 || place === order.length - 1;
}

// The table of keypoints, made anew for another object.
function points() {
  const { names, sides } = schema();
  find('points').replaceChildren(...names.map((name, keypoint) => {
    const node = document.createElement('li');
    const button = document.createElement('button');
    button.title = name;
    const parts = [`${keypoint + 1}`, '', name, ''].map((text, place) => {
      const part = document.createElement('span');
      part.className = ['number', `dot ${sides[keypoint]}`, 'what', 'sure'][place];
      part.textContent = text;
      return part;
    });
    button.type = 'button';
    button.append(...parts);
    button.addEventListener('click', () => choose(keypoint));
    node.append(button);
    return node;
  }));
  const used = new Set(sides);
  find('legend').replaceChildren(...['left', 'right', 'middle'].filter((side) => used.has(side)).map((side) => {
    const node = document.createElement('li');
    const dot = document.createElement('span');
    dot.className = `dot ${side}`;
    node.append(dot, side);
    return node;
  }));
  table();
}

function table() {
  const { points: places, scores } = now();
  [...find('points').children].forEach((node, keypoint) => {
    const flag = places?.[keypoint][2] ?? 0, score = scores?.[keypoint];
    const said = ['absent', 'hidden', ''][flag], sure = score === undefined ? '' : score.toFixed(2);
    node.className = ['absent', 'hidden', 'visible'][flag] + (keypoint === chosen ? ' chosen' : '');
    node.querySelector('.sure').textContent = said || sure;
    node.firstChild.setAttribute('aria-pressed', keypoint === chosen);
  });
  const flag = places?.[chosen]?.[2];
  find('hide').disabled = flag === undefined;
  find('hide').lastElementChild.textContent = flag === 2 || flag === undefined ? 'Hide' : 'Show';
  find('drop').disabled = !flag;
  find('swap').disabled = !places || schema().partners.every((partner, keypoint) => partner === keypoint);
}

// ---- which objects are listed -------------------------------------------------------------------------------

function filter() {
  const which = find('which').value, text = find('find').value.trim().toLowerCase();
  const numbers = which === 'next' ? all.next : all.rows.map((_, number) => number);
  order = numbers.filter((number) => {
    const [name, , accepted] = all.rows[number];
    const wanted = which === 'open' ? !accepted : which === 'done' ? accepted : true;
    return wanted && name.toLowerCase().includes(text);
  });
  list.show(order);
  if (at >= 0) {
    list.mark(at);
    head();
  }
}

function menu(open) {
  document.body.classList.toggle('menu', open);
  find('menu').setAttribute('aria-expanded', open);
  list.refresh();
}

// ---- keys and buttons ---------------------------------------------------------------------------------------

const KEYS = {
  h: hide, Delete: drop, Backspace: drop, s: swap, a: () => accept(), n: () => go(1), p: () => go(-1),
  PageDown: () => go(1), PageUp: () => go(-1), u: undo, r: redo,
  Enter: () => { accept(true); go(1); },
  l: () => { view.named = !view.named; view.draw(); },
  '+': () => view.zoom(1.3), '=': () => view.zoom(1.3), '-': () => view.zoom(1 / 1.3), 0: whole,
  '?': () => find('keys').showModal(),
  Escape: () => { view.cancel(); menu(false); choose(-1); },
};
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function whole() {
  view.fit(!view.whole);
}

// Digits that follow each other quickly are one number.
function digit(key) {
  const more = Date.now() - typed < 700 ? digits + key : key;
  digits = Number(more) > schema().names.length ? key : more;
  typed = Date.now();
  if (Number(digits) >= 1 && Number(digits) <= schema().names.length) choose(Number(digits) - 1);
}

function tab(event) {
  const next = chosen + (event.shiftKey ? -1 : 1);
  // From the last keypoint, and back from the first, the focus moves on.
  if (document.activeElement !== find('stage') || next < 0 || next >= schema().names.length) return;
  choose(next);
  event.preventDefault();
}

document.addEventListener('keydown', (event) => {
  if (find('keys').open || at < 0 || event.altKey) return;
  const inside = event.target.closest('input, select, button');
  if (event.key === 'Tab') { tab(event); return; }
  if (inside && (inside.tagName !== 'BUTTON' || ['Enter', ' '].includes(event.key)) && event.key !== 'Escape') return;
  if (event.ctrlKey || event.metaKey) {
    const key = event.key.toLowerCase();
    if (key === 'z') (event.shiftKey ? redo : undo)();
    else if (key === 'y') redo();
    else return;
  } else if (STEPS[event.key]) {
    move(...STEPS[event.key].map((step) => step * (event.shiftKey ? 10 : 1)));
  } else if (/^[1-9]$/.test(event.key) || (event.key === '0' && digits && Date.now() - typed < 700)) {
    digit(event.key);
  } else {
    digits = '';
    const action = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
    if (!action) return;
    action();
  }
  event.preventDefault();
});

for (const [id, action] of Object.entries({
  previous: () => go(-1), next: () => go(1), undo, redo, hide, drop, swap,
  accept: () => { const wanted = !now().accepted; accept(wanted); if (wanted) go(1); },
  closer: () => view.zoom(1.4), farther: () => view.zoom(1 / 1.4), whole: () => view.fit(!view.whole),
  help: () => find('keys').showModal(), menu: () => menu(!document.body.classList.contains('menu')),
})) {
  find(id).addEventListener('click', (event) => {
    action();
    // After a click of the mouse, keys are for the image again.
    if (event.detail && id !== 'menu' && id !== 'help') find('stage').focus({ preventScroll: true });
  });
}
find('which').addEventListener('change', filter);
find('find').addEventListener('input', filter);

list.fill(all.rows, all.next);
filter();
const wanted = Number(location.hash.slice(1)) - 1;
const open = all.rows.findIndex((row) => !row[2]);
await show(all.rows[wanted] ? wanted : Math.max(open, 0));
find('stage').focus();
document.body.dataset.ready = 'yes';
