"""Features on disk, and their extraction."""
