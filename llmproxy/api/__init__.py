"""What callers see of jobs: files, batches, Responses, stored chat completions, tasks."""
