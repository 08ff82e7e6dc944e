"""The dialects of the cached endpoints, one file for each shape of answers."""
