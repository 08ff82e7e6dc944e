"""Word of a job's end, sent to a URL."""
