"""What every long-running program needs. Knows nothing of this one."""
