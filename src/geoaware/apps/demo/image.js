// One of the two images. Runs in a function that gradio gives element, props, trigger, upload and watch.
const find = (selector) => element.querySelector(selector);
const pane = find('.pane'), stage = find('.stage'), frame = find('.frame'), photo = find('img');
const marks = find('.marks'), cross = find('.cross'), file = find('input'), wait = find('.wait');
const side = pane.dataset.side, points = side === 'source';
const layer = find('.layer'), [grey, colours] = layer.children, ghost = find('.ghost');
// What both images know: which one was used last, and which are filled (pasted images go by it); and how
// image B shows the place that fits the pointer on image A.
const shared = (window.geoaware ??= { last: null, filled: {}, show: () => {} });
let at = null; // where the cross of the keyboard is, in pixels of the image
let drag = null; // the point that is being dragged: its index, where it is, and whether it was moved
let pointer = null, asking = false, over = null; // what is to be asked next, and where the mouse is

function set(node, x, y) {
  node.style.left = (100 * x) / props.width + '%';
  node.style.top = (100 * y) / props.height + '%';
}

function mark(point, index) {
  const node = document.createElement('button');
  node.type = 'button';
  node.className = 'mark' + (index === props.chosen ? ' chosen' : '');
  node.tabIndex = -1; // the table has the same buttons for the keyboard
  node.style.background = point.colour;
  node.textContent = point.number;
  node.title = point.title;
  node.addEventListener('click', () => { if (!drag) trigger('choose', { index }); });
  set(node, point.x, point.y);
  return node;
}

function render() {
  wait.hidden = true;
  shared.filled[side] = Boolean(props.src);
  find('.empty').hidden = Boolean(props.src);
  frame.hidden = !props.src;
  frame.style.setProperty('--ratio', props.width / props.height);
  const shown = props.heat || props.src;
  if (shown && photo.getAttribute('src') !== shown) photo.src = shown;
  if (!shown) photo.removeAttribute('src');
  if (photo.dataset.of !== props.src) at = null;
  photo.dataset.of = props.src;
  cross.hidden = !at;
  marks.replaceChildren(...props.points.map(mark));
  if (drag?.moved && marks.children[drag.index]) set(marks.children[drag.index], drag.x, drag.y);
  if (!points && grey.getAttribute('src') !== props.src) props.src ? (grey.src = props.src) : grey.removeAttribute('src');
  if (over) peek(over);
  pane.dataset.serial = props.serial; // what was drawn last, for whoever waits for it
}

async function take(given) {
  if (!given) return;
  if (given.size > props.most) return trigger('trouble', { name: given.name, large: true });
  wait.hidden = false;
  try {
    // Uploads lie under their content and name: two tabs with the same image must not take it from each other.
    const own = new File([given], Math.random().toString(36).slice(2) + '-' + given.name, { type: given.type });
    const { path } = await upload(own);
    trigger('bring', { path, name: given.name });
  } catch {
    trigger('trouble', { name: given.name, large: false });
  }
}

// Pixels of the image under the pointer, kept inside it where asked for.
function pixels(event, inside) {
  const box = photo.getBoundingClientRect();
  let x = ((event.clientX - box.left) / box.width) * props.width;
  let y = ((event.clientY - box.top) / box.height) * props.height;
  if (inside) [x, y] = [Math.min(Math.max(x, 0), props.width - 1e-3), Math.min(Math.max(y, 0), props.height - 1e-3)];
  return { x, y };
}

// Ask where a place of image A lies on image B: one question at a time, the latest place next.
async function peek(place) {
  pointer = place;
  if (asking || !props.peek) return;
  asking = true;
  while (pointer) {
    const { x, y } = pointer;
    pointer = null;
    try {
      const answer = await fetch(`${props.peek}?x=${x}&y=${y}&heated=${props.heated}`);
      const found = answer.ok ? await answer.json() : {};
      if (over || drag) shared.show('x' in found ? found : null);
    } catch {
      shared.show(null);
    }
    await new Promise((done) => setTimeout(done, 25));
  }
  asking = false;
}

function leave() {
  over = pointer = null;
  if (!drag) shared.show(null);
}

