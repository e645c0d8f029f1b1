// The table of matches: a button in it chooses its point.
element.addEventListener('click', (event) => {
  const node = event.target.closest('[data-index]');
  if (node) trigger('choose', { index: Number(node.dataset.index) });
});
