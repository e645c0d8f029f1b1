"""Errors that are the caller's to mend; the command line turns them into one line and exit code 2."""

from __future__ import annotations


class InputError(ValueError):
    """Something given by the user (a file, a point, a name) cannot be used; the message says what to do."""


class MissingDependencyError(ImportError):
    """A package that an extra installs is absent; the message names the extra."""
