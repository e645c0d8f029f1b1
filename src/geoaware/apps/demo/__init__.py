"""A page in the browser: click a point on one picture, see it on the other (`geoaware demo`)."""
