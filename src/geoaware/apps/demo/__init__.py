"""A page in the browser: click a point on one image, see it on the other (`geoaware demo`)."""
