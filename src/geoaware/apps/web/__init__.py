"""What every server here has: a guard, limits of uploads, an end in good order."""
