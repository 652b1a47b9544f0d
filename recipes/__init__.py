"""What a person runs: choices and wiring only."""
