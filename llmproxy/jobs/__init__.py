"""The durable queue of jobs, its workers, and what it keeps: blobs and stored answers."""
