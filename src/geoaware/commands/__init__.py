"""One file per group of commands; each only parses, calls the library and prints."""
