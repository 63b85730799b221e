"""What `scripts/bench` runs: the price of a step beside plain Temporal loops, and the time to move on after kill -9."""
