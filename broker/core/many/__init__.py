"""Many calls decided together, each as by itself."""
