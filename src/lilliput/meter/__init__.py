"""The measuring engine: latency, accuracy, size, memory and cost of files, each with its doubt."""
