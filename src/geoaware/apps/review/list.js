// The list of objects. Rows are made as they are seen, and their thumbnails asked for once they stay in sight.

const HEIGHT = 68; // of a row in pixels, as in page.css
const BEYOND = 4; // rows above and below what is seen
const PATIENCE = 90; // milliseconds that a row stays before its thumbnail is asked for

export class List {
  #box; #rows; #choose; #data = []; #order = []; #next = new Set(); #made = new Map(); #at = -1; #asked = 0;

  // `choose` is called with the number of an object.
  constructor(box, rows, choose) {
    this.#box = box;
    this.#rows = rows;
    this.#choose = choose;
    box.addEventListener('scroll', () => this.#soon(), { passive: true });
    new ResizeObserver(() => this.#soon()).observe(box);
  }

  // All rows (name, confidence, accepted, category), and which objects are to be annotated next.
  fill(data, next) {
    this.#data = data;
    this.#next = new Set(next);
  }

  // The numbers to list, in this order.
  show(order) {
    this.#order = order;
    this.#rows.style.height = `${order.length * HEIGHT}px`;
    this.#made.forEach(({ node, timer }) => { clearTimeout(timer); node.remove(); });
    this.#made.clear();
    this.#draw();
  }

  // Show an object as the one that is looked at, and bring it into sight.
  mark(number) {
    this.#at = number;
    const place = this.#order.indexOf(number), { scrollTop, clientHeight } = this.#box;
    if (place >= 0 && (place * HEIGHT < scrollTop || (place + 1) * HEIGHT > scrollTop + clientHeight)) {
      this.#box.scrollTop = Math.max(0, (place + 0.5) * HEIGHT - clientHeight / 2);
    }
    this.refresh();
  }

  // Draw the rows that are there again: something of them has changed.
  refresh() {
    this.#made.forEach(({ node }, number) => this.#fill(node, number));
    this.#soon();
  }

  #soon() {
    this.#asked ||= requestAnimationFrame(() => { this.#asked = 0; this.#draw(); });
  }

  #draw() {
    const { scrollTop, clientHeight } = this.#box;
    const first = Math.max(0, Math.floor(scrollTop / HEIGHT) - BEYOND);
    const last = Math.min(this.#order.length, Math.ceil((scrollTop + clientHeight) / HEIGHT) + BEYOND);
    const seen = new Set(this.#order.slice(first, clientHeight ? last : first));
    this.#made.forEach(({ node, timer }, number) => {
      if (seen.has(number)) return;
      clearTimeout(timer);
      node.remove();
      this.#made.delete(number);
    });
    let place = first;
    for (const number of seen) {
      if (!this.#made.has(number)) this.#make(number, place);
      place += 1;
    }
  }

  #make(number, place) {
    const node = document.createElement('li');
    node.innerHTML = '<button type="button"><span class="thumb"><img alt=""></span><span class="what">'
      + '<strong></strong><small></small></span><span class="sign"></span></button>';
    node.style.top = `${place * HEIGHT}px`;
    node.setAttribute('aria-setsize', this.#order.length);
    node.setAttribute('aria-posinset', place + 1);
    node.firstChild.addEventListener('click', () => this.#choose(number));
    const small = node.querySelector('img');
    small.addEventListener('error', () => small.remove());
    const timer = setTimeout(() => { small.src = `thumbnail/${number}`; }, PATIENCE);
    this.#made.set(number, { node, timer });
    this.#fill(node, number);
    this.#rows.append(node);
  }

  #fill(node, number) {
    const [name, confidence, accepted] = this.#data[number];
    const cut = name.lastIndexOf('/') + 1;
    node.querySelector('strong').textContent = name.slice(cut);
    const sure = confidence === null ? '' : `confidence ${confidence.toFixed(2)}`;
    node.querySelector('small').textContent = [sure, name.slice(0, cut)].filter(Boolean).join(' · ');
    const sign = node.querySelector('.sign');
    sign.textContent = accepted ? '✓' : this.#next.has(number) ? 'next' : '';
    sign.title = accepted ? 'accepted' : sign.textContent && 'worth annotating next';
    node.classList.toggle('done', accepted);
    node.firstChild.title = name;
    if (number === this.#at) node.firstChild.setAttribute('aria-current', 'true');
    else node.firstChild.removeAttribute('aria-current');
  }
}
