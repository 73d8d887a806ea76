"""The market in each process: loads in, prices out; and what is told of both."""
