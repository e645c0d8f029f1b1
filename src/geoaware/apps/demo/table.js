// The table of matches: buttons in it choose a point, or delete it.
element.addEventListener('click', (event) => {
  const node = event.target.closest('[data-index], [data-remove]');
  if (!node) return;
  const { index, remove } = node.dataset;
  if (remove) trigger('removed', { index: Number(remove) });
  else trigger('choose', { index: Number(index) });
});
