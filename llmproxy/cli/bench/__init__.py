"""``llmproxy bench``: how quick a running proxy and the model behind it are. ``locustfile.py`` shares parts of it."""
