"""Every setting, typed, in one place."""
