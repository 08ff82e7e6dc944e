"""The life of a request. ``life.py`` is the map."""
