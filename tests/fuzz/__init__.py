"""Every command on mutated input: ``python -m tests.fuzz --help``; a short round is in ``test_fuzz``."""
