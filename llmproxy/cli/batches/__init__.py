"""A file of requests as a batch of the running proxy, from the upload to the answers on the disk."""
