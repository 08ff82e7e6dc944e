"""The metrics of several processes of one machine, shown as one: by files of prometheus-client's multiprocess mode."""
