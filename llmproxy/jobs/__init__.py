"""The background-job extension: one durable queue, and the faces through which work comes in."""
