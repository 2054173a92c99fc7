"""Claims: what we tell users in numbers, each runnable alone (`python -m benchmarks NAME`)."""
