"""Looking a result through in the browser and correcting it, from the least confident object on."""
