// Lets the browser save a file. Nothing of it is seen.
watch('serial', () => {
  const link = document.createElement('a');
  link.href = props.url;
  link.download = props.name;
  document.body.append(link);
  link.click();
  link.remove();
});
