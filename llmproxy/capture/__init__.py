"""One upstream answer, many readers. Knows no framework."""
