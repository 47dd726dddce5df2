"""What `bin/bench` measures: each figure beside a floor or a peer of the same run. See docs/benchmarks.md."""
