"""What a process and its market are like in numbers, for Prometheus."""