// Image B: the place that fits the pointer, and the heat map where there is one.
function show(found) {
  ghost.hidden = !found;
  layer.hidden = !found?.heat;
  marks.classList.toggle('faint', Boolean(found));
  if (!found) return;
  set(ghost, found.x, found.y);
  ghost.classList.toggle('low', found.low);
  ghost.firstChild.textContent = found.confidence.toFixed(2);
  if (found.heat) colours.src = found.heat;
}

function grasp(event) {
  const node = event.target.closest('.mark');
  if (!node || event.button) return;
  drag = { index: [...marks.children].indexOf(node), from: [event.clientX, event.clientY], moved: false };
  document.addEventListener('pointermove', pull);
  for (const kind of ['pointerup', 'pointercancel']) document.addEventListener(kind, release);
}

function pull(event) {
  if (Math.hypot(event.clientX - drag.from[0], event.clientY - drag.from[1]) > 4) drag.moved = true;
  if (!drag.moved) return;
  Object.assign(drag, pixels(event, true));
  const node = marks.children[drag.index];
  if (node) set(node, drag.x, drag.y);
  peek(drag);
}

function release(event) {
  document.removeEventListener('pointermove', pull);
  for (const kind of ['pointerup', 'pointercancel']) document.removeEventListener(kind, release);
  const { index, x, y, moved } = drag;
  if (moved && event.type === 'pointerup') trigger('moved', { index, x, y });
  else if (moved) render();
  if (!moved) drag = null;
  // The click that follows a drag chooses nothing and sets no point.
  setTimeout(() => { drag = null; if (!over) leave(); }, 0);
}

function steer(event) {
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const move = moves[event.key];
  if (move) {
    const step = (Math.max(props.width, props.height) * (event.shiftKey ? 5 : 0.5)) / 100;
    at ??= { x: props.width / 2, y: props.height / 2 };
    at.x = Math.min(Math.max(at.x + step * move[0], 0), props.width - 1);
    at.y = Math.min(Math.max(at.y + step * move[1], 0), props.height - 1);
    cross.hidden = false;
    set(cross, at.x, at.y);
  } else if (event.key === 'Enter' && at && event.target === frame) {
    trigger('place', at);
  } else if ((event.key === 'Delete' || event.key === 'Backspace') && props.chosen >= 0) {
    trigger('removed', { index: props.chosen });
  } else {
    return;
  }
  event.preventDefault();
}

find('.pick').addEventListener('click', () => file.click());
file.addEventListener('change', () => { take(file.files[0]); file.value = ''; });
stage.addEventListener('dragover', (event) => { event.preventDefault(); stage.classList.add('over'); });
stage.addEventListener('dragleave', () => stage.classList.remove('over'));
stage.addEventListener('drop', (event) => {
  event.preventDefault();
  stage.classList.remove('over');
  take(event.dataTransfer.files[0]);
});
for (const kind of ['pointerenter', 'focusin']) pane.addEventListener(kind, () => { shared.last = side; });
document.addEventListener('paste', (event) => {
  const goal = shared.last ?? (shared.filled.source ? 'target' : 'source');
  if (goal === side) take([...event.clipboardData.files].find((each) => each.type.startsWith('image/')));
});
if (points) {
  frame.tabIndex = 0;
  frame.setAttribute('role', 'group');
  frame.setAttribute('aria-label', 'Arrow keys move a cross over image A, with Shift in larger steps; Enter sets a point, Delete takes the chosen one away');
  frame.addEventListener('keydown', steer);
  stage.addEventListener('click', (event) => {
    if (!props.src || drag || event.target.closest('button')) return;
    leave(); // the point that is set shows the same
    trigger('place', pixels(event));
  });
  marks.addEventListener('pointerdown', grasp);
  frame.addEventListener('pointermove', (event) => {
    if (event.pointerType !== 'mouse' || drag) return;
    if (event.target.closest('.mark')) leave();
    else peek((over = pixels(event, true)));
  });
  frame.addEventListener('pointerleave', leave);
} else {
  shared.show = show;
}
find('.examples').replaceChildren(...props.examples.map(({ src, about }, index) => {
  const node = document.createElement('button');
  const small = document.createElement('img');
  node.type = 'button';
  node.title = about;
  small.src = src;
  small.alt = 'Example: ' + about;
  node.append(small);
  node.addEventListener('click', () => { wait.hidden = false; trigger('example', { index }); });
  return node;
}));
watch('serial', render);
render();
