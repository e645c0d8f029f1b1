// One of the two images. Runs in a function that gradio gives element, props, trigger, upload and watch.
const find = (selector) => element.querySelector(selector);
const pane = find('.pane'), stage = find('.stage'), frame = find('.frame'), photo = find('img');
const marks = find('.marks'), cross = find('.cross'), file = find('input'), wait = find('.wait');
const side = pane.dataset.side, points = side === 'source';
// What both images know: which one was used last, and which are filled. Pasted images go by it.
const shared = (window.geoaware ??= { last: null, filled: {} });
let at = null; // where the cross of the keyboard is, in pixels of the image

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
  node.addEventListener('click', () => trigger('choose', { index }));
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

function place(event) {
  const box = photo.getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * props.width;
  const y = ((event.clientY - box.top) / box.height) * props.height;
  trigger('place', { x, y });
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
  frame.setAttribute('aria-label', 'Arrow keys move a cross over image A, with Shift in larger steps; Enter sets a point');
  frame.addEventListener('keydown', steer);
  stage.addEventListener('click', (event) => {
    if (props.src && !event.target.closest('button')) place(event);
  });
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
