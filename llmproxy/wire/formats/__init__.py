"""The dialects of the cached endpoints: one file for each form of answers."""
