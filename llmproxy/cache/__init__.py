"""The cache: policy and key, tiers, flushes, and requests that share one upstream call."""
