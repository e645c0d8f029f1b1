"""An interface over HTTP: send images once, match their points often (`geoaware serve`)."""
