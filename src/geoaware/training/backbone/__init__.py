"""Training the embedded backbone itself, with a decoder, on annotated images: ``geoaware tune``."""
