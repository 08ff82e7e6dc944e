"""The pages that are made from the program itself: ``python -m docs.render``."""
