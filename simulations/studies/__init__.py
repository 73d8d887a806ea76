"""Many runs: planned, carried out on some cores or machines, and compared."""
