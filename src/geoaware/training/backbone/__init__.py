"""Training the embedded backbone itself, with a decoder, on annotated pictures: ``geoaware tune``."""
